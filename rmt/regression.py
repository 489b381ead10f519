"""Multi-output regression from a rescaled source matrix, C = I (theory.md §5 "Regression", alpha_lora.md §6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmt import validate
from rmt.fixed_point import isotropic
from rmt.score import ratio
from rmt.setting import Comparable, Numbers, reject_interpolation
from rmt.validate import FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Regression(Comparable):
    """Target outputs ``y = target·x + noise·ε`` in ℝᵈ, x ~ N(0, I_p), ε ~ N(0, I_d), and frozen ``source`` weights.

    The fine-tuned matrix is D·source + a ridge adapter fitted to the residual, D = α or diag(α₁ … α_d).

    Args:
        n: target samples (broadcasts). gamma: ridge penalty of the mean squared loss (broadcasts).
        target: (d, p) true weights W_t. source: (d, p) frozen weights W_s. noise: σ₀ ≥ 0.

    Raises:
        ValueError: shapes that differ, non-finite entries, γ < 0, or γ = 0 with p = n.
    """

    n: Numbers
    gamma: Numbers
    target: Numbers
    source: Numbers
    noise: Numbers = 0.0

    def __post_init__(self) -> None:
        n = validate.count("n", self.n)
        gamma = validate.at_least("gamma", self.gamma, 0.0)
        noise = validate.at_least("noise", self.noise, 0.0)
        target, source = validate.finite("target", self.target), validate.finite("source", self.source)
        if target.ndim != 2 or target.shape != source.shape:
            raise ValueError(f"target and source must both have shape (d, p), got {target.shape} and {source.shape}")
        reject_interpolation("gamma", gamma, "n", n, np.asarray(float(self.p)))
        object.__setattr__(self, "_shape", validate.broadcast(n=n, gamma=gamma, noise=noise))

    @property
    def shape(self) -> tuple[int, ...]:
        """Broadcast shape of n, gamma and noise."""
        return self._shape

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

    risk = [θ²‖W_t − D W_s‖²_F/λ² + σ₀²d]/h: the best D depends neither on γ nor on n nor on the noise.
    """

    def __init__(self, setting: Regression) -> None:
        self.setting = setting
        target, source = np.asarray(setting.target, dtype=float), np.asarray(setting.source, dtype=float)
        self._target2, self._cross, self._source2 = (
            np.sum(left * right, axis=1) for left, right in ((target, target), (target, source), (source, source))
        )  # (d,) each
        eta = setting.p / np.asarray(setting.n, dtype=float)
        self.resolvent = isotropic(eta, setting.gamma)

    def _assemble(self, distance2: FloatArray) -> FloatArray:
        r = self.resolvent
        noise2 = np.asarray(self.setting.noise, dtype=float) ** 2
        return ((r.theta / r.lam) ** 2 * distance2 + noise2 * self.setting.outputs) / r.h

    def risk(self, alpha: ArrayLike) -> FloatArray:
        """Risk at scalar scales ``alpha``, broadcast against n, gamma and noise."""
        alpha = validate.real("alpha", alpha)
        distance2 = self._target2.sum() + alpha * (alpha * self._source2.sum() - 2.0 * self._cross.sum())
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
        """tr(W_t W_sᵀ)/tr(W_s W_sᵀ), the best scalar scale."""
        return ratio(self._cross.sum(), self._source2.sum())

    @property
    def alpha_star_rows(self) -> FloatArray:
        """(d,) the best scale of each output: ⟨t_k, s_k⟩/‖s_k‖² (0 for an empty row)."""
        return ratio(self._cross, self._source2)

    @property
    def best_risk(self) -> FloatArray:
        """Risk at the best scalar scale."""
        return self.risk(self.alpha_star)

    @property
    def best_risk_rows(self) -> FloatArray:
        """Risk at the best row scales; never above :attr:`best_risk`."""
        return self.risk_rows(self.alpha_star_rows)
