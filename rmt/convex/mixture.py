"""The laws that a training sample's score is averaged over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmt._checks import FloatArray, IntArray
from rmt.losses import Loss, Moments


@dataclass(frozen=True)
class Mixture:
    """The laws a training sample's score is averaged over: sign·s mean, scale·σ² variance, scale·κ sensitivity.

    Plain Gaussian data is one component (1, 1). Flipped labels are a component of sign −1 (theory.md §5, as a second
    class with the opposite mean); elliptical noise is a continuum of scales t with E t = 1.
    """

    signs: FloatArray  # shape: (Q,)
    scales: FloatArray  # shape: (Q,)
    weights: FloatArray  # shape: (points, Q) or (1, Q)

    def average(
        self, loss: Loss, s: FloatArray, s2: FloatArray, kappa: FloatArray, nodes: int, at: IntArray
    ) -> Moments:
        """(e, v, τ): E sign·ξ, E t·ξ², E t·τ, at the points ``at``."""
        if self.signs.size == 1:
            return loss.moments(s, s2, kappa, nodes)
        e, v, tau = loss.moments(
            s[:, None] * self.signs, s2[:, None] * self.scales, kappa[:, None] * self.scales, nodes
        )
        weights = self.weights if len(self.weights) == 1 else self.weights[at]
        scaled = weights * self.scales
        return Moments(np.sum(weights * self.signs * e, -1), np.sum(scaled * v, -1), np.sum(scaled * tau, -1))


def plain_mixture() -> Mixture:
    """One Gaussian component."""
    return Mixture(np.ones(1), np.ones(1), np.ones((1, 1)))


def flipped(mixture: Mixture, label_noise: FloatArray) -> Mixture:
    """``mixture`` with labels flipped with probability ``label_noise`` (points,); itself where that is 0."""
    if not np.any(label_noise):
        return mixture
    keep = (1.0 - label_noise)[:, None] * mixture.weights
    flip = label_noise[:, None] * mixture.weights
    return Mixture(
        np.concatenate([mixture.signs, -mixture.signs]),
        np.tile(mixture.scales, 2),
        np.concatenate([keep, flip], axis=1),
    )
