"""Scales chosen from exact leave-one-out scores, without any covariance model (theory.md §6).

All take a :class:`rmt.RidgePath` and a penalty. ``moment`` maximises the accuracy estimate Φ(mean/sd) of the
left-out scores; ``squared`` and ``gcv`` minimise squared errors and therefore aim at α_risk, which is not the α of
the best accuracy: their bias stays as the sample grows.
"""

from __future__ import annotations

import numpy as np

from rmt._checks import FloatArray
from rmt.choosing.direction import Direction, best_direction, scales
from rmt.choosing.ridge_path import RidgePath


def moment_direction(path: RidgePath, gamma: float) -> Direction:
    """The combination of W(γ)'s columns with the highest left-out mean/sd; needs n ≥ 2."""
    if path.n < 2:
        raise ValueError("leave-one-out needs at least 2 rows, got 1; collect more target samples")
    scores = path.loo_scores(gamma)
    return best_direction(scores.mean(axis=0), np.atleast_2d(np.cov(scores.T)))


def moment(path: RidgePath, gamma: float) -> FloatArray:
    """(K,) α of the highest left-out mean/sd; ±inf where the guard of theory.md §1 fires: the source alone."""
    return scales(moment_direction(path, gamma).q)


def squared(path: RidgePath, gamma: float) -> FloatArray:
    """(K,) α of the smallest left-out squared error Σ(1 − z⁰ − z¹ᵀα)²."""
    scores = path.loo_scores(gamma)
    return np.linalg.lstsq(scores[:, 1:], 1.0 - scores[:, 0], rcond=None)[0]


def gcv(path: RidgePath, gamma: float) -> FloatArray:
    """(K,) α of generalised cross-validation: the residuals T1 regressed on TUW̃ (finite γ)."""
    residuals = path.residuals(gamma)
    return np.linalg.lstsq(residuals[:, 1:], residuals[:, 0], rcond=None)[0]


def squared_error(path: RidgePath, gamma: float, alpha: FloatArray) -> float:
    """Mean left-out squared error (1 − z⁰ − z¹ᵀα)²."""
    scores = path.loo_scores(gamma)
    return float(np.mean((1.0 - scores[:, 0] - scores[:, 1:] @ alpha) ** 2))
