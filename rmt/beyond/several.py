"""Several sources with any convex loss: the fixed point at each vector of scales, and a search for the best one.

With given scales the sources act as one, w̃ = Σα_kw̃_k at α = 1 (theory.md §5); only the search is new.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt.convex.fixed_point import point_words, solve, spectral_response
from rmt.convex.mixture import Mixture, flipped, plain_mixture
from rmt.linear.gaussian import GaussianScore
from rmt.linear.isotropic import SeveralSourcesScore
from rmt.losses import Loss
from rmt.scores.score import Score
from rmt.scores.solved import ConvergenceError, FixedPoint
from rmt.settings.gaussian import GaussianTransfer
from rmt.settings.isotropic import Transfer

#: Step of the central differences in units of a scale, and steps of the search.
_STEP, _MOST = 1e-4, 200


class SeveralScore(Score):
    """Score of K sources for any loss; ``alpha`` has a last axis of length K.

    Args:
        setting: one scalar setting with K sources. loss: any convex one. mixture: what a score is averaged over.

    The search for the best scales starts from those of the square loss.
    """

    vector_alpha = True

    def __init__(self, setting: Transfer | GaussianTransfer, loss: Loss, mixture: Mixture) -> None:
        if setting.shape:
            raise ValueError(
                f"loss {loss.name!r} with several sources takes one scalar setting, got arrays of shape {setting.shape}"
            )
        if float(setting.gamma) == 0:
            raise ValueError(f"gamma must be > 0 with loss {loss.name!r} and several sources")
        self.setting, self.loss = setting, loss
        self._start = SeveralSourcesScore(setting) if isinstance(setting, Transfer) else GaussianScore(setting)
        self._mixture = flipped(mixture, np.array([float(setting.label_noise)]))
        self.sources = int(setting.source_count or 1)

    def solution(self, alpha: ArrayLike) -> FixedPoint:
        """The fixed points at ``alpha`` (…, K).

        Raises:
            ConvergenceError: a point was not solved; the message names it.
        """
        alpha = _checks.finite("alpha", alpha)
        if alpha.ndim == 0 or alpha.shape[-1] != self.sources:
            raise ValueError(f"alpha needs a last axis of length {self.sources}, one scale a source, got {alpha.shape}")
        rows = alpha.reshape(-1, self.sources)
        values, share, mean2, cross, source2 = self._atoms(rows)
        count = len(rows)
        respond = spectral_response(
            values=values,
            share=share,
            mean2=mean2,
            cross=cross,
            source2=source2,
            gamma=np.full(count, float(self.setting.gamma)),
            alpha=np.ones(count),
        )
        found = solve(respond, self.loss, count, self._mixture)
        if not found.converged.all():
            bad = int(np.argmin(found.converged))
            raise ConvergenceError(
                f"no fixed point at alpha = {rows[bad]}, {point_words(self.setting, ())}, after "
                f"{int(found.n_iter[bad])} iterations; raise gamma, or smooth the loss"
            )
        return found.reshape(alpha.shape[:-1])

    def _atoms(self, rows: FloatArray) -> tuple[FloatArray, ...]:
        """Eigenvalues, their weight in tr/n, m_j², and m_jw̃_j, E w̃_j² of the summed source, one row a point."""
        setting = self.setting
        if isinstance(setting, Transfer):
            assert setting.source is not None
            overlap, gram = (np.asarray(x, dtype=float) for x in (setting.source.overlap, setting.source.gram))
            norm2 = np.einsum("aj,jk,ak->a", rows, gram, rows)
            share, mean2 = float(setting.eta), float(setting.m2)
            return np.ones(1), np.array([[share]]), np.array([[mean2]]), (rows @ overlap)[:, None], norm2[:, None]
        mean, weights, spread = setting.in_eigenbasis
        summed = rows @ weights
        share2 = np.array([[1.0 / float(setting.n)]])
        values = np.asarray(setting.spectrum.values, dtype=float)
        return values, share2, (mean**2)[None], mean * summed, summed**2 + rows**2 @ spread

    def mean(self, alpha: ArrayLike) -> FloatArray:
        """s(α)."""
        return self.solution(alpha).mean

    def variance(self, alpha: ArrayLike) -> FloatArray:
        """σ²(α)."""
        return self.solution(alpha).variance

    def snr(self, alpha: ArrayLike) -> FloatArray:
        """s/σ."""
        found = self.solution(alpha)
        return found.mean / np.sqrt(found.variance)

    def _search(self, objective: Callable[[FixedPoint], FloatArray], start: FloatArray) -> FloatArray:
        """Scales of the highest ``objective`` near ``start``, by BFGS with central differences in one batch."""
        from scipy.optimize import minimize

        unit = np.where(np.isfinite(start), np.maximum(np.abs(start), 0.1), 1.0)
        steps = _STEP * np.vstack([np.zeros(self.sources), np.eye(self.sources), -np.eye(self.sources)])

        def value(x: FloatArray) -> tuple[float, FloatArray]:
            values = -objective(self.solution((x + steps) * unit))
            return float(values[0]), (values[1 : self.sources + 1] - values[self.sources + 1 :]) / (2.0 * _STEP)

        first = np.where(np.isfinite(start), start, np.sign(start) * 10.0) / unit
        found = minimize(value, first, jac=True, method="BFGS", options={"maxiter": _MOST, "gtol": 1e-7})
        return found.x * unit

    @cached_property
    def alpha_star(self) -> FloatArray:
        """(K,) scales of a maximum of accuracy, found from those of the square loss."""
        return self._search(lambda found: found.mean / np.sqrt(found.variance), np.asarray(self._start.alpha_star))

    @cached_property
    def alpha_risk(self) -> FloatArray:
        """(K,) scales of the lowest squared risk, found from those of the square loss."""
        return self._search(lambda found: -(found.variance + (1.0 - found.mean) ** 2), self._start.alpha_risk)

    @property
    def alpha_bar(self) -> Any:
        """Not one number: with K sources the mean vanishes on a surface."""
        raise ValueError("alpha_bar is one number only for one source; with K sources the mean vanishes on a surface")

    @cached_property
    def best_accuracy(self) -> FloatArray:
        """Accuracy at :attr:`alpha_star`."""
        return np.asarray(self.accuracy(self.alpha_star))


def several_score(setting: Transfer | GaussianTransfer, loss: Loss) -> SeveralScore:
    """The score of K sources trained with ``loss``."""
    return SeveralScore(setting, loss, plain_mixture())
