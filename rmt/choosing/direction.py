"""Which combination of weight vectors classifies best: the maximiser of cᵀq/√(qᵀVq) with q₀ ≥ 0 (theory.md §1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rmt._checks import FloatArray


class Direction(NamedTuple):
    """A combination q = (q₀, q₁ … q_K), up to a positive factor, and its signal-to-noise ratio cᵀq/√(qᵀVq)."""

    q: FloatArray  #: (K+1,)
    snr: float


def snr(c: FloatArray, V: FloatArray, q: FloatArray) -> float:
    """cᵀq/√(qᵀVq); 0 for a score without signal, whatever its noise."""
    mean, variance = float(c @ q), float(q @ V @ q)
    if variance > 0:
        return mean / np.sqrt(variance)
    return float(np.sign(mean)) * np.inf if mean else 0.0


def best_direction(c: FloatArray, V: FloatArray) -> Direction:
    """The best q with q₀ ≥ 0: V⁻¹c, or the sources alone where the guard (V⁻¹c)₀ > 0 fails.

    Args:
        c: (K+1,) mean scores of target-only and source columns.
        V: (K+1, K+1) their covariance; singular directions are left out.
    """
    if len(c) == 1:
        return Direction(np.ones(1), snr(c, V, np.ones(1)))
    q = _solve(V, c)
    if q[0] > 0:
        return Direction(q, snr(c, V, q))
    q = np.concatenate(([0.0], _solve(V[1:, 1:], c[1:])))
    return Direction(q, snr(c, V, q))


def scales(q: FloatArray) -> FloatArray:
    """(K,) the scales α = q_k/q₀ of a direction; ±inf (0 for a source without weight) where q₀ = 0: sources alone."""
    tail = q[1:]
    if q[0] > 0:
        return tail / q[0]
    return np.where(tail == 0, 0.0, np.sign(tail) * np.inf)


def _solve(V: FloatArray, c: FloatArray) -> FloatArray:
    """V⁺c after scaling V to a unit diagonal, so that columns of very different sizes are judged alike."""
    size = np.sqrt(np.maximum(np.diag(V), 0.0))
    size = np.where(size > 0, size, 1.0)
    return np.linalg.pinv(V / np.outer(size, size), rcond=1e-10, hermitian=True) @ (c / size) / size
