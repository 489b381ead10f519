"""γ₁, the joint optimum, and every limit of theory.md §4, against the finite formulas they come from."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, TWO_SOURCES, fixed, random_settings, ridge

import rmt

NOISE = [0.0, 0.2]


def test_anchors():
    assert rmt.gamma_one(fixed(2, 0.3, *BASE)) == pytest.approx(-0.151712, rel=5e-6)
    assert rmt.gamma_one(fixed(0.5, 1, 1, 0.8, 1)) == pytest.approx(0.325542, rel=5e-6)
    seven = ridge(5000, 200, 400, 1.5, 1, 0.8, 1, 1)
    assert rmt.gamma_one(seven) == pytest.approx(6.00025, rel=5e-6)
    assert rmt.joint_optimum(seven).accuracy == pytest.approx(0.885087, rel=5e-6)
    assert rmt.joint_optimum(fixed(2, 0.3, *BASE)).accuracy == pytest.approx(0.882424, rel=5e-6)


@pytest.mark.parametrize("noise", [False, True])
def test_alpha_star_exceeds_one_exactly_below_gamma_one(noise):
    settings = random_settings(2000, 4, noise=noise)
    star, threshold = rmt.theory(settings).alpha_star, rmt.gamma_one(settings)
    np.testing.assert_array_equal(star > 1, np.asarray(settings.gamma) < threshold)
    there = threshold > 1e-9
    from cases import one

    for index in np.flatnonzero(there)[:50]:
        at = rmt.theory(replace(one(settings, index), gamma=threshold[index]))
        assert at.alpha_star == pytest.approx(1.0, rel=1e-6)


def test_gamma_one_edges():
    assert rmt.gamma_one(fixed(2, 1, 2.25, -0.5, 0.45)) == -math.inf
    assert rmt.gamma_one(fixed(2, 1, 2.25, 0.0, 0.45)) == -math.inf
    assert rmt.gamma_one(fixed(2, 1, 1.0, 0.5, 0.25)) == math.inf  # w̃ ∝ m, shrunk: α* = (1 + 1/θ)/g > 1 always


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("setting", [fixed(2, 0.3, *BASE), ridge(400, 200, 400, 1.5, 1, 0.6, 0.5, 1)])
def test_joint_optimum_is_the_limit_and_the_bound(setting, noise):
    setting = replace(setting, label_noise=noise)
    joint = rmt.joint_optimum(setting)
    gammas = np.geomspace(1e-6, 1e8, 60)
    best = rmt.theory(replace(setting, gamma=gammas))
    assert (np.diff(best.best_accuracy) > -1e-12).all()
    assert (best.best_accuracy <= joint.accuracy + 1e-15).all()
    assert best.best_accuracy[-1] == pytest.approx(float(joint.accuracy), rel=1e-6)
    assert best.alpha_star[-1] * gammas[-1] == pytest.approx(float(joint.source_weight), rel=1e-6)


@pytest.mark.parametrize("noise", NOISE)
def test_joint_optimum_over_the_source_penalty_too(noise):
    setting = replace(ridge(400, 200, 400, 1.5, 1, 0.6, 0.5, 1), label_noise_source=noise)
    everything = rmt.joint_optimum(setting, source_gamma=True)
    scan = rmt.joint_optimum(replace(setting, gamma_source=np.geomspace(1e-4, 1e7, 50)))
    assert (scan.accuracy <= everything.accuracy + 1e-12).all()
    assert scan.accuracy[-1] == pytest.approx(float(everything.accuracy), rel=1e-6)
    rho2 = 0.6**2 * 1.5**4 / (setting.m2 * (1.5**2 + 1 / (1 - 2 * noise) ** 2))
    bound = setting.m2 * (setting.m2 * (1 - rho2) + 2 * rho2) / (setting.m2 * (1 - rho2) + 2)
    assert everything.snr**2 == pytest.approx(float(bound), rel=1e-12)
    with pytest.raises(ValueError, match="needs a ridge source"):
        rmt.joint_optimum(fixed(2, 0.3, *BASE), source_gamma=True)


def test_bound_without_and_with_a_perfect_source():
    assert rmt.joint_optimum(fixed(2, 1, 2.25, 0.0, 0.45)).snr == pytest.approx(2.25 / math.sqrt(4.25))
    assert rmt.joint_optimum(fixed(2, 1, 2.25, 1.5, 1.0)).snr == pytest.approx(1.5)  # Bayes


@pytest.mark.parametrize("noise", NOISE)
def test_many_and_few_samples(noise):
    base = replace(fixed(2, 0.3, *BASE), label_noise=noise)
    many = replace(base, n=10**10)
    limit, score = rmt.many_samples(many), rmt.theory(many)
    assert score.alpha_star == pytest.approx(float(limit.alpha_star), rel=1e-6)
    assert score.best_snr == pytest.approx(1.5, rel=1e-6)
    assert limit.snr == 1.5
    few = replace(base, p=10**10, n=1)
    limit, score = rmt.few_samples(few), rmt.theory(few)
    assert score.alpha_star == pytest.approx(float(limit.alpha_star), rel=1e-6)
    assert score.best_snr == pytest.approx(float(limit.snr), rel=1e-6)
    assert limit.snr == pytest.approx(0.6 / math.sqrt(0.45))


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("p", [50, 100, 200])
def test_ridgeless(p, noise):
    base = replace(fixed(2, 0.3, *BASE), p=p, n=100, label_noise=noise)
    gamma = 1e-13 if p != 100 else 1e-14
    score, limit = rmt.theory(replace(base, gamma=gamma)), rmt.ridgeless(base)
    rough = 3e-6 if p == 100 else 1e-9  # the peak is approached as √γ
    assert score.scaled_star == pytest.approx(float(limit.scaled_star), rel=rough)
    assert score.best_snr == pytest.approx(float(limit.snr), rel=1e-9, abs=1e-3)
    assert np.isinf(limit.alpha_star) == (p <= 100)
    if p == 200:
        assert limit.alpha_star == pytest.approx(float(rmt.theory(replace(base, gamma=0)).alpha_star), rel=1e-12)
    if p == 100:
        assert limit.snr == 0


def test_double_descent_that_no_scale_removes():
    """theory.md §4: p = 400, γ = 1e-4: α* 2.0, 111, 3600 at n = 100, 400, 800; accuracy falls to about .56 at n = p."""
    base = ridge(2000, np.array([100, 400, 800]), 400, 1.5, 1, 0.8, 1, 1e-4)
    score = rmt.theory(base)
    np.testing.assert_allclose(score.alpha_star, [2.0, 111, 3578], rtol=0.02)
    assert score.best_accuracy[1] < 0.58 < score.best_accuracy[0]
    assert score.best_accuracy[1] < score.best_accuracy[2]


def test_many_source_samples_and_gamma_source_zero():
    base = ridge(5000, 200, 400, 1.5, 1, 0.8, 1, 1)
    limit = rmt.many_source_samples(base)
    assert limit.alpha_star == pytest.approx(float(rmt.theory(replace(base, N=10**10)).alpha_star), rel=1e-6)
    for N in (200, 5000):
        zero = rmt.theory(replace(base, N=N, gamma_source=0))
        tiny = rmt.theory(replace(base, N=N, gamma_source=1e-13))
        assert zero.alpha_star == pytest.approx(float(tiny.alpha_star), rel=1e-9)
        level = 2.25 + (400 / N if N < 400 else 1.0)
        assert zero.overlap == pytest.approx(0.8 * 2.25 / level)


def test_share_and_size_of_the_gains_of_section_4():
    """β > 0: α* > 1 in about 58 % of settings, gain over α = 1 with a median below a point (theory.md §4)."""
    score = rmt.theory(random_settings(20_000, 8))
    positive = np.asarray(score.setting.beta) > 0
    gain = score.best_accuracy - score.accuracy(1.0)
    assert 0.3 < np.mean(score.alpha_star[positive] > 1) < 0.8
    assert (gain >= -1e-12).all()
    assert np.median(gain[positive]) < 0.02 < np.quantile(gain[positive], 0.95)


def test_one_source_only():
    for function in (rmt.joint_optimum, rmt.many_samples, rmt.few_samples, rmt.ridgeless):
        with pytest.raises(ValueError, match="one source"):
            function(TWO_SOURCES)


def test_joint_optimum_beats_a_fine_grid_for_wide_spectra():
    """Eigenvalues over many decades: several peaks in γ, and optima at γ → 0 (up to 37 points were once missed)."""
    for seed in (4, 5, 13, 23, 39, 46):
        rng = np.random.default_rng(seed)
        p = 60
        values = np.exp(rng.uniform(0.5, 5) * rng.standard_normal(p))
        mean = rng.standard_normal(p)
        mean *= rng.uniform(0.3, 3) / np.sqrt(np.sum(mean**2 / values))
        source = rmt.FixedSource(vector=rng.uniform(-1, 1) * mean + 0.3 * rng.standard_normal(p))
        setting = rmt.GaussianTransfer(
            n=int(10 ** rng.uniform(1, 4)), gamma=1.0, mean=mean, covariance=values, source=source
        )
        gamma = np.exp(np.linspace(np.log(values.min()) - 10, np.log(values.max()) + 14, 1501))
        grid = rmt.theory(replace(setting, gamma=gamma)).best_accuracy.max()
        assert rmt.joint_optimum(setting).accuracy >= grid - 1e-12, seed
