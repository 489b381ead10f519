"""Square loss with noise of any covariance, explicit means, and one or several sources (theory.md §3).

One eigendecomposition of the covariance serves every γ, n and α: in the eigenbasis each (γ, n) costs O(pK²).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from rmt import validate
from rmt.fixed_point import spectral
from rmt.ridge import assemble
from rmt.score import QuadraticScore, ratio
from rmt.setting import Comparable, FixedSource, Numbers, flip_probability
from rmt.validate import FloatArray

#: Negative eigenvalues up to this share of the largest are rounding and count as 0.
_ROUNDING = 1e-10
#: Settings are treated in blocks of about this many (setting, eigenvalue) pairs: 8 MB an array.
BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class Spectrum(Comparable):
    """A covariance by its eigenvalues and eigenvectors, C = vectors · diag(values) · vectorsᵀ.

    Make it once with :meth:`of` and hand it to many settings, so that C is decomposed only once.

    Args:
        values: (p,) eigenvalues ≥ 0, in any order.
        vectors: (p, p) orthonormal columns; None for a diagonal covariance.
    """

    values: Numbers
    vectors: Numbers = None

    def __post_init__(self) -> None:
        values = validate.at_least("values", self.values, 0.0)
        if values.ndim != 1 or not values.size:
            raise ValueError(f"values must have shape (p,), got {values.shape}")
        if self.vectors is not None:
            vectors = validate.finite("vectors", self.vectors)
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
        values, vectors = np.linalg.eigh(array)
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
    array = validate.finite(name, covariance)
    if array.ndim == 1 and array.size:
        return validate.at_least(name, array, 0.0)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise ValueError(f"{name} must be a (p, p) matrix, a (p,) diagonal or a Spectrum, got shape {array.shape}")
    if not np.allclose(array, array.T, rtol=1e-8, atol=1e-10 * np.abs(array).max()):
        raise ValueError(f"{name} must be symmetric; average it with its transpose")
    return array


def check_dimension(name: str, covariance: Any, p: int, other: str = "mean") -> None:
    """A valid covariance of dimension ``p``, the dimension of ``other``."""
    size = covariance.p if isinstance(covariance, Spectrum) else len(check_covariance(name, covariance))
    if size != p:
        raise ValueError(f"{name} is {size}-dimensional, but {other} has length {p}; they must agree")


def check_mean(name: str, mean: Any) -> FloatArray:
    """A (p,) array of finite numbers."""
    array = validate.finite(name, mean)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must be a vector of shape (p,), got shape {array.shape}")
    return array


@dataclass(frozen=True, kw_only=True, eq=False)
class RidgeSource(Comparable):
    """Source weights that a ridge classifier learns from samples of the source task (theory.md §3).

    Args:
        mean: (p,) μ, the mean of the signed source samples.
        covariance: their noise: (p, p) matrix, (p,) diagonal, or :class:`Spectrum`.
        N: source samples (``math.inf`` allowed). gamma: ridge penalty γ̃ of the mean squared loss. One number each.
        label_noise: probability that a source training label is flipped.
    """

    mean: Numbers
    covariance: Any
    N: float
    gamma: float
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        mean = check_mean("mean of the source", self.mean)
        check_dimension("covariance of the source", self.covariance, mean.size)
        numbers = {
            "N": validate.count("N", self.N, infinite=True),
            "gamma of the source": validate.at_least("gamma of the source", self.gamma, 0.0),
            "label_noise of the source": flip_probability("label_noise of the source", self.label_noise),
        }
        for name, array in numbers.items():
            if array.ndim:
                raise ValueError(f"{name} must be one number, got shape {array.shape}; make one setting for each")

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigendecomposition of the source covariance."""
        return Spectrum.of(self.covariance, name="covariance of the source")

    @cached_property
    def law(self) -> tuple[FloatArray, FloatArray]:
        """Mean q̃ (p,) of the learned weights, and the eigenvalues (p,) of their covariance Ω, in C̃'s eigenbasis.

        q̃ = ẽH̃μ and Ω = (ẽ² + 1 − κ̃² + σ̃²)/N · H̃C̃H̃ with ẽ = κ̃/(1 + μᵀH̃μ).
        """
        values = np.asarray(self.spectrum.values, dtype=float)
        mean = self.spectrum.rotate(self.mean)
        r = spectral(values, self.N, self.gamma)
        inverse = inverse_of(values, r.theta, "gamma of the source")
        kappa = 1.0 - 2.0 * self.label_noise
        residual = kappa / (1.0 + np.sum(mean**2 * inverse))
        weights = residual * inverse * mean
        spread = residual**2 + (1.0 - kappa) * (1.0 + kappa)
        variance = (np.sum(values * weights**2) + spread * r.excess) / r.h
        return weights, (spread + variance) / self.N * inverse**2 * values


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianTransfer(Comparable):
    """Target samples ``y·mean + C^{1/2}z`` and frozen sources, in explicit coordinates (theory.md §3).

    Args:
        n: target samples. gamma: ridge penalty of the mean squared loss. label_noise: probability of a flipped
            target training label. These three broadcast; everything else is one object.
        mean: (p,) target mean m.
        covariance: C as (p, p) matrix, (p,) diagonal, or :class:`Spectrum` (share it between settings to decompose
            once).
        source: ``FixedSource(vector=w)`` or :class:`RidgeSource` (α is a scalar), or a sequence of K of them (α has
            a last axis of length K). Random sources are independent of each other.

    Raises:
        ValueError: shapes that differ, values out of range, or a source that is known by its norms only.
    """

    n: Numbers
    gamma: Numbers
    mean: Numbers
    covariance: Any
    source: FixedSource | RidgeSource | Sequence[FixedSource | RidgeSource]
    label_noise: Numbers = 0.0

    def __post_init__(self) -> None:
        n = validate.count("n", self.n)
        gamma = validate.at_least("gamma", self.gamma, 0.0)
        noise = flip_probability("label_noise", self.label_noise)
        mean = check_mean("mean", self.mean)
        check_dimension("covariance", self.covariance, mean.size)
        if isinstance(self.source, list):
            object.__setattr__(self, "source", tuple(self.source))
        check_sources(self.sources, mean.size)
        object.__setattr__(self, "_shape", validate.broadcast(n=n, gamma=gamma, label_noise=noise))

    @property
    def shape(self) -> tuple[int, ...]:
        """Broadcast shape of n, gamma and label_noise."""
        return self._shape

    @property
    def p(self) -> int:
        """Dimension."""
        return int(np.size(self.mean))

    @property
    def sources(self) -> tuple[FixedSource | RidgeSource, ...]:
        """The sources as a tuple."""
        return self.source if isinstance(self.source, tuple) else (self.source,)

    @property
    def source_count(self) -> int | None:
        """K when α has a trailing axis of length K; None when α is a scalar."""
        return len(self.sources) if isinstance(self.source, tuple) else None

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigendecomposition of the covariance, made when first needed."""
        return Spectrum.of(self.covariance)

    @cached_property
    def in_eigenbasis(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Target mean (p,), mean weights of the sources (K, p), and their variances (K, p), in C's eigenbasis."""
        weights, spread = source_laws(self.sources, self.spectrum)
        return self.spectrum.rotate(self.mean), weights, spread


def with_penalty(setting: GaussianTransfer, penalty: Any) -> GaussianTransfer:
    """``setting`` with the penalty γ·aᵀΓa on the adapter, in coordinates where it is γ‖a‖² (theory.md §3).

    (m, C, w̃) → (Γ^{-1/2}m, Γ^{-1/2}CΓ^{-1/2}, Γ^{1/2}w̃): scores, and so accuracies, are those of the original.

    Args:
        setting: with fixed sources. penalty: Γ as (p, p) matrix, (p,) diagonal, or :class:`Spectrum`, all of its
            eigenvalues > 0.
    """
    check_dimension("penalty", penalty, setting.p)
    if any(isinstance(source, RidgeSource) for source in setting.sources):
        raise ValueError("with_penalty takes fixed sources; give FixedSource(vector=w) with the learned weights")
    form = Spectrum.of(penalty, name="penalty")
    values = np.asarray(form.values, dtype=float)
    if not (values > 0).all():
        raise ValueError("penalty must be positive definite: without a penalty the adapter is not defined everywhere")
    inverse = Spectrum(1.0 / values, form.vectors)
    sources = tuple(FixedSource(vector=form.colour(np.asarray(source.vector))) for source in setting.sources)  # type: ignore[union-attr]
    diagonal = form.vectors is None and setting.spectrum.vectors is None
    return replace(
        setting,
        mean=inverse.colour(np.asarray(setting.mean, dtype=float)),
        covariance=np.asarray(setting.spectrum.values) / values
        if diagonal
        else inverse.colour(inverse.colour(setting.spectrum.dense()).T),
        source=sources if setting.source_count is not None else sources[0],
    )


def check_sources(sources: Any, p: int) -> None:
    """Every source must be given in coordinates and have dimension ``p``."""
    if not sources:
        raise ValueError("source must hold at least one source; FixedSource(vector=numpy.zeros(p)) is 'no source'")
    for source in sources:
        if isinstance(source, FixedSource):
            if source.vector is None:
                raise ValueError("source is known by its norms only; give FixedSource(vector=w)")
            length = np.size(source.vector)
        elif isinstance(source, RidgeSource):
            length = np.size(source.mean)
        else:
            raise ValueError(f"source must be FixedSource(vector=…) or RidgeSource(…), got {type(source).__name__}")
        if length != p:
            raise ValueError(f"source has length {length}, but mean has length {p}; they must agree")


def source_laws(sources: Sequence[FixedSource | RidgeSource], spectrum: Spectrum) -> tuple[FloatArray, FloatArray]:
    """Mean weights (K, p) of the sources and the diagonals (K, p) of their covariances, in ``spectrum``'s basis."""
    weights, spread = np.zeros((2, len(sources), spectrum.p))
    for k, source in enumerate(sources):
        if isinstance(source, FixedSource):
            weights[k] = spectrum.rotate(source.vector)
            continue
        own, variances = source.law
        basis = source.spectrum
        weights[k] = spectrum.rotate(basis.restore(own))
        spread[k] = spectrum.diagonal_of(basis, variances)
    return weights, spread


def inverse_of(values: FloatArray, theta: FloatArray, gamma_name: str) -> FloatArray:
    """Eigenvalues of H = (θ + C)⁻¹, (…, p)."""
    shifted = np.asarray(theta)[..., None] + values
    if (shifted == 0).any():
        raise ValueError(f"{gamma_name} = 0 with a singular covariance leaves H undefined; give {gamma_name} > 0")
    return 1.0 / shifted


class GaussianScore(QuadraticScore):
    """The score for noise of covariance C and the square loss (theory.md §3).

    Attributes:
        setting: what it was computed from.
        overlap: (K,) g = mᵀq̃. source_variance: (K,) E w̃ᵀCw̃, the variance of each source's own score.
    """

    def __init__(self, setting: GaussianTransfer) -> None:
        self.setting = setting
        values = np.asarray(setting.spectrum.values, dtype=float)
        mean, weights, spread = setting.in_eigenbasis
        self.overlap = weights @ mean
        self.source_variance = (weights**2 + spread) @ values
        count, shape = len(weights), setting.shape
        n, gamma, noise = (
            np.broadcast_to(np.asarray(x, dtype=float), shape).ravel()
            for x in (setting.n, setting.gamma, setting.label_noise)
        )
        pairs = (weights[:, None, :] * weights[None, :, :]).reshape(-1, values.size)
        pairs[:: count + 1] += spread  # the diagonal pairs carry the sources' own noise
        linear = np.stack([mean**2, *(mean * weights)])  # for A and B
        forms = values * np.concatenate([linear, pairs])  # for mᵀHCHm, W̃ᵀHCHm, W̃ᵀHCHW̃
        c, V = np.empty((n.size, count + 1)), np.empty((n.size, count + 1, count + 1))
        step = max(1, BLOCK // values.size)
        for start in range(0, n.size, step):
            part = slice(start, start + step)
            r = spectral(values, n[part], gamma[part])
            inverse = inverse_of(values, r.theta, "gamma")
            first, second = inverse @ linear.T, inverse**2 @ forms.T
            theta = r.theta[:, None]
            c[part], V[part] = assemble(
                gain=first[:, 0],
                pull=theta * first[:, 1:],
                mean_form=second[:, 0],
                cross_form=theta * second[:, 1 : count + 1],
                source_form=(theta**2 * second[:, count + 1 :]).reshape(-1, count, count),
                h=r.h,
                excess=r.excess,
                kappa=1.0 - 2.0 * noise[part],
            )
        vector_alpha = setting.source_count is not None
        super().__init__(
            c.reshape(*shape, count + 1), V.reshape(*shape, count + 1, count + 1), vector_alpha=vector_alpha
        )

    @property
    def accuracy_source_only(self) -> FloatArray:
        """Φ(g/√E w̃ᵀCw̃): the source used on the target as it is; (K,) for a sequence of sources."""
        accuracy = ndtr(ratio(self.overlap, np.sqrt(self.source_variance)))
        return accuracy if self.vector_alpha else accuracy[0]
