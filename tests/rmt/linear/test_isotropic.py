"""The isotropic closed forms against anchors, identities, high-precision arithmetic and properties."""

from __future__ import annotations

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
from cases import ANCHORS, BASE, TWO_SOURCES, fixed, random_settings, ridge
from hypothesis import given
from hypothesis import strategies as st

import rmt
from rmt.scores.quadratic import QuadraticScore


@pytest.mark.parametrize(("number", "setting", "alpha", "mean", "variance", "accuracy", "star", "best"), ANCHORS)
def test_anchors(number, setting, alpha, mean, variance, accuracy, star, best):
    score = rmt.theory(setting)
    found = [score.mean(alpha), score.variance(alpha), score.accuracy(alpha), score.alpha_star, score.best_accuracy]
    np.testing.assert_allclose(found, [mean, variance, accuracy, star, best], rtol=5e-6)
    np.testing.assert_allclose(score.accuracy(score.alpha_star), best, rtol=5e-6)


def test_anchor_1_further_optima():
    score = rmt.theory(fixed(2, 0.3, *BASE))
    np.testing.assert_allclose([score.alpha_bar, score.alpha_risk], [-2.5, 0.382922], rtol=5e-6)
    assert score.accuracy(score.alpha_bar) == pytest.approx(0.5)


def test_anchor_15_two_sources():
    score = rmt.theory(TWO_SOURCES)
    alpha = [0.5, 0.5]
    np.testing.assert_allclose(
        [score.mean(alpha), score.variance(alpha), score.accuracy(alpha), score.best_accuracy],
        [0.647368, 0.413459, 0.842980, 0.844735],
        rtol=5e-6,
    )
    np.testing.assert_allclose(score.alpha_star, [0.502481, 0.331637], rtol=5e-6)


def test_corrected_source_norm_of_theory_section_9():
    rows = [
        ((5000, 200, 400, 1.5, 1, 0.8, 1, 1), 0.1290, 1.84),
        ((1000, 20, 400, 1, 0.7, 0.8, 0.1, 1), 0.4319, 1.05),
        ((500, 100, 400, 1.5, 1, 0.8, 0.1, 1), 0.4882, 0.469),
        ((400, 100, 400, 1.5, 1, 0.8, 0.01, 1), 1.593, 0.137),
    ]
    for values, norm2, star in rows:
        score = rmt.theory(ridge(*values))
        assert score.norm2 == pytest.approx(norm2, rel=5e-4)
        assert score.alpha_star == pytest.approx(star, rel=5e-3)


@pytest.mark.parametrize("noise", [False, True])
def test_closed_forms_equal_the_rayleigh_quotient(noise):
    """α*, α_risk and SNR* of IsotropicScore against those that QuadraticScore derives from (c, V) alone."""
    score = rmt.theory(random_settings(3000, 1, noise=noise))
    general = QuadraticScore(score.c, score.V)
    well_posed = np.abs(score.setting.beta) < 0.999
    np.testing.assert_allclose(score.alpha_star[well_posed], general.alpha_star[well_posed], rtol=1e-6)
    np.testing.assert_allclose(score.alpha_risk, general.alpha_risk, rtol=1e-7)
    np.testing.assert_allclose(score.best_accuracy, general.best_accuracy, rtol=1e-9)


@pytest.mark.parametrize("noise", [False, True])
def test_alpha_star_and_alpha_risk_are_optimal(noise):
    score = rmt.theory(random_settings(500, 2, noise=noise))
    for name, sign in (("alpha_star", 1.0), ("alpha_risk", -1.0)):
        best = getattr(score, name)
        value = score.accuracy if name == "alpha_star" else score.risk
        for shift in (0.9, 0.99, 1.01, 1.1):
            assert (sign * (value(best) - value(best * shift)) >= -1e-12).all()
    scan = score.accuracy(np.linspace(-50, 50, 2001)[:, None]).max(axis=0)
    assert (score.best_accuracy >= scan - 1e-12).all()
    assert (score.accuracy(score.alpha_star) <= score.best_accuracy + 1e-12).all()


def test_several_sources_reduce_to_one():
    single = rmt.theory(fixed(2, 0.3, *BASE, label_noise=0.1))
    source = rmt.FixedSource(overlap=[0.6], gram=[[0.45]])
    several = rmt.theory(rmt.Transfer(p=2000, n=1000, gamma=0.3, mu_target=1.5, source=source, label_noise=0.1))
    np.testing.assert_allclose(several.c, single.c, rtol=1e-13)
    np.testing.assert_allclose(several.V, single.V, rtol=1e-12)
    np.testing.assert_allclose(several.alpha_star, [single.alpha_star], rtol=1e-10)
    assert several.alpha_star.shape == (1,)
    np.testing.assert_allclose(several.best_accuracy, single.best_accuracy, rtol=1e-12)


def test_two_sources_obey_the_joint_closed_form():
    """theory.md §4: α* = (ηλ/θ) G⁻¹g/(LM − (L−η)gᵀG⁻¹g)."""
    score = rmt.theory(TWO_SOURCES)
    gram, overlap = np.array(TWO_SOURCES.source.gram), np.array(TWO_SOURCES.source.overlap)
    from rmt.resolvent import isotropic

    r = isotropic(2.0, 0.3)
    inverse, level = np.linalg.solve(gram, overlap), r.lam + 2.25
    expected = 2 * r.lam / r.theta * inverse / (level * 2.25 - (level - 2) * overlap @ inverse)
    np.testing.assert_allclose(score.alpha_star, expected, rtol=1e-12)


def _mp_score(setting: rmt.Transfer, alpha: float) -> tuple[float, float, float]:
    """Mean, variance and α* of a ridge setting in 60-digit arithmetic, from the textbook formulas."""
    with mpmath.workdps(60):

        def scalars(eta, gamma):
            b = eta - 1 + gamma
            theta = (b + mpmath.sqrt(b**2 + 4 * gamma)) / 2
            lam = 1 + theta
            return theta, lam, 1 - eta / lam**2

        f = {
            name: mpmath.mpf(float(getattr(setting, name)))
            for name in ("mu", "mu_perp", "beta", "gamma", "gamma_source")
        }
        theta, lam, h = scalars(mpmath.mpf(int(setting.p)) / int(setting.n), f["gamma"])
        eta, eta_s = mpmath.mpf(int(setting.p)) / int(setting.n), mpmath.mpf(int(setting.p)) / int(setting.N)
        _, lam_s, h_s = scalars(eta_s, f["gamma_source"])
        m2 = f["beta"] ** 2 * f["mu"] ** 2 + (1 - f["beta"] ** 2) * f["mu_perp"] ** 2
        level = lam_s + f["mu"] ** 2
        g, W = f["beta"] * f["mu"] ** 2 / level, (f["mu"] ** 2 + eta_s) / (h_s * level**2)
        L, a = lam + m2, mpmath.mpf(alpha)
        s = (m2 + theta * a * g) / L
        e = 1 - s
        variance = (theta**2 * a**2 * W + 2 * theta * a * e * g + e**2 * (m2 + eta)) / (lam**2 * h)
        star = eta * lam * g / (theta * (L * (m2 * W - g**2) + eta * g**2))
        return float(s), float(variance), float(star)


@pytest.mark.parametrize("gamma", [1e-15, 1e-12, 1e-9, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize(("p", "n"), [(400, 400), (400, 100), (100, 400), (400, 399), (2, 100_000)])
def test_stable_where_textbook_formulas_cancel(gamma, p, n):
    setting = ridge(700, n, p, 1.5, 1.0, 0.7, 0.3, gamma)
    score = rmt.theory(setting)
    alpha = 1.3 * float(score.alpha_star)
    mean, variance, star = _mp_score(setting, alpha)
    np.testing.assert_allclose(
        [score.mean(alpha), score.variance(alpha), score.alpha_star], [mean, variance, star], rtol=2e-13
    )


def test_source_only_on_its_own_task_is_the_target_only_formula():
    """The source's W/(1−…) is σ² of target-only ridge on the source task: s = μ²/L̃, σ² = W (theory.md §2)."""
    t = ridge(300, 50, 400, 1.5, 1, 1.0, 0.3, 1)
    unrelated = rmt.FixedSource(overlap=0.0, norm2=1.0)
    own = rmt.theory(rmt.Transfer(p=400, n=300, gamma=0.3, mu_target=1.5, source=unrelated))
    score = rmt.theory(t)
    np.testing.assert_allclose(score.norm2, own.variance(0.0), rtol=1e-13)
    np.testing.assert_allclose(score.overlap, own.mean(0.0), rtol=1e-13)


def test_infinite_source_sample():
    t = ridge(math.inf, 200, 400, 1.5, 1, 0.8, 1, 1)
    score = rmt.theory(t)
    assert score.overlap == pytest.approx(0.8 * 2.25 / (2.25 + 2))
    assert score.norm2 == pytest.approx(2.25 / (2.25 + 2) ** 2)
    near = rmt.theory(replace(t, N=10**9))
    assert near.alpha_star == pytest.approx(float(score.alpha_star), rel=1e-5)


def test_both_forms_of_the_mean_agree_and_the_second_goes_further():
    perp = ridge(1000, 200, 400, 1.5, 1, 0.8, 1, 1)
    direct = rmt.Transfer(p=400, n=200, N=1000, mu=1.5, beta=0.8, mu_target=math.sqrt(perp.m2), gamma=1, gamma_source=1)
    assert rmt.theory(direct).alpha_star == pytest.approx(float(rmt.theory(perp).alpha_star), rel=1e-12)
    wide = replace(direct, beta=1.5, mu_target=3.0)
    assert rmt.theory(wide).overlap == pytest.approx(1.5 * 2.25 / (2.25 + rmt.resolvent.isotropic(0.4, 1).lam))


def test_no_effect_is_nan_and_best_accuracy_remains():
    zero = rmt.theory(fixed(2, 0.3, 2.25, 0.0, 0.0))
    assert np.isnan(zero.alpha_star)
    assert zero.best_accuracy == pytest.approx(float(zero.accuracy(0.0)))
    ridgeless = rmt.theory(fixed(0.5, 0.0, *BASE))
    assert np.isnan(ridgeless.alpha_star)
    assert ridgeless.best_accuracy == pytest.approx(float(ridgeless.accuracy(123.0)))


def test_useless_source_has_star_zero_and_no_alpha_bar():
    score = rmt.theory(fixed(2, 0.3, 2.25, 0.0, 0.45))
    assert score.alpha_star == 0
    assert np.isinf(score.alpha_bar)


def test_signed_and_folded_accuracy():
    score = rmt.theory(fixed(2, 0.3, *BASE))
    low = score.alpha_bar - 2
    assert score.accuracy(low) < 0.5
    assert score.accuracy(low, folded=True) == pytest.approx(1 - float(score.accuracy(low)))


def test_broadcasting_and_scalar_shapes():
    score = rmt.theory(ridge(5000, 200, 400, 1.5, 1, np.array([0.2, 0.5, 0.8]), 1, 1))
    assert score.alpha_star.shape == (3,)
    assert score.accuracy(1.0).shape == (3,)
    assert score.accuracy(np.linspace(0, 1, 5)[:, None]).shape == (5, 3)
    single = rmt.theory(ridge(5000, 200, 400, 1.5, 1, 0.8, 1, 1))
    for value in (single.mean(1.0), single.accuracy(1), single.alpha_star, single.best_accuracy, single.alpha_bar):
        assert np.shape(value) == ()
    grid = rmt.theory(ridge(5000, 200, 400, 1.5, 1, np.array([0.2, 0.8])[:, None], 1, np.array([0.1, 1.0, 10.0])))
    for i, beta in enumerate((0.2, 0.8)):
        for j, gamma in enumerate((0.1, 1.0, 10.0)):
            same = rmt.theory(ridge(5000, 200, 400, 1.5, 1, beta, 1, gamma))
            assert grid.alpha_star[i, j] == same.alpha_star
            assert grid.variance(0.7)[i, j] == pytest.approx(float(same.variance(0.7)), rel=1e-15)


@given(
    eta=st.floats(1e-3, 1e3),
    gamma=st.floats(0, 1e6),
    norm=st.floats(0, 100),
    norm2=st.floats(0, 1e4),
    cosine=st.floats(-1, 1),
    noise=st.floats(0, 0.49),
    alpha=st.floats(-1e3, 1e3),
)
def test_scores_are_finite_and_consistent_everywhere(eta, gamma, norm, norm2, cosine, noise, alpha):
    p = max(round(1000 * eta), 1)
    if p == 1000 and gamma == 0:
        gamma = 1e-12
    source = rmt.FixedSource(overlap=cosine * norm * math.sqrt(norm2), norm2=norm2)
    score = rmt.theory(rmt.Transfer(p=p, n=1000, gamma=gamma, mu_target=norm, source=source, label_noise=noise))
    values = [
        score.mean(alpha),
        score.variance(alpha),
        score.second_moment(alpha),
        score.accuracy(alpha),
        score.risk(alpha),
    ]
    assert np.isfinite(values).all()
    assert score.variance(alpha) >= 0
    assert 0 <= score.accuracy(alpha) <= score.best_accuracy + 1e-7
    assert 0.5 <= score.best_accuracy <= 1
