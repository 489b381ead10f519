"""Elliptical target noise: every sample has its own scale, z√t with E t = 1 (theory.md §5 "Elliptical").

Heavy tails of this kind change every answer, for they do not average out over coordinates: a multivariate t of six
degrees of freedom has less aligned sample means and a test score that is not Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from rmt import validate
from rmt.convex import Mixture, check_convex, point_words, source_unit, spectral_solver
from rmt.covariance import GaussianTransfer
from rmt.losses import SQUARE, Loss
from rmt.score import QuadraticScore, Score
from rmt.setting import Comparable, Numbers, Transfer
from rmt.solved import SolvedScore, probe
from rmt.validate import FloatArray

#: Density of log χ², relative to its peak, below which the quadrature of a Student law stops.
_NEGLIGIBLE = 40.0


@dataclass(frozen=True, kw_only=True, eq=False)
class EllipticalTransfer(Comparable):
    """``base`` with target noise √t·C^{1/2}z in training and test; a ridge source keeps its Gaussian samples.

    Args:
        base: :class:`rmt.Transfer` or :class:`rmt.GaussianTransfer` with one source and γ > 0.
        freedom: degrees of freedom ν > 2 of a multivariate t scaled to covariance C: t = (ν − 2)/χ²_ν.
        scales, weights: instead of ``freedom``, a discrete law of t: values > 0 with probabilities ``weights``, both
            (Q,). It must have mean 1 (theory's C is the covariance).
    """

    base: Transfer | GaussianTransfer
    freedom: float | None = None
    scales: Numbers = None
    weights: Numbers = None

    def __post_init__(self) -> None:
        if not isinstance(self.base, Transfer | GaussianTransfer):
            raise ValueError(f"base must be a Transfer or a GaussianTransfer, got {type(self.base).__name__}")
        if (self.freedom is None) == (self.scales is None) or (self.scales is None) != (self.weights is None):
            raise ValueError("give freedom (multivariate t), or scales together with weights")
        if self.freedom is not None:
            freedom = validate.finite("freedom", self.freedom)
            if freedom.ndim or freedom <= 2:
                raise ValueError(f"freedom must be one number > 2 (there is no variance below), got {self.freedom}")
            return
        scales = validate.at_least("scales", self.scales, 0.0)
        weights = validate.at_least("weights", self.weights, 0.0)
        if scales.ndim != 1 or scales.shape != weights.shape or not (scales > 0).all():
            raise ValueError(f"scales and weights must be (Q,) and scales > 0, got {scales.shape} and {weights.shape}")
        if abs(weights.sum() - 1.0) > 1e-9 or abs(scales @ weights - 1.0) > 1e-6:
            raise ValueError(
                f"weights must sum to 1 and the mean of scales must be 1, got {weights.sum():g} and "
                f"{scales @ weights:g}; divide scales by their mean and multiply the covariance by it"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``base``."""
        return self.base.shape

    @property
    def law(self) -> tuple[FloatArray, FloatArray]:
        """Values (Q,) of t and their probabilities (Q,)."""
        if self.freedom is None:
            return np.asarray(self.scales, dtype=float), np.asarray(self.weights, dtype=float)
        return student_law(float(self.freedom))


def student_law(freedom: float) -> tuple[FloatArray, FloatArray]:
    """Values and probabilities of t = (ν − 2)/χ²_ν, by the trapezoidal rule in y = log χ².

    The density of y is proportional to exp(νy/2 − eʸ/2).
    """
    peak, step = np.log(freedom), min(0.25, 0.5 / np.sqrt(freedom))
    low = peak - 2.0 * _NEGLIGIBLE / freedom - 3.0 * np.sqrt(4.0 * _NEGLIGIBLE / freedom)
    high = peak + min(3.0 * np.sqrt(4.0 * _NEGLIGIBLE / freedom), np.log1p(4.0 * _NEGLIGIBLE / freedom) + 1.0)
    y = np.arange(low, high, step)
    log_density = 0.5 * (freedom * (y - peak) - np.exp(y))
    weights = np.exp(log_density - log_density.max())
    keep = weights > np.exp(-_NEGLIGIBLE)
    weights = weights[keep] / weights[keep].sum()
    return (freedom - 2.0) * np.exp(-y[keep]), weights


class _Elliptical(Score):
    """Accuracy E Φ(s/(σ√t)), which rises with s/σ: the best scale is still that of the best ratio."""

    _law: tuple[FloatArray, FloatArray]

    def _correct(self, snr: Any) -> Any:
        scales, weights = self._law
        return ndtr(np.asarray(snr)[..., None] / np.sqrt(scales)) @ weights


class EllipticalScore(_Elliptical, QuadraticScore):
    """Square loss: mean and variance stay affine and quadratic in α; only the accuracy is a mixture."""

    def __init__(self, setting: EllipticalTransfer, c: FloatArray, V: FloatArray) -> None:
        super().__init__(c, V)
        self.setting, self._law = setting, setting.law


class SolvedEllipticalScore(_Elliptical, SolvedScore):
    """Any other loss, solved one α at a time: e, v, τ are averaged over t, with κ → tκ and σ² → tσ²."""

    def __init__(self, setting: EllipticalTransfer, loss: Loss) -> None:
        base, (scales, weights) = setting.base, setting.law
        check_convex(base, loss)
        super().__init__(
            spectral_solver(base, loss, Mixture(np.ones_like(scales), scales, weights[None])),
            shape=base.shape,
            unit=source_unit(base),
            describe=lambda index: point_words(base, index),
        )
        self.setting, self._law = setting, (scales, weights)


def elliptical_score(setting: EllipticalTransfer, loss: Loss) -> Score:
    """The score under elliptical noise; for the square loss three solved scales give them all."""
    solved = SolvedEllipticalScore(setting, loss)
    return EllipticalScore(setting, *probe(solved)) if loss is SQUARE else solved
