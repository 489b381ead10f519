"""Direct simulation of every setting and loss: draw samples, fit at each α, measure the fit exactly.

Where :func:`rmt.simulate` is fast because square loss and ridge are linear, this fits adapters of any loss, in any
subspace, with an intercept, by Newton's method on many draws at once. It shares no formula with the theory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.special import ndtr

from rmt import _checks
from rmt._checks import FloatArray
from rmt._parallel import stream
from rmt.scores.estimates import ALLOWANCE, Comparison, Estimate, mean_estimate
from rmt.scores.score import Score
from rmt.scores.solved import ConvergenceError
from rmt.settings.classes import ClassTransfer
from rmt.settings.elliptical import EllipticalTransfer
from rmt.settings.filters import FilteredTransfer, PrincipalComponents
from rmt.settings.gaussian import GaussianTransfer, RidgeSource
from rmt.settings.isotropic import FixedSource, Transfer
from rmt.settings.losses import SQUARE, Loss, find_loss
from rmt.settings.spectrum import Spectrum
from rmt.settings.subspace import SubspaceTransfer

#: Draws are fitted in blocks of about this many numbers of training data.
_BLOCK = 2**21
_MAX_NEWTON = 100


@dataclass(frozen=True)
class FitSimulation:
    """What independent fits give at each α: (D, A) mean, variance and accuracy of the score of a fresh point."""

    alpha: FloatArray  #: (A,)
    means: FloatArray
    variances: FloatArray
    accuracies: FloatArray
    p: int

    @property
    def mean(self) -> Estimate:
        """(A,) mean score."""
        return mean_estimate(self.means)

    @property
    def variance(self) -> Estimate:
        """(A,) score variance."""
        return mean_estimate(self.variances)

    @property
    def accuracy(self) -> Estimate:
        """(A,) accuracy."""
        return mean_estimate(self.accuracies)

    def compare(self, score: Score, *, allowance: float = ALLOWANCE) -> Comparison:
        """z-scores against ``score``, after the finite-size allowance of :meth:`rmt.Simulation.compare`."""
        theory, simulated, raw, z = {}, {}, {}, {}
        for name in ("mean", "variance", "accuracy"):
            expected, estimate = np.asarray(getattr(score, name)(self.alpha)), getattr(self, name)
            scale = 0.2 if name == "accuracy" else np.abs(expected)
            theory[name], simulated[name] = expected, estimate
            raw[name], z[name] = estimate.z(expected), estimate.z(expected, allowance / self.p * scale)
        return Comparison(tuple(theory), self.alpha, theory, simulated, raw, z)


def simulate_fits(setting: Any, alpha: ArrayLike, draws: int, seed: int = 0, *, loss: Any = "square") -> FitSimulation:
    """Fit adapters on ``draws`` independent samples of ``setting`` at each scale.

    Args:
        setting: one scalar setting with one source: :class:`rmt.Transfer`, :class:`rmt.GaussianTransfer`,
            :class:`rmt.ClassTransfer`, :class:`rmt.EllipticalTransfer`, :class:`rmt.SubspaceTransfer` or
            :class:`rmt.FilteredTransfer`.
        alpha: scales (A,). draws: number of samples. seed: same seed, same numbers.
        loss: as in :func:`rmt.theory`.

    Raises:
        ValueError: arrays of settings, several sources, or γ = 0.
    """
    alpha = np.atleast_1d(_checks.finite("alpha", alpha))
    draws, loss = _checks.whole("draws", draws), find_loss(loss)
    if setting.shape:
        raise ValueError(f"simulate_fits takes one setting, got arrays of shape {setting.shape}")
    model = _model_of(setting)
    block = max(1, _BLOCK // (model.n * model.p))
    parts = []
    for index, start in enumerate(range(0, draws, block)):
        parts.append(model.block(stream(seed, index), min(block, draws - start), alpha, loss))
    means, variances, accuracies = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return FitSimulation(alpha=alpha, means=means, variances=variances, accuracies=accuracies, p=model.p)


def explicit(setting: Transfer) -> GaussianTransfer:
    """The scalar isotropic ``setting`` in coordinates: m and the source lie along the first axes."""
    p, m2 = int(setting.p), float(setting.m2)
    mean, other = np.zeros((2, p))
    mean[0] = np.sqrt(m2)
    flat = Spectrum(np.ones(p))
    source: FixedSource | RidgeSource
    if setting.source is not None:
        if setting.source_count is not None:
            raise ValueError("several sources are simulated by rmt.simulate; simulate_fits takes one source")
        other[0] = float(setting.source.overlap) / mean[0]
        other[1] = np.sqrt(max(float(setting.source.norm2) - other[0] ** 2, 0.0))
        source = FixedSource(vector=other)
    else:
        mu, beta = float(setting.mu), float(setting.beta)
        other[0] = beta * mu**2 / mean[0]  # ⟨m, μ⟩ = βμ²
        other[1] = np.sqrt(max(mu**2 - other[0] ** 2, 0.0))
        source = RidgeSource(
            mean=other,
            covariance=flat,
            N=float(setting.N),
            gamma=float(setting.gamma_source),
            label_noise=float(setting.label_noise_source),
        )
    return GaussianTransfer(
        n=int(setting.n),
        gamma=float(setting.gamma),
        mean=mean,
        covariance=flat,
        source=source,
        label_noise=float(setting.label_noise),
    )


@dataclass(frozen=True)
class _Class:
    """One Gaussian component of the signed data."""

    mean: FloatArray  # (p,)
    spectrum: Spectrum
    label: float
    proportion: float


@dataclass(frozen=True)
class _Model:
    """A setting reduced to what is drawn and how it is fitted."""

    n: int
    gamma: float
    classes: tuple[_Class, ...]
    source: FixedSource | RidgeSource
    label_noise: float = 0.0
    intercept: bool = False
    scales: Callable[[Generator, tuple[int, ...]], FloatArray] | None = None  # draws t of elliptical noise
    law: tuple[FloatArray, FloatArray] | None = None  # the same law, to average the accuracy over
    rank: int | None = None
    basis: FloatArray | None = None
    filter: Any = None

    @property
    def p(self) -> int:
        return self.classes[0].mean.size

    def block(
        self, rng: Generator, draws: int, alpha: FloatArray, loss: Loss
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(D, A) means, variances and accuracies of ``draws`` fits."""
        samples, labels = self._samples(rng, draws)
        source = self._sources(rng, draws)
        fit: Callable[[float], tuple[FloatArray, FloatArray]]
        if self.filter is not None:
            fit = _Filtered(samples, source, self.filter, self.gamma)
        else:
            basis = self._bases(rng, draws)
            fit = _Newton(samples, labels if self.intercept else None, source, basis, self.gamma, loss)
        if loss is SQUARE:  # weights are affine in α: two fits give them all
            (w0, b0), (w1, b1) = fit(0.0), fit(1.0)
            fits = [(w0 + a * (w1 - w0), b0 + a * (b1 - b0)) for a in alpha]
        else:
            fits = [fit(float(a)) for a in alpha]
        measured = [self._measure(weights, offset) for weights, offset in fits]
        means, variances, accuracies = (np.stack([one[i] for one in measured], axis=1) for i in range(3))
        return means, variances, accuracies

    def _samples(self, rng: Generator, draws: int) -> tuple[FloatArray, FloatArray]:
        """Signed samples u = yx (D, n, p) and labels y (D, n), as the training set has them."""
        kinds = rng.choice(len(self.classes), size=(draws, self.n), p=[one.proportion for one in self.classes])
        samples = rng.standard_normal((draws, self.n, self.p))
        for index, one in enumerate(self.classes):
            rows = kinds == index
            samples[rows] = one.spectrum.colour(samples[rows])
        if self.scales is not None:
            samples *= np.sqrt(self.scales(rng, (draws, self.n)))[..., None]
        samples += np.stack([one.mean for one in self.classes])[kinds]
        labels = np.array([one.label for one in self.classes])[kinds]
        if self.label_noise:
            flips = np.where(rng.random((draws, self.n)) < self.label_noise, -1.0, 1.0)
            samples, labels = samples * flips[..., None], labels * flips
        return samples, labels

    def _sources(self, rng: Generator, draws: int) -> FloatArray:
        """(D, p) source weights; those of a ridge source are fitted anew in every draw."""
        if isinstance(self.source, FixedSource):
            return np.broadcast_to(np.asarray(self.source.vector, dtype=float), (draws, self.p))
        source = self.source
        if np.isinf(source.N):
            weights, _ = source.law
            return np.broadcast_to(source.spectrum.restore(weights), (draws, self.p))
        fitted = np.empty((draws, self.p))
        for draw in range(draws):
            samples = source.spectrum.colour(rng.standard_normal((int(source.N), self.p))) + np.asarray(source.mean)
            samples *= np.where(rng.random((len(samples), 1)) < source.label_noise, -1.0, 1.0)
            form = samples.T @ samples / len(samples) + source.gamma * np.eye(self.p)
            fitted[draw] = np.linalg.solve(form, samples.mean(axis=0))
        return fitted

    def _bases(self, rng: Generator, draws: int) -> FloatArray | None:
        """(D, p, r) or (p, r) basis of the adapter's subspace; None for the whole space."""
        if self.rank is not None:
            return np.linalg.qr(rng.standard_normal((draws, self.p, self.rank)))[0]
        return self.basis

    def _measure(self, weights: FloatArray, offset: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean, variance and accuracy of the margin y(wᵀx + b) of a fresh point, (D,) each, exact given the fit."""
        proportions = np.array([one.proportion for one in self.classes])
        means = np.stack([weights @ one.mean + one.label * offset for one in self.classes], axis=-1)
        variances = np.stack([np.sum(one.spectrum.colour(weights) ** 2, axis=-1) for one in self.classes], axis=-1)
        ratio = means / np.sqrt(variances)
        if self.law is None:
            accuracies = ndtr(ratio)
        else:
            scales, probabilities = self.law
            accuracies = ndtr(ratio[..., None] / np.sqrt(scales)) @ probabilities
        mean = means @ proportions
        variance = (variances + (means - mean[:, None]) ** 2) @ proportions
        return mean, variance, accuracies @ proportions


class _Newton:
    """Minimise (1/n)Σℓ(u_iᵀ(αw̃ + Ub) + y_ib₀) + (γ/2)|b|² over b and, with ``labels``, b₀, on D draws at once.

    (For the square loss ½(1 − x)² that is the ridge problem of theory.md §0 at the same γ.)
    """

    def __init__(
        self,
        samples: FloatArray,
        labels: FloatArray | None,
        source: FloatArray,
        basis: FloatArray | None,
        gamma: float,
        loss: Loss,
    ) -> None:
        if gamma <= 0:
            raise ValueError("gamma must be > 0 in simulate_fits")
        self.loss, self.gamma, self.source, self.basis = loss, gamma, source, basis
        self.offsets = np.einsum("dnp,dp->dn", samples, source)
        features = samples if basis is None else samples @ basis  # (D, n, r)
        self.back: FloatArray | None = None
        if features.shape[2] > features.shape[1]:  # b lies in the span of the n samples: work there
            self.back, triangle = np.linalg.qr(features.mT)
            features = triangle.mT
        self.penalty = np.full(features.shape[2] + (labels is not None), gamma)
        if labels is not None:
            features = np.concatenate([features, labels[..., None]], axis=2)
            self.penalty[-1] = 0.0
        self.has_intercept = labels is not None
        self.features = features

    def _gradient(self, alpha: float, b: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gradient (D, r) at ``b``, and the margins (D, n)."""
        margins = alpha * self.offsets + np.einsum("dnr,dr->dn", self.features, b)
        slope = self.loss.slopes(margins)[0] / margins.shape[1]
        return np.einsum("dnr,dn->dr", self.features, slope) + self.penalty * b, margins

    def __call__(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """Weights (D, p) and intercepts (D,) at ``alpha``."""
        b = np.zeros((self.features.shape[0], self.features.shape[2]))
        gradient, margins = self._gradient(alpha, b)
        goal = 1e-10 * (1.0 + np.abs(gradient).max())
        for _ in range(_MAX_NEWTON):
            if np.abs(gradient).max() <= goal:
                break
            curvature = self.loss.slopes(margins)[1] / margins.shape[1]
            hessian = (self.features.mT * curvature[:, None, :]) @ self.features
            hessian += np.diag(self.penalty + 1e-12)
            step = -np.linalg.solve(hessian, gradient[..., None])[..., 0]
            descent = np.sum(gradient * step, axis=1)
            length = np.ones(len(b))
            for _ in range(30):  # halve where the step passes the minimum along its line by too much
                candidate = b + length[:, None] * step
                gradient, margins = self._gradient(alpha, candidate)
                over = np.sum(gradient * step, axis=1) > 0.5 * np.abs(descent)
                if not over.any():
                    break
                length[over] *= 0.5
            b = candidate
        else:
            raise ConvergenceError(f"an adapter was not fitted in {_MAX_NEWTON} Newton steps at alpha = {alpha:g}")
        offset = b[:, -1] if self.has_intercept else np.zeros(len(b))
        b = b[:, : b.shape[1] - self.has_intercept]
        if self.back is not None:
            b = np.einsum("dri,di->dr", self.back, b)
        if self.basis is not None:
            b = np.einsum("...pr,...r->...p", self.basis, b)
        return alpha * self.source + b, offset


class _Filtered:
    """w = φ(S)ū + α(1 − Sφ(S))w̃ from the eigendecomposition of S."""

    def __init__(self, samples: FloatArray, source: FloatArray, law: Any, gamma: float) -> None:
        count = samples.shape[1]
        values, vectors = np.linalg.eigh(samples.mT @ samples / count)
        values = np.maximum(values, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            phi = np.real(law(values.astype(complex), gamma))
        if isinstance(law, PrincipalComponents):
            keep = values > law.cut if law.cut is not None else self._leading(values, law)
            phi = np.where(keep, phi, 0.0)
        phi = np.where(np.isfinite(phi), phi, 0.0)  # ū and Sw̃ have no part where S = 0
        self.vectors, self.kept = vectors, 1.0 - values * phi
        self.target = phi * np.einsum("dpj,dp->dj", vectors, samples.mean(axis=1))
        self.source = self.kept * np.einsum("dpj,dp->dj", vectors, source)

    @staticmethod
    def _leading(values: FloatArray, law: PrincipalComponents) -> FloatArray:
        size = values.shape[1]
        rank = int(np.round(float(law.fraction or 0.0) * size))
        return np.broadcast_to(np.arange(size) >= size - rank, values.shape)

    def __call__(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """Weights (D, p) and zero intercepts (D,)."""
        weights = np.einsum("dpj,dj->dp", self.vectors, self.target + alpha * self.source)
        return weights, np.zeros(len(weights))


def _model_of(setting: Any) -> _Model:
    """The model behind a setting of any type."""
    if isinstance(setting, Transfer):
        return _model_of(explicit(setting))
    if isinstance(setting, GaussianTransfer):
        if setting.source_count is not None:
            raise ValueError("simulate_fits takes one source, given plainly, not a sequence")
        only = _Class(np.asarray(setting.mean, dtype=float), setting.spectrum, 1.0, 1.0)
        return _Model(
            n=int(setting.n),
            gamma=float(setting.gamma),
            classes=(only,),
            source=setting.sources[0],
            label_noise=float(setting.label_noise),
        )
    if isinstance(setting, ClassTransfer):
        labels, means = np.asarray(setting.labels, dtype=float), np.asarray(setting.means, dtype=float)
        classes = tuple(
            _Class(label * mean, spectrum, float(label), float(weight))
            for label, mean, spectrum, weight in zip(labels, means, setting.spectra, setting.shares, strict=True)
        )
        return _Model(
            n=int(setting.n),
            gamma=float(setting.gamma),
            classes=classes,
            source=setting.source,
            intercept=setting.intercept,
            label_noise=float(setting.label_noise),
        )
    if isinstance(setting, EllipticalTransfer):
        return _with(_model_of(setting.base), scales=_scale_sampler(setting), law=setting.law)
    if isinstance(setting, SubspaceTransfer):
        if setting.rank is not None:
            return _with(_model_of(setting.base), rank=int(setting.rank))
        return _with(_model_of(setting.base), basis=np.asarray(setting.basis, dtype=float))
    if isinstance(setting, FilteredTransfer):
        return _with(_model_of(setting.base), filter=setting.filter)
    raise ValueError(f"simulate_fits has no model for {type(setting).__name__}")


def _with(model: _Model, **changes: Any) -> _Model:
    return replace(model, **changes)


def _scale_sampler(setting: EllipticalTransfer) -> Callable[[Generator, tuple[int, ...]], FloatArray]:
    if setting.freedom is not None:
        freedom = float(setting.freedom)
        return lambda rng, shape: (freedom - 2.0) / rng.chisquare(freedom, size=shape)
    values, weights = setting.law
    return lambda rng, shape: rng.choice(values, size=shape, p=weights)
