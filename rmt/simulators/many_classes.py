"""Simulation of K classes with one score a class: draw, fit one-vs-rest ridge or softmax, count fresh scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray, IntArray
from rmt._parallel import stream
from rmt.scores.estimates import Comparison, Estimate, mean_estimate
from rmt.scores.solved import ConvergenceError
from rmt.settings.many_classes import MulticlassTransfer
from rmt.simulators.drawing import Drawing

#: Fresh scores a class on which the accuracy of a fit is counted; they are drawn in ℝᴷ, where their law is Gaussian.
_FRESH = 4000


@dataclass(frozen=True)
class MulticlassSimulation:
    """What independent fits give at each α.

    >>> import rmt
    >>> setting = rmt.MulticlassTransfer(
    ...     n=90,
    ...     gamma=0.5,
    ...     means=[[2.0, 0.0], [0.0, 2.0], [-1.0, -1.0]],
    ...     covariances=[[1.0, 1.0]] * 3,
    ...     source=[[1, 0], [0, 1], [-1, -1]],
    ... )
    >>> fits = rmt.simulate(setting, draws=20, seed=0, alpha=[0.0, 1.0])
    >>> fits.accuracy.value.shape
    (2,)
    """

    alpha: FloatArray  #: (A,) or (A, K)
    accuracies: FloatArray  #: (D, A)
    class_accuracies: FloatArray  #: (D, A, K)
    means: FloatArray  #: (D, A, K) mean of the own class's score, for each class
    p: int

    @property
    def draws(self) -> int:
        """Number of draws D."""
        return len(self.accuracies)

    @property
    def accuracy(self) -> Estimate:
        """(A,) accuracy."""
        return mean_estimate(self.accuracies)

    def compare(self, score: Any, *, doubled: MulticlassSimulation | None = None, allowance: float = 0.0) -> Comparison:
        """z-scores of the accuracy against a :class:`rmt.MulticlassScore`; see :meth:`rmt.Simulation.compare`."""
        return Comparison.of(
            self.alpha,
            {"accuracy": np.asarray(score.accuracy(self.alpha))},
            {"accuracy": self.accuracy},
            doubled=None if doubled is None else {"accuracy": doubled.accuracy},
            allowance=allowance / self.p,
        )


def draw_classes(setting: MulticlassTransfer, alpha: ArrayLike, draws: int, seed: int, *, loss: str) -> Drawing:
    """One block a draw."""
    scales = np.atleast_2d(setting.scales(alpha))
    draws, seed = _checks.whole("draws", draws), _checks.whole("seed", seed, low=0)
    _checks.one_of("loss of a MulticlassTransfer", loss, ("square", "softmax"))
    shown = scales if setting.per_class else scales[:, 0]

    def finish(parts: Sequence[tuple[FloatArray, ...]], count: int) -> MulticlassSimulation:
        each, means = (np.stack([part[i] for part in parts])[:count] for i in range(2))
        return MulticlassSimulation(shown, each @ setting.shares, each, means, setting.p)

    return Drawing((_draw(setting, scales, loss, stream(seed, index)) for index in range(draws)), finish, lambda _: 1)


def _draw(setting: MulticlassTransfer, scales: FloatArray, loss: str, rng: Generator) -> tuple[FloatArray, FloatArray]:
    """(A, K) accuracies on each class and means of their own scores, of one sample."""
    n, count = int(setting.n), setting.classes
    means, source = np.asarray(setting.means, dtype=float), np.asarray(setting.source, dtype=float)
    kinds = rng.choice(count, size=n, p=setting.shares)
    samples = rng.standard_normal((n, setting.p))
    for c, spectrum in enumerate(setting.spectra):
        samples[kinds == c] = spectrum.colour(samples[kinds == c])
    samples += means[kinds]
    fresh = rng.standard_normal((_FRESH, count))
    fit = _ridge if loss == "square" else _softmax
    accuracies, own = np.empty((2, len(scales), count))
    for index, scale in enumerate(scales):
        start = scale[:, None] * source
        weights, offset = fit(samples, kinds, start, float(setting.gamma), setting.intercept)
        for c, spectrum in enumerate(setting.spectra):
            centre = weights @ means[c] + offset
            form = spectrum.colour(weights)
            root = np.linalg.qr(form.T, mode="r")  # (min(p, K), K), RᵀR = WCWᵀ
            scores = centre + fresh[:, : len(root)] @ root
            accuracies[index, c], own[index, c] = np.mean(scores.argmax(axis=1) == c), centre[c]
    return accuracies, own


def _ridge(
    samples: FloatArray, kinds: IntArray, start: FloatArray, gamma: float, intercept: bool
) -> tuple[FloatArray, FloatArray]:
    """Weights (K, p) and intercepts (K,) of one ridge regression a class, targets ±1, penalty on W − ``start``."""
    count = len(start)
    targets = 2.0 * (kinds[:, None] == np.arange(count)) - 1.0 - samples @ start.T
    centre, level = (samples.mean(axis=0), targets.mean(axis=0)) if intercept else (0.0, 0.0)
    rows, right = samples - centre, targets - level
    dual = np.linalg.solve(rows @ rows.T + len(rows) * gamma * np.eye(len(rows)), right)  # (n, K)
    moved = dual.T @ rows
    return start + moved, level - moved @ centre if intercept else np.zeros(count)


def _softmax(
    samples: FloatArray, kinds: IntArray, start: FloatArray, gamma: float, intercept: bool
) -> tuple[FloatArray, FloatArray]:
    """Weights (K, p) and intercepts (K,) that minimise the mean softmax loss + γ/2|W − ``start``|², by L-BFGS."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    (count, p), n = start.shape, len(samples)
    given, truth = samples @ start.T, kinds[:, None] == np.arange(count)

    def value(flat: FloatArray) -> tuple[float, FloatArray]:
        moved, offset = flat[: count * p].reshape(count, p), flat[count * p :]
        scores = given + samples @ moved.T + (offset if intercept else 0.0)
        level = logsumexp(scores, axis=1, keepdims=True)
        residual = (np.exp(scores - level) - truth) / n
        total = float(np.mean(level[:, 0] - scores[truth]) + 0.5 * gamma * np.sum(moved**2))
        slope = residual.T @ samples + gamma * moved
        return total, np.concatenate([slope.ravel(), residual.sum(axis=0)[: offset.size]])

    size = count * p + count * intercept
    found = minimize(
        value,
        np.zeros(size),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000, "gtol": 1e-7, "ftol": 1e-14, "maxcor": 30},
    )
    if not found.success and np.abs(found.jac).max() > 1e-5:
        raise ConvergenceError(f"a softmax adapter was not fitted: {found.message}")
    offset = found.x[count * p :] if intercept else np.zeros(count)
    return start + found.x[: count * p].reshape(count, p), offset
