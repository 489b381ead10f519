"""Multi-output regression from a rescaled source matrix (theory.md §5 "Regression")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import validate
from rmt.covariance import Spectrum, check_dimension, inverse_of
from rmt.fixed_point import isotropic, spectral
from rmt.score import ratio
from rmt.setting import Comparable, Numbers, reject_interpolation
from rmt.validate import FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Regression(Comparable):
    """Target outputs ``y = target·x + noise·ε`` in ℝᵈ, x ~ N(0, C), ε ~ N(0, I_d), and frozen ``source`` weights.

    The fine-tuned matrix is D·source + a ridge adapter fitted to the residual, D = α or diag(α₁ … α_d).

    Args:
        n: target samples (broadcasts). gamma: ridge penalty of the mean squared loss (broadcasts).
        target: (d, p) true weights W_t. source: (d, p) frozen weights W_s. noise: σ₀ ≥ 0.
        covariance: C of the inputs: (p, p) matrix, (p,) diagonal, or :class:`rmt.Spectrum`; None for the identity.

    Raises:
        ValueError: shapes that differ, non-finite entries, γ < 0, or γ = 0 with p = n.
    """

    n: Numbers
    gamma: Numbers
    target: Numbers
    source: Numbers
    noise: Numbers = 0.0
    covariance: Any = None

    def __post_init__(self) -> None:
        n = validate.count("n", self.n)
        gamma = validate.at_least("gamma", self.gamma, 0.0)
        noise = validate.at_least("noise", self.noise, 0.0)
        target, source = validate.finite("target", self.target), validate.finite("source", self.source)
        if target.ndim != 2 or target.shape != source.shape:
            raise ValueError(f"target and source must both have shape (d, p), got {target.shape} and {source.shape}")
        if self.covariance is None:
            reject_interpolation("gamma", gamma, "n", n, np.asarray(float(self.p)))
        else:
            check_dimension("covariance", self.covariance, self.p, "target")
        object.__setattr__(self, "_shape", validate.broadcast(n=n, gamma=gamma, noise=noise))

    @property
    def shape(self) -> tuple[int, ...]:
        """Broadcast shape of n, gamma and noise."""
        return self._shape

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigendecomposition of the covariance of the inputs."""
        return Spectrum(np.ones(self.p)) if self.covariance is None else Spectrum.of(self.covariance)

    @property
    def p(self) -> int:
        """Input dimension."""
        return int(np.shape(self.target)[1])

    @property
    def outputs(self) -> int:
        """Output dimension d."""
        return int(np.shape(self.target)[0])


class RegressionRisk:
    """Test risk E‖y − Wx‖² of the rescaled and adapted matrix.

    risk = tr(W_t − DW_s)K(W_t − DW_s)ᵀ + σ₀²d/h with K = θ²HCH/h, H = (θ + C)⁻¹. For C = I that K is a number, and
    the best D depends neither on γ nor on n nor on the noise.
    """

    def __init__(self, setting: Regression) -> None:
        self.setting = setting
        target: FloatArray = np.asarray(setting.target, dtype=float)
        source: FloatArray = np.asarray(setting.source, dtype=float)
        gamma = np.asarray(setting.gamma, dtype=float)
        if setting.covariance is None:
            self.resolvent = isotropic(setting.p / np.asarray(setting.n, dtype=float), gamma)
            self._factor: FloatArray = (self.resolvent.theta / self.resolvent.lam) ** 2
            weights: FloatArray = np.ones(setting.p)
        else:
            values = np.asarray(setting.spectrum.values, dtype=float)
            target, source = setting.spectrum.rotate(target), setting.spectrum.rotate(source)
            self.resolvent = spectral(values, setting.n, gamma)
            self._factor = self.resolvent.theta**2
            weights = inverse_of(values, self.resolvent.theta, "gamma") ** 2 * values  # HCH, (…, p)
        self._target2, self._cross, self._source2 = (
            weights @ (left * right).T for left, right in ((target, target), (target, source), (source, source))
        )  # (…, d) each; (d,) for C = I

    def _assemble(self, distance2: FloatArray) -> FloatArray:
        noise2 = np.asarray(self.setting.noise, dtype=float) ** 2
        return (self._factor * distance2 + noise2 * self.setting.outputs) / self.resolvent.h

    def risk(self, alpha: ArrayLike) -> FloatArray:
        """Risk at scalar scales ``alpha``, broadcast against n, gamma and noise."""
        alpha = validate.real("alpha", alpha)
        target2, cross, source2 = (form.sum(axis=-1) for form in (self._target2, self._cross, self._source2))
        distance2 = target2 + alpha * (alpha * source2 - 2.0 * cross)
        return self._assemble(distance2)

    def risk_rows(self, alpha: ArrayLike) -> FloatArray:
        """Risk at one scale an output: ``alpha`` (…, d), its leading axes broadcast."""
        alpha = validate.real("alpha", alpha)
        if alpha.ndim < 1 or alpha.shape[-1] != self.setting.outputs:
            raise ValueError(f"alpha needs a last axis of length {self.setting.outputs}, got shape {alpha.shape}")
        distance2 = np.sum(self._target2 + alpha * (alpha * self._source2 - 2.0 * self._cross), axis=-1)
        return self._assemble(distance2)

    @property
    def alpha_star(self) -> FloatArray:
        """tr(W_t K W_sᵀ)/tr(W_s K W_sᵀ), the best scalar scale: one number for C = I, (…) otherwise."""
        return ratio(self._cross.sum(axis=-1), self._source2.sum(axis=-1))

    @property
    def alpha_star_rows(self) -> FloatArray:
        """(…, d) the best scale of each output: t_kᵀKs_k/s_kᵀKs_k (0 for an empty row); (d,) for C = I."""
        return ratio(self._cross, self._source2)

    @property
    def best_risk(self) -> FloatArray:
        """Risk at the best scalar scale."""
        return self.risk(self.alpha_star)

    @property
    def best_risk_rows(self) -> FloatArray:
        """Risk at the best row scales; never above :attr:`best_risk`."""
        return self.risk_rows(self.alpha_star_rows)
