"""QuadraticScore: the Rayleigh quotient, its guard, limits, and shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

import rmt

numbers = st.floats(-3, 3)


def spd(entries: np.ndarray) -> np.ndarray:
    return entries @ entries.T + 0.05 * np.eye(len(entries))


@given(st.lists(numbers, min_size=6, max_size=6))
def test_alpha_star_beats_a_scan_or_is_infinite(entries):
    c, V = np.array(entries[:2]), spd(np.array(entries[2:]).reshape(2, 2))
    score = rmt.QuadraticScore(c, V)
    scan = score.accuracy(np.concatenate([np.linspace(-60, 60, 4001), [1e7, -1e7]]))
    assert score.best_accuracy >= scan.max() - 1e-9
    assert score.accuracy(score.alpha_star) == pytest.approx(float(score.best_accuracy), abs=1e-9)
    if np.isfinite(score.alpha_star):
        assert score.mean(score.alpha_star) > 0 or score.best_accuracy == pytest.approx(0.5)


def test_a_source_without_overlap_beats_a_target_worse_than_chance():
    score = rmt.QuadraticScore([-0.5, 0.0], np.eye(2))
    assert score.alpha_star == np.inf
    assert score.best_accuracy == pytest.approx(0.5)


def test_guard_of_anchor_14():
    """A signed minimiser at the formula's α* (accuracy .0241), a supremum at +∞ (theory.md §10, case 14)."""
    p, n, gamma = 300, 2000, 10.0
    j = np.arange(1, p + 1)
    C = 0.6 ** np.abs(j[:, None] - j)
    m = np.sin(j**2.0)
    m *= 1.4 / np.linalg.norm(m)
    w = np.linalg.solve(C + np.eye(p), m)
    from scipy.optimize import brentq

    values = np.linalg.eigvalsh(C)
    theta = brentq(lambda t: t * (1 - np.sum(values / (t + values)) / n) - gamma, 0, gamma + 1)
    H = np.linalg.inv(theta * np.eye(p) + C)
    h = gamma / theta + theta / n * np.sum(values / (theta + values) ** 2)
    A, B = m @ H @ m, w @ H @ m
    eps = np.array([1, -theta * B]) / (1 + A)
    F = H @ (np.outer(np.zeros(p), [1, 0]) + np.outer(theta * w, [0, 1]) + np.outer(m, eps))
    score = rmt.QuadraticScore(np.array([A, theta * B]) / (1 + A), (F.T @ C @ F + (1 - h) * np.outer(eps, eps)) / h)
    assert score.alpha_star == np.inf
    assert score.best_accuracy == pytest.approx(0.975587, rel=5e-6)
    assert score.accuracy(np.inf) == pytest.approx(0.975587, rel=5e-6)
    assert score.accuracy(-2.22633) == pytest.approx(0.0241399, rel=5e-5)


def test_formulas_of_section_1():
    c, V = np.array([0.4, 0.3]), np.array([[0.5, 0.1], [0.1, 0.6]])
    score = rmt.QuadraticScore(c, V)
    q = np.array([1.0, 0.7])
    assert score.mean(0.7) == pytest.approx(c @ q)
    assert score.variance(0.7) == pytest.approx(q @ V @ q)
    assert score.second_moment(0.7) == pytest.approx(q @ V @ q + (c @ q) ** 2)
    assert score.risk(0.7) == pytest.approx(1 - 2 * c @ q + score.second_moment(0.7))
    assert score.snr(0.7) == pytest.approx(c @ q / np.sqrt(q @ V @ q))
    inverse = np.linalg.solve(V, c)
    assert score.alpha_star == pytest.approx(inverse[1] / inverse[0])
    assert score.best_accuracy == pytest.approx(ndtr(np.sqrt(c @ inverse)))
    assert score.alpha_bar == pytest.approx(-c[0] / c[1])
    grid = np.linspace(-5, 5, 100_001)
    assert score.alpha_risk == pytest.approx(grid[np.argmin(score.risk(grid))], abs=1e-4)


def test_moments_at_three_scales_give_c_and_V():
    """theory.md §1: any black box returning (s, σ²) gives c, V from α = 0, ±1."""
    score = rmt.theory(rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1, beta=0.8, gamma=1, gamma_source=1))
    s, v = score.mean([0, 1, -1]), score.variance([0, 1, -1])
    np.testing.assert_allclose(score.c, [s[0], (s[1] - s[2]) / 2], rtol=1e-13)
    np.testing.assert_allclose(
        score.V, [[v[0], (v[1] - v[2]) / 4], [(v[1] - v[2]) / 4, (v[1] + v[2]) / 2 - v[0]]], rtol=1e-12
    )


def test_many_sources_against_a_random_search():
    rng = np.random.default_rng(3)
    c, V = rng.uniform(0.1, 1, 4), spd(rng.standard_normal((4, 4)))
    score = rmt.QuadraticScore(c, V)
    inverse = np.linalg.solve(V, c)
    tried = rng.standard_normal((20_000, 3)) * 10
    assert score.best_accuracy >= score.accuracy(tried).max()
    if inverse[0] > 0:
        np.testing.assert_allclose(score.alpha_star, inverse[1:] / inverse[0])
        around = score.alpha_star + 0.01 * rng.standard_normal((500, 3))
        assert score.accuracy(score.alpha_star) >= score.accuracy(around).max()
    lowest = score.risk(score.alpha_risk)
    assert (score.risk(score.alpha_risk + 0.05 * rng.standard_normal((500, 3))) >= lowest).all()


def test_guard_with_several_sources():
    V = spd(np.array([[1.0, 0, 0], [2.0, 1, 0], [0.5, 0.3, 1]]))
    score = rmt.QuadraticScore([-1.0, 0.5, 0.3], V)
    assert np.isinf(score.alpha_star).all()
    inner = np.linalg.solve(V[1:, 1:], [0.5, 0.3])
    assert score.best_accuracy == pytest.approx(ndtr(np.sqrt(np.array([0.5, 0.3]) @ inner)))
    assert score.accuracy(1e6 * inner) == pytest.approx(float(score.best_accuracy), abs=1e-5)


@pytest.mark.parametrize(
    ("c", "V", "message"),
    [
        ([1.0, 2.0], [[1.0]], r"c must be \(…, K\+1\) and V"),
        ([1.0], [[1.0]], "at least two entries"),
        ([1.0, np.nan], np.eye(2), "c must not contain NaN"),
        ([1.0, 2.0], np.full((2, 2), np.inf), "V must be finite"),
    ],
)
def test_bad_input(c, V, message):
    with pytest.raises(ValueError, match=message):
        rmt.QuadraticScore(c, V)


def test_bad_alpha():
    score = rmt.QuadraticScore([1, 0.5, 0.2], np.eye(3))
    with pytest.raises(ValueError, match="last axis of length 2"):
        score.mean(1.0)
    with pytest.raises(ValueError, match="alpha must not contain NaN"):
        score.mean([1.0, np.nan])
    with pytest.raises(ValueError, match="one number only for one source"):
        score.alpha_bar  # noqa: B018
    with pytest.raises(ValueError, match="alpha is a vector"):
        rmt.QuadraticScore([1, 0.5, 0.2], np.eye(3), vector_alpha=False)
