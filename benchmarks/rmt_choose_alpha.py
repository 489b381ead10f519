"""Choosing (α, γ): the automatic rule against cross-validation of the same grid, one fit at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

import rmt
from benchmarks.timing import interleaved, row
from paper_checks.studies.real_data import ALPHAS, FOLDS, cross_validate
from rmt.choosing.ridge_path import penalty_grid


def measure() -> list[dict[str, Any]]:
    """Ratio of times at n = 200, p = 400, on 16 finite γ × 25 α, and the time of one fit at p = 20,000."""
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    n, p = 200, 400
    y = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    source = rng.standard_normal(p)
    X = y[:, None] * source / np.linalg.norm(source) + rng.standard_normal((n, p))
    gammas = penalty_grid(float(np.mean(X**2)))[:-1]
    scores, fold = X @ source, np.arange(n) % FOLDS

    def chosen() -> None:
        rmt.AlphaRidgeClassifier(source=source, intercept=False).fit(X, y)

    def cross_validated() -> None:
        best = -1.0
        for gamma in gammas:
            for alpha in ALPHAS:
                right = 0
                for one in range(FOLDS):
                    kept, left = fold != one, fold == one
                    # w = αw̃ + a, with a the ridge regression of what αw̃ leaves
                    ridge = Ridge(alpha=gamma * kept.sum(), fit_intercept=False, solver="cholesky")
                    adapter = ridge.fit(X[kept], y[kept] - alpha * scores[kept]).coef_
                    right += int(np.sum(y[left] * (X[left] @ adapter + alpha * scores[left]) > 0))
                best = max(best, right / n)

    def batched() -> None:
        cross_validate(y[:, None] * X, source, np.append(gammas, np.inf))

    wide = rng.standard_normal((100, 20_000)) + 0.01 * y[:100, None]

    def large() -> None:
        rmt.AlphaRidgeClassifier(source=np.ones(20_000), intercept=False).fit(wide, y[:100])

    ours, theirs, shared = interleaved(chosen, cross_validated, batched, rounds=1)
    (seconds,) = interleaved(large, rounds=3)
    figure = "choosing (α, γ): 5-fold cross-validation of 16 γ × 25 α over the automatic rule, n = 200, p = 400"
    return [
        row(figure, theirs / ours, at_least=20),
        row("the same, one eigendecomposition a fold for the whole grid", shared / ours),
        row("AlphaRidgeClassifier: seconds a fit, n = 100, p = 20,000", seconds),
    ]
