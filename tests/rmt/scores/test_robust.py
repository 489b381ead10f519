"""Inputs that a person meets and that once broke a score: two equal sources, single precision, far scales, pickling."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from cases_beyond import MEAN, SECOND_SOURCE, SOURCE, D, J, random_gaussian, toeplitz

import rmt
from rmt.losses import _tail_moment, find_loss


def classes(**change: object) -> rmt.ClassTransfer:
    """Two classes of own diagonal covariance."""
    base = {
        "n": 200,
        "gamma": 0.1,
        "means": [MEAN, -(0.6 * MEAN + 0.3 * D)],
        "covariances": [np.linspace(0.5, 2.0, 300), np.where(J <= 150, 2.0, 0.5)],
        "proportions": (0.3, 0.7),
        "source": SOURCE,
    }
    return rmt.ClassTransfer(**(base | change))


def test_equal_sources_share_the_scale_of_one():
    one = rmt.theory(toeplitz(150, 0.2))
    two = rmt.theory(toeplitz(150, 0.2, source=(SOURCE, SOURCE)))
    np.testing.assert_allclose(two.alpha_star, 0.5 * one.alpha_star, rtol=1e-8)
    np.testing.assert_allclose(two.alpha_risk, 0.5 * one.alpha_risk, rtol=1e-8)
    assert two.best_accuracy == pytest.approx(one.best_accuracy, rel=1e-12)
    three = rmt.theory(toeplitz(150, 0.2, source=(SOURCE, SECOND_SOURCE, SOURCE)))
    assert three.best_accuracy == pytest.approx(
        rmt.theory(toeplitz(150, 0.2, source=(SOURCE, SECOND_SOURCE))).best_accuracy, rel=1e-12
    )
    np.testing.assert_allclose(three.marginal_value[[0, 2]], 0.0, atol=1e-12)


def test_a_single_precision_gram_matrix_is_a_covariance():
    rows = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    gram = rows.T @ rows / 20
    exact = rows.astype(float).T @ rows / 20
    given = [
        rmt.GaussianTransfer(
            n=20, gamma=0.1, mean=np.ones(30) / 5, covariance=C, source=rmt.FixedSource(vector=np.ones(30))
        )
        for C in (gram, gram.astype(float), exact)
    ]
    single, cast, double = (rmt.theory(setting).accuracy(1.0) for setting in given)
    assert single == pytest.approx(double, rel=1e-5)
    assert cast == pytest.approx(double, rel=1e-5)
    with pytest.raises(ValueError, match="positive semi-definite"):
        rmt.Spectrum.of(exact - 0.01 * np.eye(30))


@pytest.mark.parametrize("loss", ["square", "logistic", "squared_hinge"])
@pytest.mark.parametrize("setting", [toeplitz(150, 0.2), classes(), classes(intercept=True)], ids=["one", "two", "b0"])
def test_scores_survive_a_pickle(setting, loss):
    score = rmt.theory(setting, loss=loss)
    back = pickle.loads(pickle.dumps(score))
    assert back.accuracy(1.5) == score.accuracy(1.5)
    assert pickle.loads(pickle.dumps(find_loss(loss))) is find_loss(loss)


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
@pytest.mark.parametrize("shares", [(0.3, 0.7), (0.02, 0.98)])
def test_an_intercept_is_found_at_every_scale_of_the_search(loss, shares):
    """At far scales the residuals of all samples saturate or vanish, and with them the equation of the intercept."""
    score = rmt.theory(classes(intercept=True, proportions=shares), loss=loss)
    assert score._grid[1].converged.all()
    near = score.accuracy(score.alpha_star * (1.0 + np.array([-0.02, 0.0, 0.02])))
    assert near.argmax() == 1
    assert score.best_accuracy == pytest.approx(near[1], rel=1e-12)
    assert np.isfinite(score.alpha_risk)


def test_classes_in_a_common_basis_need_no_matrix():
    """Rotated covariances that commute give what diagonal ones give; one that does not commute is solved densely."""
    from rmt.beyond.class_model import _Common, _Dense

    rng = np.random.default_rng(1)
    p, basis = 40, np.linalg.qr(rng.standard_normal((40, 40)))[0]
    diagonals = np.exp(0.5 * rng.standard_normal((2, p)))
    diagonals[0, :10] = 1.0  # a degenerate eigenvalue, which the other covariance must split
    means, source = rng.standard_normal((2, p)) / 4, rng.standard_normal(p) / 4
    common = {"n": 60, "gamma": 0.2, "proportions": (0.4, 0.6), "intercept": True}
    plain = rmt.ClassTransfer(means=means, covariances=list(diagonals), source=rmt.FixedSource(vector=source), **common)
    turned = rmt.ClassTransfer(
        means=means @ basis.T,
        covariances=[(basis * d) @ basis.T for d in diagonals],
        source=rmt.FixedSource(vector=basis @ source),
        **common,
    )
    for loss in ("square", "logistic"):
        scores = [rmt.theory(setting, loss=loss) for setting in (plain, turned)]
        np.testing.assert_allclose(*[score.accuracy([0.0, 1.0, 3.0]) for score in scores], rtol=1e-9)
    from rmt.beyond.class_model import Components, resolver

    parts = Components.of(turned)
    fast = resolver(parts, turned.source)
    slow = _Dense(parts, (turned.source,))
    assert isinstance(fast, _Common)
    point = (np.array([60.0]), np.array([0.2]), np.array([[0.3, 0.8]]))
    for name in ("kappa", "means", "forms", "spread"):
        np.testing.assert_allclose(getattr(fast(*point), name), getattr(slow(*point), name), rtol=1e-8, atol=1e-12)


def test_averages_of_the_hinge_keep_their_digits_in_the_tail():
    """At t = −7.7 the closed form cancels to 1e-11, so that a strong signal once had no fixed point."""
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 40
    for t in (3.0, 5.0, 7.7, 12.0):
        for power in (1, 2):
            exact = mpmath.quad(lambda z: (z - t) ** power * mpmath.npdf(z), [t, t + 1, t + 3, t + 12])  # noqa: B023
            assert float(_tail_moment(np.array([t]), power)[0] / exact) == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("norm", [6.0, 7.7, pytest.param(9.0, marks=pytest.mark.whole)])
def test_the_squared_hinge_takes_a_strong_signal(norm):
    source = rmt.FixedSource(overlap=0.6 * norm, norm2=0.5)
    score = rmt.theory(rmt.Transfer(p=400, n=1600, gamma=1e-3, mu_target=norm, source=source), loss="squared_hinge")
    star = float(score.alpha_star)
    assert score.snr(star) >= score.snr(star * 1.01) or np.isinf(star)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: toeplitz(150, 1e300), "gamma must not exceed 1e.75 in size, got 1e.300; rmt.joint_optimum"),
        (lambda: toeplitz(1e300, 1.0), "n must be ≤ 2.53, got 1e.300"),
        (lambda: classes(label_noise=[0.1, 0.2]), "label_noise of a ClassTransfer must be one number"),
        (lambda: classes(intercept="x"), "intercept must be True or False, got 'x'"),
        (
            lambda: rmt.Transfer(p=1e308, n=2, gamma=1, mu_target=1, source=rmt.FixedSource(overlap=0, norm2=1)),
            "p must be ≤ 2.53, got 1e.308",
        ),
        (lambda: rmt.FixedSource(vector=[1e300, 0.0]), "vector must not exceed"),
        (lambda: rmt.Spectrum([1e300]), "values must not exceed"),
    ],
)
def test_absurd_numbers_are_one_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_large_penalties_within_the_limit_are_computed():
    for seed in range(3):
        setting = random_gaussian(seed, 30)
        score = rmt.theory(rmt.GaussianTransfer(**{**vars_of(setting), "gamma": 1e12}))
        limit = rmt.joint_optimum(setting)
        assert np.isfinite(score.best_accuracy)
        assert score.best_accuracy <= limit.accuracy + 1e-9


def vars_of(setting: rmt.GaussianTransfer) -> dict[str, object]:
    names = ("n", "gamma", "mean", "covariance", "source", "label_noise")
    return {name: getattr(setting, name) for name in names}


def test_flipped_labels_of_classes():
    """Equal classes with label noise are the GaussianTransfer with label noise."""
    gaussian = toeplitz(150, 0.2, label_noise=0.15)
    setting = classes(
        n=150,
        gamma=0.2,
        means=[gaussian.mean, -np.asarray(gaussian.mean)],
        covariances=gaussian.spectrum,
        label_noise=0.15,
    )
    for loss in ("square", "logistic"):
        one, two = rmt.theory(gaussian, loss=loss), rmt.theory(setting, loss=loss)
        for name in ("mean", "variance", "accuracy"):
            np.testing.assert_allclose(getattr(one, name)([0.0, 1.5]), getattr(two, name)([0.0, 1.5]), rtol=1e-8)
