"""Multi-output regression from a rescaled source matrix (theory.md §5 "Regression")."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt.resolvent import inverse_of, isotropic, spectral
from rmt.scores.score import ratio
from rmt.settings.regression import Regression


class RegressionRisk:
    """Test risk E‖y − Wx‖² of the rescaled and adapted matrix.

    risk = tr(W_t − DW_s)K(W_t − DW_s)ᵀ + σ₀²d/h with K = θ²HCH/h, H = (θ + C)⁻¹. For C = I that K is a number, and
    the best D depends neither on γ nor on n nor on the noise.

    >>> import rmt
    >>> setting = rmt.Regression(n=40, gamma=0.1, target=[[1.0, 0.0, 0.5]], source=[[0.5, 0.1, 0.2]], noise=0.3)
    >>> risk = rmt.theory(setting)
    >>> round(float(risk.alpha_star), 3)
    2.0
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
        alpha = _checks.real("alpha", alpha)
        target2, cross, source2 = (form.sum(axis=-1) for form in (self._target2, self._cross, self._source2))
        distance2 = target2 + alpha * (alpha * source2 - 2.0 * cross)
        return self._assemble(distance2)

    def risk_rows(self, alpha: ArrayLike) -> FloatArray:
        """Risk at one scale an output: ``alpha`` (…, d), its leading axes broadcast."""
        alpha = _checks.real("alpha", alpha)
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
