"""A covariance by its eigenvalues and eigenvectors, and what a covariance must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt.settings.isotropic import Comparable, Numbers

#: Negative eigenvalues, and differences from symmetry, up to this share of the largest are the rounding of a Gram
#: matrix, also of one that was made in single precision: they count as 0.
_ROUNDING = 1e-6
#: Settings are treated in blocks of about this many (setting, eigenvalue) pairs: 8 MB an array.
BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class Spectrum(Comparable):
    """A covariance by its eigenvalues and eigenvectors, C = vectors · diag(values) · vectorsᵀ.

    Make it once with :meth:`of` and hand it to many settings, so that C is decomposed only once.

    Args:
        values: (p,) eigenvalues ≥ 0, in any order.
        vectors: (p, p) orthonormal columns; None for a diagonal covariance.

    >>> import rmt
    >>> rmt.Spectrum(values=[1.0, 2.0]).values
    [1.0, 2.0]
    """

    values: Numbers
    vectors: Numbers = None

    def __post_init__(self) -> None:
        values = _checks.at_least("values", self.values, 0.0, largest=_checks.LARGEST)
        if values.ndim != 1 or not values.size:
            raise ValueError(f"values must have shape (p,), got {values.shape}")
        if self.vectors is not None:
            vectors = _checks.finite("vectors", self.vectors)
            if vectors.shape != (values.size, values.size):
                raise ValueError(f"vectors must have shape {(values.size, values.size)}, got {vectors.shape}")
            probe = np.cos(np.arange(values.size) ** 2)  # QᵀQ = I is checked on one vector: O(p²), not O(p³)
            if not np.allclose(vectors @ (vectors.T @ probe), probe, atol=1e-8 * np.sqrt(values.size)):
                raise ValueError("vectors must have orthonormal columns; take them from numpy.linalg.eigh")

    @classmethod
    def of(cls, covariance: Any, *, name: str = "covariance") -> Spectrum:
        """The spectrum of a (p, p) matrix, of a (p,) diagonal, or of a ``Spectrum`` (returned as it is).

        Raises:
            ValueError: wrong shape, not symmetric, or an eigenvalue below 0.
        """
        if isinstance(covariance, Spectrum):
            return covariance
        array = check_covariance(name, covariance)
        if array.ndim == 1:
            return cls(array)
        values, vectors = np.linalg.eigh(0.5 * (array + array.T))
        if values[0] < -_ROUNDING * max(values[-1], 0.0):
            raise ValueError(
                f"{name} must be positive semi-definite, but has the eigenvalue {values[0]:.3g}; "
                "estimate it as a Gram matrix or add a ridge to it"
            )
        return cls(np.maximum(values, 0.0), vectors)

    @property
    def p(self) -> int:
        """Dimension."""
        return int(np.size(self.values))

    def rotate(self, vectors: ArrayLike) -> FloatArray:
        """``vectors`` (…, p) in the eigenbasis, (…, p)."""
        array = np.asarray(vectors, dtype=float)
        return array if self.vectors is None else array @ np.asarray(self.vectors)

    def restore(self, vectors: FloatArray) -> FloatArray:
        """The inverse of :meth:`rotate`."""
        return vectors if self.vectors is None else vectors @ np.asarray(self.vectors).T

    def colour(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` (…, p) times C^{1/2}: standard normal rows become noise of covariance C."""
        return self.restore(self.rotate(vectors) * np.sqrt(np.asarray(self.values, dtype=float)))

    def diagonal_of(self, other: Spectrum, values: FloatArray) -> FloatArray:
        """Diagonal, in this eigenbasis, of the matrix with ``other``'s eigenvectors and eigenvalues ``values``."""
        if other is self or (self.vectors is None and other.vectors is None):
            return values
        if self.vectors is None:
            overlaps = np.asarray(other.vectors)
        else:
            overlaps = np.asarray(self.vectors).T
            overlaps = overlaps if other.vectors is None else overlaps @ np.asarray(other.vectors)
        return (overlaps**2) @ values

    def dense(self) -> FloatArray:
        """The (p, p) matrix."""
        if self.vectors is None:
            return np.diag(np.asarray(self.values, dtype=float))
        vectors = np.asarray(self.vectors)
        return (vectors * np.asarray(self.values)) @ vectors.T


def check_covariance(name: str, covariance: Any) -> FloatArray:
    """A (p, p) symmetric or (p,) nonnegative array; what only the eigenvalues can tell is left to ``Spectrum``."""
    array = _checks.finite(name, covariance, largest=_checks.LARGEST)
    if array.ndim == 1 and array.size:
        return _checks.at_least(name, array, 0.0)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise ValueError(f"{name} must be a (p, p) matrix, a (p,) diagonal or a Spectrum, got shape {array.shape}")
    if not np.allclose(array, array.T, rtol=0.0, atol=_ROUNDING * np.abs(array).max()):
        raise ValueError(f"{name} must be symmetric; average it with its transpose")
    return array


def check_dimension(name: str, covariance: Any, p: int, other: str = "mean") -> None:
    """A valid covariance of dimension ``p``, the dimension of ``other``."""
    size = covariance.p if isinstance(covariance, Spectrum) else len(check_covariance(name, covariance))
    if size != p:
        raise ValueError(f"{name} is {size}-dimensional, but {other} has length {p}; they must agree")
