"""A setting with elliptical noise: every sample has its own scale (theory.md §5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt.settings.gaussian import GaussianTransfer
from rmt.settings.isotropic import Comparable, Numbers, Transfer

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

    >>> import rmt
    >>> source = rmt.FixedSource(overlap=0.6, norm2=0.45)
    >>> base = rmt.Transfer(p=100, n=50, gamma=0.5, mu_target=1.5, source=source)
    >>> heavy = rmt.EllipticalTransfer(base=base, freedom=5)
    >>> round(float(rmt.theory(heavy).accuracy(1.0)), 4)
    0.8771
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
            freedom = _checks.finite("freedom", self.freedom)
            if freedom.ndim or freedom <= 2:
                raise ValueError(f"freedom must be one number > 2 (there is no variance below), got {self.freedom}")
            return
        scales = _checks.at_least("scales", self.scales, 0.0)
        weights = _checks.at_least("weights", self.weights, 0.0)
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
