"""A setting reduced to what is drawn, how it is fitted and how the fit is measured. No formula of the theory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr

from rmt._checks import FloatArray
from rmt.features import RandomFeatures
from rmt.losses import SQUARE, Loss
from rmt.settings.classes import ClassTransfer
from rmt.settings.elliptical import EllipticalTransfer
from rmt.settings.filters import FilteredTransfer
from rmt.settings.gaussian import GaussianTransfer, RidgeSource
from rmt.settings.isotropic import FixedSource, Transfer
from rmt.settings.spectrum import Spectrum
from rmt.settings.subspace import SubspaceTransfer
from rmt.simulators.training import Filtered, Newton


def explicit(setting: Transfer) -> GaussianTransfer:
    """The scalar isotropic ``setting`` in coordinates: m and the source lie along the first axes."""
    p, m2 = int(setting.p), float(setting.m2)
    mean, other = np.zeros((2, p))
    mean[0] = np.sqrt(m2)
    flat = Spectrum(np.ones(p))
    source: FixedSource | RidgeSource
    if setting.source is not None:
        if setting.source_count is not None:
            raise ValueError(
                "a gram of sources is simulated by rmt.simulate(method='exact' or 'direct'); this takes one source"
            )
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
class Component:
    """One Gaussian component of the signed data."""

    mean: FloatArray  # (p,)
    spectrum: Spectrum
    label: float
    proportion: float


@dataclass(frozen=True)
class Model:
    """A setting reduced to what is drawn and how it is fitted."""

    n: int
    gamma: float
    classes: tuple[Component, ...]
    sources: tuple[FixedSource | RidgeSource, ...]
    label_noise: float = 0.0
    intercept: bool = False
    scales: Callable[[Generator, tuple[int, ...]], FloatArray] | None = None  # draws t of elliptical noise
    law: tuple[FloatArray, FloatArray] | None = None  # the same law, to average the accuracy over
    rank: int | None = None
    basis: FloatArray | None = None
    filter: Any = None

    @property
    def p(self) -> int:
        """Dimension."""
        return self.classes[0].mean.size

    def block(
        self, rng: Generator, draws: int, alpha: FloatArray, loss: Loss
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(D, A) means, variances and accuracies of ``draws`` fits."""
        samples, labels = self._samples(rng, draws)
        source = self._weights(rng, draws, self.sources[0])
        fit = self._training(samples, labels, source, self._bases(rng, draws), loss)
        if loss is SQUARE:  # weights are affine in α: two fits give them all
            (w0, b0), (w1, b1) = fit(0.0), fit(1.0)
            fits = [(w0 + a * (w1 - w0), b0 + a * (b1 - b0)) for a in alpha]
        else:
            fits = [fit(float(a)) for a in alpha]
        measured = [self._measure(weights, offset) for weights, offset in fits]
        means, variances, accuracies = (np.stack([one[i] for one in measured], axis=1) for i in range(3))
        return means, variances, accuracies

    def affine_block(self, rng: Generator, draws: int) -> tuple[FloatArray, ...]:
        """c (D, K+1) and V (D, K+1, K+1) of ``draws`` square-loss fits of one Gaussian class, whatever the scales."""
        weights, (only,) = self._columns(rng, draws), self.classes
        coloured = only.spectrum.colour(weights)
        return weights @ only.mean, coloured @ coloured.mT

    def _columns(self, rng: Generator, draws: int) -> FloatArray:
        """(D, K+1, p): the target-only fit, and what a unit of each source adds."""
        samples, labels = self._samples(rng, draws)
        sources = [self._weights(rng, draws, source) for source in self.sources]
        basis = self._bases(rng, draws)
        columns = [self._training(samples, labels, np.zeros_like(sources[0]), basis, SQUARE)(0.0)[0]]
        for source in sources:
            columns.append(self._training(samples, labels, source, basis, SQUARE)(1.0)[0] - columns[0])
        return np.stack(columns, axis=1)

    def _training(
        self, samples: FloatArray, labels: FloatArray, source: FloatArray, basis: FloatArray | None, loss: Loss
    ) -> Callable[[float], tuple[FloatArray, FloatArray]]:
        """α → weights (D, p) and intercepts (D,)."""
        if self.filter is not None:
            return Filtered(samples, source, self.filter, self.gamma)
        return Newton(samples, labels if self.intercept else None, source, basis, self.gamma, loss)

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

    def _weights(self, rng: Generator, draws: int, source: FixedSource | RidgeSource) -> FloatArray:
        """(D, p) weights of a source; those of a ridge source are fitted anew in every draw."""
        if isinstance(source, FixedSource):
            return np.broadcast_to(np.asarray(source.vector, dtype=float), (draws, self.p))
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


#: Fresh points of a draw of random features: their score has no law in closed form.
_FRESH = 2000


@dataclass(frozen=True)
class FeatureModel(Model):
    """Random features: inputs are drawn, features made of them, and scores counted on fresh ones."""

    features: RandomFeatures | None = None

    def affine_block(self, rng: Generator, draws: int) -> tuple[FloatArray, ...]:
        """c and V of the scores of fresh points, and the points themselves, (D, T, K+1)."""
        weights = self._columns(rng, draws)
        assert self.features is not None
        points = np.stack([self._signed(rng, _FRESH, self.features.mean) @ one.T for one in weights])
        centred = points - points.mean(axis=1, keepdims=True)
        return points.mean(axis=1), centred.mT @ centred / (_FRESH - 1), points

    def block(
        self, rng: Generator, draws: int, alpha: FloatArray, loss: Loss
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Not for features."""
        raise ValueError(f"random features are simulated with loss='square', got {loss.name!r}; theory takes any loss")

    def _signed(self, rng: Generator, count: int, mean: Any) -> FloatArray:
        """(count, p) features times their label."""
        assert self.features is not None
        signs = np.where(rng.random((count, 1)) < 0.5, -1.0, 1.0)
        inputs = signs * np.asarray(mean, dtype=float) + rng.standard_normal((count, np.size(mean)))
        return signs * self.features.features(inputs, mean)

    def _samples(self, rng: Generator, draws: int) -> tuple[FloatArray, FloatArray]:
        assert self.features is not None
        samples = self._signed(rng, draws * self.n, self.features.mean).reshape(draws, self.n, -1)
        labels = np.ones((draws, self.n))
        if self.label_noise:
            labels = np.where(rng.random((draws, self.n)) < self.label_noise, -1.0, 1.0)
        return samples * labels[..., None], labels

    def _weights(self, rng: Generator, draws: int, source: FixedSource | RidgeSource) -> FloatArray:
        if isinstance(source, FixedSource):
            return super()._weights(rng, draws, source)
        assert self.features is not None
        mean, size, penalty = self.features.source
        if np.isinf(size):
            raise ValueError("N must be finite in a simulation of random features; give a large one")
        fitted = np.empty((draws, self.p))
        for draw in range(draws):
            samples = self._signed(rng, int(size), mean)
            form = samples.T @ samples / len(samples) + penalty * np.eye(self.p)
            fitted[draw] = np.linalg.solve(form, samples.mean(axis=0))
        return fitted


def model_of(setting: Any) -> Model:
    """The model behind a setting of any type.

    Raises:
        ValueError: arrays of settings, or a type without a model.
    """
    if getattr(setting, "shape", ()):
        raise ValueError(f"a simulation takes one setting, got arrays of shape {setting.shape}; use rmt.run_sweep")
    if isinstance(setting, Transfer):
        return model_of(explicit(setting))
    if isinstance(setting, RandomFeatures):
        linear = model_of(setting.linear)
        return FeatureModel(
            linear.n, linear.gamma, linear.classes, linear.sources, linear.label_noise, features=setting
        )
    if isinstance(setting, GaussianTransfer):
        only = Component(np.asarray(setting.mean, dtype=float), setting.spectrum, 1.0, 1.0)
        return Model(
            n=int(setting.n),
            gamma=float(setting.gamma),
            classes=(only,),
            sources=setting.sources,
            label_noise=float(setting.label_noise),
        )
    if isinstance(setting, ClassTransfer):
        labels, means = np.asarray(setting.labels, dtype=float), np.asarray(setting.means, dtype=float)
        classes = tuple(
            Component(label * mean, spectrum, float(label), float(weight))
            for label, mean, spectrum, weight in zip(labels, means, setting.spectra, setting.shares, strict=True)
        )
        return Model(
            n=int(setting.n),
            gamma=float(setting.gamma),
            classes=classes,
            sources=(setting.source,),
            intercept=setting.intercept,
            label_noise=float(setting.label_noise),
        )
    if isinstance(setting, EllipticalTransfer):
        return _with(model_of(setting.base), scales=_scale_sampler(setting), law=setting.law)
    if isinstance(setting, SubspaceTransfer):
        if setting.rank is not None:
            return _with(model_of(setting.base), rank=int(setting.rank))
        return _with(model_of(setting.base), basis=np.asarray(setting.basis, dtype=float))
    if isinstance(setting, FilteredTransfer):
        return _with(model_of(setting.base), filter=setting.filter)
    raise ValueError(f"the simulators have no model for {type(setting).__name__}")


def _with(model: Model, **changes: Any) -> Model:
    return replace(model, **changes)


def _scale_sampler(setting: EllipticalTransfer) -> Callable[[Generator, tuple[int, ...]], FloatArray]:
    if setting.freedom is not None:
        freedom = float(setting.freedom)
        return lambda rng, shape: (freedom - 2.0) / rng.chisquare(freedom, size=shape)
    values, weights = setting.law
    return lambda rng, shape: rng.choice(values, size=shape, p=weights)
