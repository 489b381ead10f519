"""The simulators: exact against direct in distribution, both against theory, and the promises about seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, TWO_SOURCES, fixed, one, random_settings, ridge
from scipy.stats import ks_2samp

import rmt
from rmt.scores.estimates import ALLOWANCE
from rmt.simulators.exact import draw_block

SHAPES = [
    (3, 3, 3),
    (2, 3, 3),
    (4, 5, 3),
    (5, 3, 8),
    (3, 10, 4),
    (10, 4, 5),
    (60, 20, 30),
    (15, 20, 30),
    (30, 30, 30),
    (20, 60, 30),
    (100, 31, 30),
    (25, 29, 30),
    (math.inf, 12, 20),
    (40, 100, 12),
]


def statistics(simulation: rmt.Simulation) -> dict[str, np.ndarray]:
    """Per-draw figures whose laws must agree: all entries of (c, V), and the score at one scale."""
    score = rmt.QuadraticScore(simulation.c, simulation.V, vector_alpha=simulation.vector_alpha)
    alpha = np.full(score.sources, 0.7) if simulation.vector_alpha else 0.7
    found = {"mean": score.mean(alpha), "variance": score.variance(alpha), "accuracy": score.accuracy(alpha)}
    size = simulation.c.shape[-1]
    found |= {f"c{i}": simulation.c[:, i] for i in range(size)}
    found |= {f"V{i}{j}": simulation.V[:, i, j] for i in range(size) for j in range(i + 1)}
    return {name: np.round(values, 10) for name, values in found.items()}  # an exact zero has no law


def assert_same_law(setting: rmt.Transfer, draws: int = 500, **options) -> None:
    exact = statistics(rmt.simulate(setting, draws, seed=11))
    direct = statistics(rmt.simulate(setting, draws, seed=12, method="direct", **options))
    for name, values in exact.items():
        assert ks_2samp(values, direct[name]).pvalue > 1e-4, name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact_and_direct_have_the_same_law(shape):
    N, n, p = shape
    assert_same_law(ridge(N, n, p, 1.5, 1.0, 0.6, 0.4, 0.3))


@pytest.mark.parametrize("n", [5, 12, 40])
def test_same_law_for_fixed_sources(n):
    assert_same_law(replace(fixed(2, 0.3, *BASE), p=12, n=n))
    assert_same_law(replace(TWO_SOURCES, p=12, n=n))


@pytest.mark.parametrize("n", [8, 40])
def test_same_law_with_label_noise(n):
    assert_same_law(ridge(25, n, 15, 1.5, 1.0, 0.6, 0.4, 0.3, label_noise=0.2, label_noise_source=0.3))


def test_same_law_on_torch():
    pytest.importorskip("torch")
    assert_same_law(ridge(25, 8, 15, 1.5, 1.0, 0.6, 0.4, 0.3, label_noise=0.2), backend="torch")


def test_sampler_algebra_against_a_dense_solve():
    """The banded forms equal a dense computation on the same banded sample, primal and dual."""
    from rmt.simulators.exact import _Sample

    rng = np.random.default_rng(0)
    for n, p, k, heads in [(7, 9, 2, 1), (9, 7, 2, 1), (6, 6, 3, 2), (12, 5, 1, 1), (5, 12, 3, 2), (4, 3, 2, 1)]:
        sample = _Sample.draw(rng, n, p, k, rng.standard_normal((heads, 3)))
        sources = rng.standard_normal((k, 2, 3))
        coordinates, gram = sample.forms(0.37, sources)
        for d in range(3):
            X = np.zeros((p, n))
            b = k + heads
            X[:k, :b] = sample.rows[:, :, d]
            for i in range(sample.band.shape[0]):
                for o in range(min(b + 1, n - i)):
                    X[k + i, i + o] = sample.band[i, o, d]
            ones = np.zeros(n)
            ones[0] = math.sqrt(n)
            full = np.zeros((p, 2))
            full[:k] = sources[:, :, d]
            w = np.linalg.solve(X @ X.T / n + 0.37 * np.eye(p), np.column_stack([X @ ones / n, 0.37 * full]))
            np.testing.assert_allclose(coordinates[..., d], w[:k], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(gram[..., d], w.T @ w, rtol=1e-9, atol=1e-12)


def test_ridgeless_draws():
    for n in (10, 40):
        assert_same_law(replace(fixed(2, 0.0, *BASE), p=20, n=n))


def test_theory_within_four_standard_errors_on_random_settings():
    """|z| ≤ 4 after the stated C/p allowance (a paper check does this with 200 settings and more draws)."""
    settings = random_settings(40, 5, noise=True)
    for index in range(40):
        setting = one(settings, index)
        score = rmt.theory(setting)
        comparison = rmt.simulate(setting, 300, seed=index).compare(
            score, [-1.0, 0.0, 1.0, float(score.alpha_star)], allowance=ALLOWANCE
        )
        assert comparison.worst <= 4, (setting, str(comparison))


def test_direct_simulation_agrees_with_theory_for_other_noise():
    setting = ridge(300, 100, 200, 1.5, 1, 0.8, 0.5, 0.3)
    score = rmt.theory(setting)
    for noise in ("gaussian", "rademacher", "uniform", "exponential", "student-t:8"):
        result = rmt.simulate(setting, 60, 1, method="direct", noise=noise, test_points=1000)
        assert result.compare(score, [0.0, 1.0], allowance=ALLOWANCE).worst <= 4, noise


def test_localised_mean_breaks_the_gaussian_score():
    """theory.md §7: a mean on one axis leaves s and σ² but not the accuracy for heavy-tailed noise."""
    setting = replace(fixed(400 / 150, 0.2, *BASE), p=400, n=150)
    result = rmt.simulate_direct(setting, 40, 3, noise="sparse:0.05", direction="axis", test_points=4000)
    assert result.accuracy(1.7).value > float(rmt.theory(setting).accuracy(1.7)) + 0.02


def test_covariance_is_that_of_the_data():
    setting = replace(fixed(0.05, 1e-9, *BASE), p=20, n=4000)
    variances = np.linspace(0.5, 2, 20)
    diagonal = rmt.simulate_direct(setting, 3, 1, covariance=variances)
    matrix = rmt.simulate_direct(setting, 3, 1, covariance=np.diag(variances))
    np.testing.assert_allclose(diagonal.V, matrix.V, rtol=1e-9)
    # With n ≫ p and γ → 0 the score tends to wᵀ(C+mmᵀ)w-optimal: mean A/(1+A), variance A/(1+A)², A = mᵀC⁻¹m.
    ratio = diagonal.mean(0.0).value / diagonal.variance(0.0).value
    mean = diagonal.mean(0.0).value
    assert ratio == pytest.approx(1 / (1 - mean), rel=0.02)


def test_infinite_source_with_covariance_equals_a_huge_sample():
    base = ridge(math.inf, 30, 12, 1.5, 1, 0.6, 0.5, 0.3)
    variances = np.linspace(0.5, 2, 12)
    limit = rmt.simulate_direct(base, 300, 1, covariance=variances)
    large = rmt.simulate_direct(replace(base, N=20_000), 300, 2, covariance=variances)
    for alpha in (0.5, 2.0):
        a, b = limit.mean(alpha), large.mean(alpha)
        assert abs(a.value - b.value) < 4 * np.hypot(a.stderr, b.stderr) + 1e-3


@pytest.mark.parametrize("method", ["exact", "direct"])
def test_same_seed_same_numbers_whatever_the_workers(method):
    setting = ridge(20, 8, 15, 1.5, 1, 0.6, 0.4, 0.3)
    draws = 2100 if method == "exact" else 12
    alone = rmt.simulate(setting, draws, 5, method=method)
    shared = rmt.simulate(setting, draws, 5, method=method, n_jobs=2)
    np.testing.assert_array_equal(alone.V, shared.V)
    fewer = rmt.simulate(setting, draws // 2, 5, method=method)
    np.testing.assert_array_equal(fewer.c, alone.c[: draws // 2])
    assert not np.array_equal(rmt.simulate(setting, 5, 6, method=method).c, alone.c[:5])


@pytest.mark.parametrize("method", ["exact", "direct"])
def test_several_penalties_on_the_same_draws(method):
    setting = ridge(50, 20, 30, 1.5, 1, 0.6, 0.4, 1.0)
    gammas = [0.1, 1.0, 10.0]
    several = rmt.simulate(setting, 20, 5, method=method, gamma=gammas)
    single = rmt.simulate(setting, 20, 5, method=method)
    np.testing.assert_allclose(several.V[:, 1], single.V, rtol=1e-9)
    assert several.accuracy(1.0).value.shape == (3,)
    assert several.accuracy(np.zeros((5, 1))).value.shape == (5, 3)
    comparison = several.compare(
        rmt.theory(replace(setting, gamma=np.array(gammas))), np.array([[0.0], [1.0]]), allowance=ALLOWANCE
    )
    assert comparison.z["mean"].shape == (2, 3)
    assert len(comparison.rows()) == 5 * 6


def test_counted_accuracy_agrees_with_exact_accuracy():
    setting = ridge(50, 20, 30, 1.5, 1, 0.6, 0.4, 1.0)
    counted = rmt.simulate_direct(setting, 50, 1, test_points=4000)
    exact = replace(counted, points=None)
    alpha = np.array([-1.0, 0.0, 1.0, 3.0])
    gap = counted.accuracy_per_draw(alpha) - exact.accuracy_per_draw(alpha)
    assert np.abs(gap).max() < 5 * math.sqrt(0.25 / 4000)
    with_gamma = rmt.simulate_direct(setting, 4, 1, test_points=50, gamma=[0.1, 1.0])
    assert with_gamma.accuracy(np.zeros((3, 1))).value.shape == (3, 2)
    two = rmt.simulate_direct(replace(TWO_SOURCES, p=12, n=20), 4, 1, test_points=50)
    assert two.accuracy(np.zeros((3, 2))).value.shape == (3,)


def test_running_estimates_extend_each_other():
    setting = ridge(50, 20, 30, 1.5, 1, 0.6, 0.4, 1.0)
    steps = list(rmt.simulate_running(setting, [10, 40, 160], 3))
    assert [s.draws for s in steps] == [10, 40, 160]
    np.testing.assert_array_equal(steps[0].c, steps[2].c[:10])
    np.testing.assert_array_equal(steps[2].c, rmt.simulate(setting, 160, 3).c)
    assert steps[2].mean(1.0).stderr < steps[0].mean(1.0).stderr
    with pytest.raises(ValueError, match="increasing"):
        list(rmt.simulate_running(setting, [10, 5]))


@pytest.mark.slow
def test_optima_of_a_simulation_have_honest_errors():
    setting = ridge(600, 200, 300, 1.5, 1, 0.8, 0.5, 0.3)
    score, result = rmt.theory(setting), rmt.simulate(setting, 2000, 1)
    for name in ("alpha_star", "alpha_bar", "alpha_risk"):
        estimate, expected = getattr(result, name), float(getattr(score, name))
        assert abs(estimate.z(expected, 2.5 / 300 * abs(expected))) < 4, name
    assert abs(result.best_accuracy.z(score.best_accuracy, 0.5 / 300)) < 4
    # The jackknife error of α* against its spread over independent simulations.
    repeated = [float(rmt.simulate(setting, 200, seed).alpha_star.value) for seed in range(40)]
    assert rmt.simulate(setting, 200, 99).alpha_star.stderr == pytest.approx(np.std(repeated), rel=0.4)


def test_mean_of_accuracies_is_not_accuracy_of_means():
    setting = ridge(3, 3, 3, 1.5, 1, 0.6, 0.4, 0.3)
    result = rmt.simulate(setting, 1000, 1)
    per_draw = rmt.QuadraticScore(result.c, result.V).accuracy(np.full(1000, 5.0))
    assert result.accuracy(5.0).value == pytest.approx(per_draw.mean(), rel=1e-12)
    of_means = rmt.QuadraticScore(result.c.mean(0), result.V.mean(0)).accuracy(5.0)
    assert abs(result.accuracy(5.0).value - of_means) > 3 * result.accuracy(5.0).stderr


def test_regression():
    rng = np.random.default_rng(0)
    source = rng.standard_normal((4, 200))
    target = 0.5 * source + rng.standard_normal((4, 200))
    for n, gamma in [(100, 0.5), (300, 0.05)]:
        setting = rmt.Regression(n=n, gamma=gamma, target=target, source=source, noise=0.5)
        theory, result = rmt.theory(setting), rmt.simulate(setting, 150, 2)
        allowance = 2.5 / 200
        alpha = np.array([-1.0, 0.0, 0.5, 1.0])
        assert np.abs(result.risk(alpha).z(theory.risk(alpha), allowance * theory.risk(alpha))).max() < 4
        assert abs(result.alpha_star.z(theory.alpha_star)) < 4
        assert np.abs(result.alpha_star_rows.z(theory.alpha_star_rows)).max() < 4
        rows = theory.alpha_star_rows
        assert abs(result.risk_rows(rows).z(theory.risk_rows(rows), allowance * theory.best_risk_rows)) < 4
        assert result.risk_rows(np.stack([rows, rows + 1])).value.shape == (2,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: rmt.simulate(t, 10, method="magic"), "method must be one of 'exact', 'direct', got 'magic'"),
        (lambda t: rmt.simulate(t, 0), "draws must be ≥ 1"),
        (lambda t: rmt.simulate(t, 2.5), "draws counts things"),
        (lambda t: rmt.simulate(t, 10, seed=-1), "seed must be ≥ 0"),
        (lambda t: rmt.simulate(t, 10, gamma=[-1.0]), "gamma must be ≥ 0"),
        (lambda t: rmt.simulate(replace(t, gamma=[1, 2]), 10), "one setting, got arrays of shape"),
        (lambda t: rmt.simulate("t", 10), "takes a setting .there is no model for str.: Transfer, GaussianTransfer"),
        (lambda t: rmt.simulate(replace(t, n=2), 10), "needs n ≥ 3 here, got 2; use method='direct'"),
        (lambda t: rmt.simulate(replace(t, p=2), 10), "needs p ≥ 3"),
        (lambda t: rmt.simulate(replace(t, N=1), 10), "needs N ≥ 2"),
        (lambda t: rmt.simulate(replace(t, n=30), 10, gamma=[0.0]), "infinite variance"),
        (lambda t: rmt.simulate_direct(t, 10, noise="pink"), "noise must be one of gaussian"),
        (lambda t: rmt.simulate_direct(t, 10, noise="student-t:2"), "more than 2 degrees of freedom"),
        (lambda t: rmt.simulate_direct(t, 10, noise="sparse:0"), r"density in \(0, 1\]"),
        (lambda t: rmt.simulate_direct(t, 10, noise="sparse"), "needs a number after the colon"),
        (lambda t: rmt.simulate_direct(t, 10, noise=lambda rng, shape: np.zeros(3)), "honour the shape"),
        (lambda t: rmt.simulate_direct(t, 10, backend="jax"), "backend must be one of"),
        (lambda t: rmt.simulate_direct(t, 10, direction="up"), "direction must be one of"),
        (lambda t: rmt.simulate_direct(t, 10, covariance=np.ones(3)), r"covariance must be symmetric \(30, 30\)"),
        (lambda t: rmt.simulate_direct(t, 10, covariance=-np.ones(30)), "negative entries"),
        (lambda t: rmt.simulate_direct(t, 10, covariance=-np.eye(30)), "positive semi-definite"),
        (lambda t: rmt.simulate_direct(replace(t, p=1), 10), "p must be ≥ 2"),
        (lambda t: rmt.simulate_direct(t, 10, n_jobs=0), "n_jobs must be a whole number other than 0"),
        (lambda t: draw_block(replace(t, n=2), 1, np.random.default_rng(0), np.ones(1)), "needs n ≥ 3"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(ridge(50, 20, 30, 1.5, 1, 0.6, 0.4, 1.0))


def test_comparison_prints_a_table():
    setting = ridge(50, 20, 30, 1.5, 1, 0.6, 0.4, 1.0)
    comparison = rmt.simulate(setting, 50).compare(rmt.theory(setting), [0.0, 1.0])
    assert "accuracy" in str(comparison)
    assert len(str(comparison).splitlines()) == 11
    two = rmt.simulate(replace(TWO_SOURCES, p=12, n=20), 50)
    rows = two.compare(rmt.theory(replace(TWO_SOURCES, p=12, n=20)), [[0.0, 1.0], [1.0, 2.0]]).rows()
    assert rows[1]["alpha"] == [1.0, 2.0]


def test_a_single_draw_has_no_standard_error():
    result = rmt.simulate(ridge(50, 20, 30, 1.5, 1, 0.6, 0.4, 1.0), 1)
    assert np.isnan(result.mean(1.0).stderr)
    assert np.isnan(result.alpha_star.stderr)
