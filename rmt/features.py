"""Random features as a setting: a frozen random layer, its non-linearity, its linear equivalent (theory.md §5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import erf, ndtr

from rmt import _checks
from rmt._checks import FloatArray
from rmt.settings.gaussian import GaussianTransfer, RidgeSource, check_mean, check_sources
from rmt.settings.isotropic import Comparable, FixedSource, Numbers
from rmt.settings.spectrum import Spectrum


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomFeatures(Comparable):
    """A linear classifier on features f(Fx) of inputs x = y·mean + z, z ~ N(0, I_d), with a frozen source on them.

    Features are taken from the middle of the two classes' means. Theory is that of :attr:`linear`.

    Args:
        n, gamma, label_noise: as in :class:`rmt.GaussianTransfer`.
        weights: (width, d) F; ``rows`` of about unit norm (:meth:`draw_weights`).
        activation: ``"relu"`` or ``"erf"``.
        mean: (d,) mean of the target's inputs.
        source: ``FixedSource(vector=w)`` with w (width,); or (μ, N, γ̃), a ridge classifier fitted on N samples with
            inputs of mean μ (d,) through the same layer.

    >>> import numpy as np, rmt
    >>> weights = rmt.RandomFeatures.draw_weights(60, 40, seed=0)
    >>> setting = rmt.RandomFeatures(
    ...     n=50,
    ...     gamma=0.1,
    ...     weights=weights,
    ...     activation="relu",
    ...     mean=np.full(40, 0.3),
    ...     source=(np.full(40, 0.25), 400, 0.1),
    ... )
    >>> bool(rmt.theory(setting).accuracy(1.0) > rmt.theory(setting).accuracy(0.0))
    True
    """

    n: Numbers
    gamma: Numbers
    weights: Numbers
    activation: str
    mean: Numbers
    source: Any
    label_noise: Numbers = 0.0

    def __post_init__(self) -> None:
        _checks.one_of("activation", self.activation, ("relu", "erf"))
        weights = _checks.finite("weights", self.weights, largest=_checks.LARGEST)
        mean = check_mean("mean", self.mean)
        if weights.ndim != 2 or weights.shape[1] != mean.size or not (weights**2).sum(axis=1).all():
            raise ValueError(f"weights must be (width, {mean.size}) without empty rows, got shape {weights.shape}")
        if isinstance(self.source, FixedSource):
            check_sources((self.source,), len(weights))
        elif not isinstance(self.source, tuple) or len(self.source) != 3:
            raise ValueError("source must be FixedSource(vector=…) or (mean, N, gamma) of a ridge source")
        elif check_mean("mean of the source", self.source[0]).size != mean.size:
            raise ValueError(f"mean of the source must have length {mean.size}, got {np.size(self.source[0])}")
        object.__setattr__(self, "_shape", self.linear.shape)

    @staticmethod
    def draw_weights(width: int, d: int, seed: int = 0) -> FloatArray:
        """(width, d) Gaussian rows scaled to norm 1."""
        rows = np.random.default_rng(seed).standard_normal((width, d))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Broadcast shape of n, gamma and label_noise."""
        return self._shape

    @property
    def p(self) -> int:
        """Width: the dimension of the features."""
        return len(np.asarray(self.weights))

    @property
    def source_count(self) -> None:
        """None: one source."""
        return

    def features(self, inputs: FloatArray, mean: Any) -> FloatArray:
        """f(Fx) of ``inputs`` (…, d), from the middle of the classes with inputs of means ±``mean``."""
        before = inputs @ np.asarray(self.weights, dtype=float).T
        if self.activation == "erf":
            return erf(before)
        shift = np.asarray(self.weights) @ np.asarray(mean, dtype=float)
        size = self._size
        middle = shift * (ndtr(shift / size) - 0.5) + size * np.exp(-0.5 * (shift / size) ** 2) / np.sqrt(2 * np.pi)
        return np.maximum(before, 0.0) - middle

    @property
    def _size(self) -> FloatArray:
        """(width,) standard deviation of each unit's input."""
        return np.linalg.norm(np.asarray(self.weights, dtype=float), axis=1)

    def feature_mean(self, mean: Any) -> FloatArray:
        """(width,) half the distance of the class means of the features, exact."""
        shift = np.asarray(self.weights, dtype=float) @ np.asarray(mean, dtype=float)
        return 0.5 * shift if self.activation == "relu" else erf(shift / np.sqrt(1.0 + 2.0 * self._size**2))

    @cached_property
    def spectrum(self) -> Spectrum:
        """Covariance of the linear equivalent, D FFᵀ D + diag(r): slope and what is left of a unit's variance.

        relu: slope 1/2, r = (1/4 − 1/2π)s²; erf: slope 2/√(π(1 + 2s²)), r = (2/π)arcsin(2s²/(1 + 2s²)) − slope²s².
        """
        square = self._size**2
        if self.activation == "relu":
            slope, rest = np.full_like(square, 0.5), (0.25 - 0.5 / np.pi) * square
        else:
            slope = 2.0 / np.sqrt(np.pi * (1.0 + 2.0 * square))
            rest = 2.0 / np.pi * np.arcsin(2.0 * square / (1.0 + 2.0 * square)) - slope**2 * square
        rows = slope[:, None] * np.asarray(self.weights, dtype=float)
        return Spectrum.of(rows @ rows.T + np.diag(rest))

    @cached_property
    def linear(self) -> GaussianTransfer:
        """The Gaussian setting with the features' means and the covariance of their linear equivalent."""
        source = self.source
        if not isinstance(source, FixedSource):
            mean, samples, penalty = source
            source = RidgeSource(mean=self.feature_mean(mean), covariance=self.spectrum, N=samples, gamma=penalty)
        return GaussianTransfer(
            n=self.n,
            gamma=self.gamma,
            mean=self.feature_mean(self.mean),
            covariance=self.spectrum,
            source=source,
            label_noise=self.label_noise,
        )
