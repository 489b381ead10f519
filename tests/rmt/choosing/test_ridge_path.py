from __future__ import annotations

import numpy as np
import pytest

import rmt
from rmt.choosing.ridge_path import penalty_grid

SHAPES = [(12, 30), (30, 12), (15, 15), (1, 4)]


def sample(n, p, K=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)) + 0.3, rng.standard_normal((p, K))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gamma", [1e-3, 0.7, 50.0])
def test_weights_solve_the_ridge_problem(shape, gamma):
    U, W = sample(*shape)
    n, p = shape
    columns = rmt.RidgePath(U, W).weights(gamma)
    S = U.T @ U / n
    expected = np.linalg.solve(S + gamma * np.eye(p), np.column_stack([U.mean(axis=0), gamma * W]))
    np.testing.assert_allclose(columns, expected, atol=1e-9)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] > 1])
@pytest.mark.parametrize("gamma", [1e-3, 0.7, 50.0])
def test_left_out_scores_equal_refits(shape, gamma):
    U, W = sample(*shape)
    n, p = shape
    scores = rmt.RidgePath(U, W).loo_scores(gamma)
    for i in range(n):
        rest = np.delete(U, i, axis=0)
        # The penalty of the n − 1 fits is kept at nγ in sums.
        left = rest.T @ rest + n * gamma * np.eye(p)
        refit = np.linalg.solve(left, np.column_stack([rest.sum(axis=0), n * gamma * W]))
        np.testing.assert_allclose(scores[i], U[i] @ refit, atol=1e-8)


def test_infinite_penalty_is_the_limit():
    U, W = sample(12, 30)
    path = rmt.RidgePath(U, W)
    far = 1e9 * np.array([1.0, 0, 0]) + np.array([0.0, 1, 1])  # the target column times γ
    np.testing.assert_allclose(path.weights(np.inf), path.weights(1e9) * far, rtol=1e-5)
    np.testing.assert_allclose(path.loo_scores(np.inf), path.loo_scores(1e9) * far, rtol=1e-4, atol=1e-4)


def test_no_source_and_the_grid():
    U, _ = sample(12, 30)
    path = rmt.RidgePath(U)
    assert path.weights(1.0).shape == (30, 1)
    assert path.loo_scores(1.0).shape == (12, 1)
    grid = penalty_grid(path.scale)
    assert grid[-1] == np.inf
    assert (np.diff(grid[:-1]) > 0).all()


def test_bad_input():
    U, W = sample(12, 30)
    with pytest.raises(ValueError, match="rows must not contain NaN"):
        rmt.RidgePath(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="sources must be"):
        rmt.RidgePath(U, W[:7])
    with pytest.raises(ValueError, match="rows must be"):
        rmt.RidgePath(U[0])
    with pytest.raises(ValueError, match="gamma must be > 0"):
        rmt.RidgePath(U, W).weights(0.0)
