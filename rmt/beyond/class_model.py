"""What a setting of classes gives the fixed point: traces and quadratic forms of D = (γ + Σπ_qτ_qC_q)⁻¹.

Where the covariances have a common eigenbasis (all diagonal, all equal, all multiples of one, …) D is diagonal there
and a point costs O(pQ²); otherwise a matrix is inverted at each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rmt._checks import FloatArray
from rmt.settings.classes import ClassTransfer
from rmt.settings.gaussian import RidgeSource, source_laws
from rmt.settings.isotropic import FixedSource
from rmt.settings.spectrum import Spectrum

Sources = tuple[FixedSource | RidgeSource, ...]

#: Off-diagonal part, relative to the matrix, up to which covariances count as diagonal in a common basis.
_COMMON = 1e-10


@dataclass(frozen=True)
class Components:
    """The Gaussian components of the training data; flipped labels make a second set, of the opposite label."""

    labels: FloatArray  #: (Q,) label in the training set
    shares: FloatArray  #: (Q,) share of the training set
    tested: FloatArray  #: (Q,) share of the test set: 0 for flipped labels
    signed: FloatArray  #: (Q, p) label × mean
    spectra: tuple[Spectrum, ...]  #: Q covariances

    @classmethod
    def of(cls, setting: ClassTransfer) -> Components:
        """The components of ``setting``."""
        labels, shares, flips = np.asarray(setting.labels, dtype=float), setting.shares, float(setting.label_noise)
        signed, spectra, tested = labels[:, None] * np.asarray(setting.means, dtype=float), setting.spectra, shares
        if flips:
            labels, signed = np.concatenate([labels, -labels]), np.concatenate([signed, -signed])
            tested = np.concatenate([shares, np.zeros_like(shares)])
            shares, spectra = np.concatenate([(1.0 - flips) * shares, flips * shares]), spectra * 2
        return cls(labels, shares, tested, signed, spectra)


@dataclass(frozen=True)
class Resolved:
    """Numbers of one D a point; of the S + Q indices the first stand for γw̃ (S = 1 sources), then q for π_qm_q."""

    kappa: FloatArray  #: (P, Q) tr C_qD/n
    means: FloatArray  #: (P, Q, S + Q) m_qᵀD(γw̃, π_dm_d)
    forms: FloatArray  #: (P, Q, S + Q, S + Q) quadratic forms of D(γw̃, π_dm_d) in C_q
    spread: FloatArray  #: (P, Q, Q) π_d tr C_qDC_dD/n


class Resolver(Protocol):
    """(n, γ, τ) of P points, (P,), (P,), (P, Q) → :class:`Resolved`."""

    spread_of_source: FloatArray  #: (Q,) E w̃ᵀC_qw̃ of the first source

    def __call__(self, n: FloatArray, gamma: FloatArray, tau: FloatArray) -> Resolved:
        """The numbers of these points."""


def resolver(parts: Components, *sources: FixedSource | RidgeSource) -> Resolver:
    """The cheapest resolver that the covariances allow."""
    basis = common_basis(parts.spectra)
    return _Dense(parts, sources) if basis is None else _Common(parts, sources, *basis)


def common_basis(spectra: tuple[Spectrum, ...]) -> tuple[Spectrum, FloatArray] | None:
    """A basis in which every covariance is diagonal, and their eigenvalues (Q, p) there; None if there is none."""
    distinct = list({id(one): one for one in spectra}.values())
    if all(one.vectors is None for one in distinct) or len(distinct) == 1:
        basis = distinct[0]
    else:
        # A mixture with weights that no two sums share separates what one of them leaves degenerate.
        weights = np.sqrt(np.arange(2, 2 + len(distinct)))
        dense = [one.dense() for one in distinct]
        basis = Spectrum.of(sum(weight * form for weight, form in zip(weights, dense, strict=True)))
        vectors = np.asarray(basis.vectors)
        for form in dense:
            rotated = vectors.T @ form @ vectors
            if np.abs(rotated - np.diag(np.diag(rotated))).max() > _COMMON * np.abs(form).max():
                return None
    values = {id(one): basis.diagonal_of(one, np.asarray(one.values, dtype=float)) for one in distinct}
    return basis, np.stack([values[id(one)] for one in spectra])


class _Common:
    """Covariances diagonal in one basis: sums over eigenvalues."""

    def __init__(self, parts: Components, sources: Sources, basis: Spectrum, values: FloatArray) -> None:
        weights, noise = source_laws(sources, basis)  # (S, p) each
        signed = basis.rotate(parts.signed)
        pulls = np.vstack([weights, parts.shares[:, None] * signed])  # (S + Q, p)
        self.values, self.shares, self.count = values, parts.shares, len(values)
        self.sources = len(weights)
        self.spread_of_source = values @ (weights**2 + noise)[0]
        size = values.shape[1]
        self.linear = (signed[:, None] * pulls).reshape(-1, size).T
        forms = values[:, None, None] * (pulls[:, None] * pulls)
        for k, own in enumerate(noise):
            forms[:, k, k] += values * own
        self.quadratic = forms.reshape(-1, size).T
        self.products = (values[:, None] * values).reshape(-1, size).T

    def __call__(self, n: FloatArray, gamma: FloatArray, tau: FloatArray) -> Resolved:
        """See :class:`Resolver`."""
        points, count, width = len(tau), self.count, self.sources + self.count
        inverse = 1.0 / (gamma[:, None] + (tau * self.shares) @ self.values)  # (P, p) eigenvalues of D
        squared = inverse**2
        means = (inverse @ self.linear).reshape(points, count, width)
        forms = (squared @ self.quadratic).reshape(points, count, width, width)
        spread = (squared @ self.products).reshape(points, count, count) * self.shares / n[:, None, None]
        return _scaled(inverse @ self.values.T / n[:, None], means, forms, spread, gamma, self.sources)


class _Dense:
    """Any covariances: one inverse a point."""

    def __init__(self, parts: Components, sources: Sources) -> None:
        size = parts.signed.shape[1]
        self.distinct = list({id(one): one for one in parts.spectra}.values())
        place = {id(one): index for index, one in enumerate(self.distinct)}
        self.which = np.array([place[id(one)] for one in parts.spectra])  # (Q,) its covariance of each component
        self.forms = np.stack([one.dense() for one in self.distinct])  # (U, p, p)
        self.signed, self.shares = parts.signed, parts.shares
        self.noise: dict[int, FloatArray] = {}  # covariances Ω of the sources that have one
        weights = np.empty((len(sources), size))
        for k, source in enumerate(sources):
            if isinstance(source, FixedSource):
                weights[k] = source.vector
            else:
                own, variances = source.law
                weights[k] = source.spectrum.restore(own)
                self.noise[k] = Spectrum(variances, source.spectrum.vectors).dense()
        self.sources = len(sources)
        self.pulls = np.vstack([weights, parts.shares[:, None] * parts.signed]).T  # (p, S + Q)
        spread = (weights[0] @ self.forms) @ weights[0]
        if 0 in self.noise:
            spread = spread + np.sum(self.forms * self.noise[0], axis=(1, 2))
        self.spread_of_source = spread[self.which]

    def __call__(self, n: FloatArray, gamma: FloatArray, tau: FloatArray) -> Resolved:
        """See :class:`Resolver`."""
        found = [self._one(*point) for point in zip(n, gamma, tau, strict=True)]
        kappa, means, forms, spread = (np.stack(part) for part in zip(*found, strict=True))
        return _scaled(kappa, means, forms, spread, gamma, self.sources)

    def _one(self, n: float, gamma: float, tau: FloatArray) -> tuple[FloatArray, ...]:
        weights = np.bincount(self.which, self.shares * tau)
        inverse = _inverse(gamma * np.eye(len(self.pulls)) + np.tensordot(weights, self.forms, 1))
        seen = [  # DC of each distinct covariance
            inverse * np.asarray(one.values) if one.vectors is None else inverse @ form
            for one, form in zip(self.distinct, self.forms, strict=True)
        ]
        pulled = inverse @ self.pulls
        forms = pulled.T @ self.forms @ pulled
        for k, noise in self.noise.items():
            forms[:, k, k] += [np.sum((one @ inverse) * noise) for one in seen]
        traces = np.array([[np.sum(one * other.T) for other in seen] for one in seen])
        spread = traces[self.which[:, None], self.which] * self.shares / n  # tr C_cDπ_dC_dD/n
        kappa = np.array([np.trace(one) for one in seen]) / n
        return kappa[self.which], self.signed @ pulled, forms[self.which], spread


def _inverse(form: FloatArray) -> FloatArray:
    """The inverse of a positive definite matrix, from its Cholesky factor."""
    from scipy.linalg.lapack import dpotrf, dpotri

    factor, failed = dpotrf(form, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError("γ + Σπτ C is not positive definite")
    lower, _ = dpotri(factor, lower=1)
    return lower + np.tril(lower, -1).T


def _scaled(
    kappa: FloatArray, means: FloatArray, forms: FloatArray, spread: FloatArray, gamma: FloatArray, sources: int
) -> Resolved:
    """The first indices are those of w̃ so far, and become those of γw̃."""
    means[..., :sources] *= gamma[:, None, None]
    forms[..., :sources, :] *= gamma[:, None, None, None]
    forms[..., :, :sources] *= gamma[:, None, None, None]
    return Resolved(kappa, means, forms, spread)
