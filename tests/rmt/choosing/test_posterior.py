from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

import rmt
from rmt.choosing.posterior import NoiseModel, Posterior

P = 200
GAMMAS = (0.1, 1.0, 10.0, 100.0, np.inf)


def problem(n, *, seed, beta=0.8, K=1, root=None):
    """Rows, sources and the exact accuracy of any weights; source weights are a noisy mean of the source task."""
    rng = np.random.default_rng(seed)
    root = np.ones(P) if root is None else root
    directions = np.linalg.qr(rng.standard_normal((P, 2)))[0]
    mu, m = directions[:, 0], beta * directions[:, 0] + np.sqrt(1 - beta**2) * directions[:, 1]
    sources = np.column_stack([mu + root * rng.standard_normal(P) / np.sqrt(800) for _ in range(K)])
    rows = m + root * rng.standard_normal((n, P))

    def accuracy(w):
        return float(ndtr(w @ m / np.sqrt(np.sum((root * w) ** 2))))

    return rows, sources, accuracy


def choose(rows, sources, **options):
    path = rmt.RidgePath(rows, sources)
    best = max(Posterior(path, GAMMAS, **options).choose(), key=lambda one: one.merit)
    return path.weights(best.gamma) @ best.q, best


@pytest.mark.parametrize("n", [10, 40, 150])
def test_never_far_below_the_source_and_gains_when_it_can(n):
    gains = []
    for seed in range(25):
        rows, sources, accuracy = problem(n, seed=seed)
        gains.append(accuracy(choose(rows, sources)[0]) - accuracy(sources[:, 0]))
    assert np.mean(gains) > -0.002
    assert min(gains) > -0.03
    if n == 150:
        assert np.mean(gains) > 0.015


def test_a_source_of_the_wrong_sign_is_turned_round_once_that_is_sure():
    found = []
    for seed in range(10):
        rows, sources, accuracy = problem(150, seed=seed, beta=-0.8)
        found.append(accuracy(choose(rows, sources)[0]))
    assert np.mean(found) > 0.7


def test_predicted_accuracy_is_calibrated():
    gaps, inside = [], []
    for seed in range(40):
        rows, sources, accuracy = problem(80, seed=seed)
        w, best = choose(rows, sources)
        gaps.append(best.accuracy - accuracy(w))
        inside.append(best.interval[0] <= accuracy(w) <= best.interval[1])
    assert abs(np.mean(gaps)) < 4 * np.std(gaps) / np.sqrt(40) + 0.01
    assert np.mean(inside) > 0.8


def test_strongly_correlated_noise_keeps_the_source():
    # A spectrum that falls like 1/j, where an isotropic noise model would be badly off.
    root = np.sqrt(P / np.arange(1, P + 1) / np.sum(1 / np.arange(1, P + 1)))
    losses = []
    for seed in range(15):
        rows, sources, accuracy = problem(20, seed=seed, root=root)
        losses.append(accuracy(choose(rows, sources)[0]) - accuracy(sources[:, 0]))
    assert np.mean(losses) > -0.005


def test_several_sources_and_a_useless_one():
    both, one = [], []
    for seed in range(10):
        rows, sources, accuracy = problem(100, seed=seed, K=2)
        sources[:, 1] = np.random.default_rng(99 + seed).standard_normal(P)
        both.append(accuracy(choose(rows, sources)[0]))
        one.append(accuracy(choose(rows, sources[:, :1])[0]))
    assert np.mean(both) > np.mean(one) - 0.03
    rows, sources, accuracy = problem(60, seed=0)
    twice = np.hstack([sources, sources])  # the same source twice changes nothing of substance
    assert accuracy(choose(rows, twice)[0]) == pytest.approx(accuracy(choose(rows, sources)[0]), abs=0.02)


def test_given_covariance_and_caution():
    rows, sources, accuracy = problem(60, seed=3)
    exact = NoiseModel(covariance=np.eye(P))
    assert accuracy(choose(rows, sources, noise=exact)[0]) > accuracy(sources[:, 0]) - 0.01
    rows, sources, accuracy = problem(150, seed=3)
    bold, shy = choose(rows, sources, caution=0.0)[0], choose(rows, sources, caution=50.0)[0]
    cosine = shy @ sources[:, 0] / np.linalg.norm(shy) / np.linalg.norm(sources)
    assert cosine == pytest.approx(1.0)
    assert bold @ sources[:, 0] / np.linalg.norm(bold) / np.linalg.norm(sources) < 0.99


def test_scale_of_rows_and_of_source_do_not_matter():
    rows, sources, _ = problem(40, seed=5)
    w, best = choose(rows, sources)
    other, same = choose(rows, 7.0 * sources)
    np.testing.assert_allclose(other / np.linalg.norm(other), w / np.linalg.norm(w), atol=1e-8)
    assert same.accuracy == pytest.approx(best.accuracy)


def test_bad_input():
    rows, sources, _ = problem(10, seed=0)
    with pytest.raises(ValueError, match="at least 3 rows"):
        Posterior(rmt.RidgePath(rows[:2], sources), GAMMAS)
    with pytest.raises(ValueError, match="do not vary"):
        Posterior(rmt.RidgePath(np.tile(rows[:1], (5, 1)), sources), GAMMAS)
    with pytest.raises(ValueError, match="source is zero"):
        Posterior(rmt.RidgePath(rows, 0 * sources), GAMMAS)
