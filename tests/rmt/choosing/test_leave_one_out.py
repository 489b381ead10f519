from __future__ import annotations

import numpy as np
import pytest

import rmt
from rmt.choosing import leave_one_out


@pytest.fixture
def path():
    rng = np.random.default_rng(1)
    m = np.r_[1.2, np.zeros(59)]
    return rmt.RidgePath(m + rng.standard_normal((40, 60)), np.r_[0.5, 0.5, np.zeros(58)])


def test_each_rule_minimises_what_it_says(path):
    grid = np.linspace(-3, 8, 4401)
    scores = path.loo_scores(0.5)
    combined = scores[:, :1] + grid * scores[:, 1:]
    error = np.mean((1 - combined) ** 2, axis=0)
    assert leave_one_out.squared(path, 0.5)[0] == pytest.approx(grid[np.argmin(error)], abs=0.003)
    ratio = combined.mean(axis=0) / combined.std(axis=0)
    assert leave_one_out.moment(path, 0.5)[0] == pytest.approx(grid[np.argmax(ratio)], abs=0.003)
    alpha = leave_one_out.squared(path, 0.5)
    assert leave_one_out.squared_error(path, 0.5, alpha) == pytest.approx(error.min(), rel=1e-5)


def test_gcv_minimises_the_residuals(path):
    rows, w = path.rows, path.sources[:, 0]
    n, gamma = len(rows), 0.5
    T = np.linalg.inv(rows @ rows.T / n + gamma * np.eye(n))
    r0, r1 = T @ np.ones(n), T @ rows @ w
    assert leave_one_out.gcv(path, gamma)[0] == pytest.approx((r0 @ r1) / (r1 @ r1))
    with pytest.raises(ValueError, match="gamma must be finite"):
        leave_one_out.gcv(path, np.inf)


def test_guard_and_one_row():
    rng = np.random.default_rng(0)
    source = np.r_[5.0, np.zeros(9)]
    rows = rng.standard_normal((6, 10)) + 0.9 * source / 5
    rows[:, 0] = np.abs(rows[:, 0]) + 1.0  # the source separates perfectly, the rest only harms
    alphas = [leave_one_out.moment(rmt.RidgePath(rows, source), gamma)[0] for gamma in (0.1, 1.0, 10.0)]
    assert not np.isnan(alphas).any()  # ±inf: the source alone
    with pytest.raises(ValueError, match="at least 2 rows"):
        leave_one_out.moment(rmt.RidgePath(rows[:1], source), 1.0)
