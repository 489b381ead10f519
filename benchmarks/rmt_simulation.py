"""The two simulators against a plain simulation at (N, n, p) = (5000, 200, 400)."""

from __future__ import annotations

from typing import Any

import numpy as np

import rmt
from benchmarks.timing import interleaved, row

SETTING = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)


def plain(setting: rmt.Transfer, seed: int, *, unused_tests: bool = False) -> float:
    """One experiment as one would first write it: dense p×p solves, one α, accuracy on 20n test points.

    ``unused_tests`` adds what the official code also does: 20-fold test sets for the source task, and explicit
    inverses.
    """
    rng = np.random.default_rng(seed)
    p, n, N = int(setting.p), int(setting.n), int(setting.N)

    def sample(count: int, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.choice([-1.0, 1.0], count)
        return labels[:, None] * mean + rng.standard_normal((count, p)), labels

    def solve(form: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.linalg.inv(form) @ right if unused_tests else np.linalg.solve(form, right)

    mu, mean = np.zeros(p), np.zeros(p)
    mu[0] = setting.mu
    mean[0], mean[1] = setting.beta * setting.mu, np.sqrt(1 - setting.beta**2) * setting.mu_perp
    X, y = sample(N, mu)
    source = solve(X.T @ X / N + setting.gamma_source * np.eye(p), X.T @ y / N)
    if unused_tests:
        sample(20 * N, mu)
    X, y = sample(n, mean)
    form = X.T @ X / n + setting.gamma * np.eye(p)
    w = source + solve(form, X.T @ (y - X @ source) / n)
    X, y = sample(20 * n, mean)
    return float(np.mean((X @ w) * y > 0))


def measure() -> list[dict[str, Any]]:
    """Seconds a draw as ratios, and the grid of 20 γ × 41 α from one draw."""
    draws = 2000
    exact, dense, official, direct = interleaved(
        lambda: rmt.sample_exact(SETTING, draws, seed=0),
        lambda: plain(SETTING, 0),
        lambda: plain(SETTING, 0, unused_tests=True),
        lambda: rmt.simulate_direct(SETTING, 1, seed=0).accuracy(1.0),
        rounds=7,
    )
    gammas, alphas = np.geomspace(1e-3, 1e2, 20), np.linspace(-4, 4, 41)

    def grid() -> None:
        rmt.simulate_direct(SETTING, 1, seed=0, gamma=gammas).accuracy(alphas[:, None])

    (whole,) = interleaved(grid, rounds=3)
    return [
        row("exact sampler: microseconds a draw", exact / draws * 1e6),
        row("plain simulation: milliseconds a draw", dense * 1e3),
        row("plain / exact sampler, one draw", dense / (exact / draws), at_least=500),
        row("plain with the unused test sets / exact sampler", official / (exact / draws), at_least=10_000),
        row("direct simulation / plain, one point", direct / dense, at_most=1.0),
        row("plain, 820 points one by one / direct, 20 γ × 41 α", 820 * dense / whole, at_least=100),
    ]
