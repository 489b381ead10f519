"""Settings in coordinates: noise of any covariance, means as vectors, one or several sources (theory.md §3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt.resolvent import inverse_of, spectral
from rmt.settings.isotropic import Comparable, FixedSource, Numbers, flip_probability
from rmt.settings.spectrum import Spectrum, check_dimension


def check_mean(name: str, mean: Any) -> FloatArray:
    """A (p,) array of finite numbers."""
    array = _checks.finite(name, mean, largest=_checks.LARGEST)
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

    >>> import rmt
    >>> source = rmt.RidgeSource(mean=[1.0, 0.0], covariance=[1.0, 1.0], N=200, gamma=0.5)
    >>> setting = rmt.GaussianTransfer(n=20, gamma=0.5, mean=[0.8, 0.4], covariance=[1.0, 1.0], source=source)
    >>> round(float(rmt.theory(setting).alpha_star), 3)
    1.237
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
            "N": _checks.count("N", self.N, infinite=True),
            "gamma of the source": _checks.penalty("gamma of the source", self.gamma),
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

    >>> import rmt
    >>> setting = rmt.GaussianTransfer(
    ...     n=50,
    ...     gamma=0.5,
    ...     mean=[1.0, 0.5],
    ...     covariance=[[1.0, 0.3], [0.3, 2.0]],
    ...     source=rmt.FixedSource(vector=[0.6, 0.1]),
    ... )
    >>> round(float(rmt.theory(setting).accuracy(1.0)), 4)
    0.8393
    """

    n: Numbers
    gamma: Numbers
    mean: Numbers
    covariance: Any
    source: FixedSource | RidgeSource | Sequence[FixedSource | RidgeSource]
    label_noise: Numbers = 0.0

    def __post_init__(self) -> None:
        n = _checks.count("n", self.n)
        gamma = _checks.penalty("gamma", self.gamma)
        noise = flip_probability("label_noise", self.label_noise)
        mean = check_mean("mean", self.mean)
        check_dimension("covariance", self.covariance, mean.size)
        if isinstance(self.source, list):
            object.__setattr__(self, "source", tuple(self.source))
        check_sources(self.sources, mean.size)
        object.__setattr__(self, "_shape", _checks.broadcast(n=n, gamma=gamma, label_noise=noise))

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

    >>> import rmt
    >>> setting = rmt.GaussianTransfer(
    ...     n=50,
    ...     gamma=0.5,
    ...     mean=[1.0, 0.5],
    ...     covariance=[[1.0, 0.3], [0.3, 2.0]],
    ...     source=rmt.FixedSource(vector=[0.6, 0.1]),
    ... )
    >>> rmt.with_penalty(setting, [1.0, 4.0]).gamma == setting.gamma
    True
    """
    _checks.of_type("setting", setting, GaussianTransfer)
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
