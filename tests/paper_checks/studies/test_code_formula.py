import numpy as np
import pytest

import rmt
from paper_checks.studies.code_formula import CodeFormula

FIGURE1 = rmt.Transfer(
    N=5000, n=40, p=1000, mu=0.8, mu_perp=0.8, gamma_source=5, gamma=0.1, beta=np.array([0.2, 0.5, 0.9])
)


def test_gives_the_labels_of_figure_1():
    code = CodeFormula(FIGURE1)
    np.testing.assert_allclose(code.alpha_star, [1.64, 4.13, 7.53], atol=0.00501)
    np.testing.assert_allclose(code.alpha_bar, [-1.41, -0.56, -0.31], atol=0.00501)
    np.testing.assert_allclose(code.best_accuracy, [0.5723, 0.6395, 0.7319], atol=5e-5)


def test_gives_the_published_scale_of_book_to_dvd():
    # Moments of the real data, to the digits printed in the figure files of the paper's code.
    setting = rmt.Transfer(
        N=2000,
        n=np.array([20, 40]),
        p=400,
        mu=1.1953172,
        mu_perp=0.7381786 * np.sqrt(1),
        beta=0.7969552,
        gamma_source=1.0,
        gamma=1.0,
    )
    np.testing.assert_allclose(CodeFormula(setting).alpha_star, [2.42, 2.47], atol=0.00501)


def test_differs_from_the_theory_in_the_second_moment_alone():
    code, score = CodeFormula(FIGURE1), rmt.theory(FIGURE1)
    alpha = np.array([[-2.0], [0.0], [1.5]])
    np.testing.assert_allclose(code.mean(alpha), score.mean(alpha), rtol=1e-12)
    np.testing.assert_allclose(code.alpha_bar, score.alpha_bar, rtol=1e-12)
    np.testing.assert_allclose(code.second_moment(0.0), score.second_moment(0.0), rtol=1e-12)
    slope = (code.second_moment(1e-6) - code.second_moment(-1e-6)) / 2e-6
    expected = (score.second_moment(1e-6) - score.second_moment(-1e-6)) / 2e-6
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
    assert (code.second_moment(3.0) < score.second_moment(3.0)).all()


def test_is_the_arbitrary_source_formula_with_a_wrong_norm():
    setting = rmt.Transfer(N=900, n=150, p=300, mu=1.1, mu_perp=0.9, beta=0.6, gamma_source=2.0, gamma=0.7)
    code, score = CodeFormula(setting), rmt.theory(setting)
    assert code.norm2 < score.norm2
    source = rmt.FixedSource(overlap=score.overlap, norm2=code.norm2)
    arbitrary = rmt.theory(rmt.Transfer(p=300, n=150, gamma=0.7, mu_target=np.sqrt(setting.m2), source=source))
    np.testing.assert_allclose(code.second_moment(1.7), arbitrary.second_moment(1.7), rtol=1e-12)
    np.testing.assert_allclose(code.alpha_star, arbitrary.alpha_star, rtol=1e-9)


@pytest.mark.parametrize(
    ("fields", "star", "norm2"),
    [
        ((5000, 200, 400, 1.5, 1.0, 0.8, 1.0, 1.0), 2.07, 0.1213),
        ((1000, 20, 400, 1.0, 0.7, 0.8, 0.1, 1.0), 1.96, 0.2371),
        ((500, 100, 400, 1.5, 1.0, 0.8, 0.1, 1.0), -10.4, 0.0435),
        ((400, 100, 400, 1.5, 1.0, 0.8, 0.01, 1.0), -1.41, -0.0795),
    ],
)
def test_breaks_down_as_documented_where_the_source_is_noisy(fields, star, norm2):
    names = ("N", "n", "p", "mu", "mu_perp", "beta", "gamma_source", "gamma")
    code = CodeFormula(rmt.Transfer(**dict(zip(names, fields, strict=True))))
    assert float(code.alpha_star) == pytest.approx(star, rel=0.005)
    assert float(code.norm2) == pytest.approx(norm2, abs=5e-5)
    assert np.isnan(code.best_accuracy) == (star < 0)


def test_refuses_a_fixed_source():
    setting = rmt.Transfer(p=10, n=5, gamma=1.0, mu_target=1.0, source=rmt.FixedSource(overlap=0.1, norm2=1.0))
    with pytest.raises(ValueError, match="ridge source"):
        CodeFormula(setting)
