"""The ridge-source formulas as the paper's official code has them, defects included.

Kept only to reproduce published labels and to measure how far they are from the truth: the second moment uses
a wrong E‖w̃‖² (theory.md §9, E1). The right formulas are :func:`rmt.theory`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rmt import Transfer
from rmt._checks import FloatArray
from rmt.resolvent import isotropic
from rmt.scores.score import Score, ratio


class CodeFormula(Score):
    """Mean, second moment and scales by the official formulas, one isotropic ridge source.

    The second moment is ``T₁ + αT₂ + α²T₃``; T₁ and T₂ agree with :func:`rmt.theory`, T₃ does not. Its
    variance can be negative; accuracy is NaN there, as in the official code. ``alpha_star`` is the stationary
    point that the code reports, maximiser or not.
    """

    def __init__(self, setting: Transfer) -> None:
        if setting.source is not None:
            raise ValueError("CodeFormula describes a ridge source; give N, gamma_source, mu, beta")
        m2, eta, eta_source = setting.m2, setting.eta, setting.eta_source
        mu2 = np.asarray(setting.mu, dtype=float) ** 2
        beta = np.asarray(setting.beta, dtype=float)
        target = isotropic(eta, np.asarray(setting.gamma, dtype=float))
        source = isotropic(eta_source, np.asarray(setting.gamma_source, dtype=float))
        kappa, h = target.theta, target.h  # the paper's κ = γ(1+δ_Q) is θ of theory.md
        level, level_source = m2 + target.lam, mu2 + source.lam
        # 1 − h and 1 − h̃ by their definition, without cancellation.
        fall, fall_source = eta / target.lam**2, eta_source / source.lam**2
        along = beta**2 * mu2  # β²‖μ‖², the part of M that the source's mean explains

        self.setting = setting
        self.slope = kappa * beta * mu2 / (level_source * level)  # dm/dα
        self.offset = m2 / level
        self.t1 = m2 / (h * level) * ((m2 + 1.0) / level - 2.0 * fall) + fall / h
        self.t2 = 2.0 * self.slope * (1.0 - kappa / (h * level))
        signal = along / level**2 + fall / eta * (1.0 + along * m2 / level**2 - 2.0 * along / level)
        noise = fall * fall_source / eta * (1.0 - 2.0 * mu2 / level_source)  # the defect: E‖w̃‖² is larger
        self.t3 = kappa**2 / h * (mu2 / level_source**2 * signal + noise)
        #: E‖w̃‖² that this T₃ stands for; negative for a strong source with little regularisation.
        self.norm2 = mu2 / level_source**2 + fall_source * (1.0 - 2.0 * mu2 / level_source)

    def mean(self, alpha: ArrayLike) -> FloatArray:
        """m_α."""
        return self.offset + np.asarray(alpha, dtype=float) * self.slope

    def second_moment(self, alpha: ArrayLike) -> FloatArray:
        """ν_α = T₁ + αT₂ + α²T₃."""
        alpha = np.asarray(alpha, dtype=float)
        return self.t1 + alpha * (self.t2 + alpha * self.t3)

    def variance(self, alpha: ArrayLike) -> FloatArray:
        """ν_α − m_α²; negative where the formula breaks down."""
        return self.second_moment(alpha) - self.mean(alpha) ** 2

    def snr(self, alpha: ArrayLike) -> FloatArray:
        """m/√(ν − m²); NaN where that variance is negative."""
        variance = self.variance(alpha)
        spread = np.sqrt(np.where(variance < 0, np.nan, variance))
        return ratio(self.mean(alpha), spread)

    @property
    def alpha_star(self) -> FloatArray:
        """(T₂m₀ − 2T₁m₁)/(T₂m₁ − 2T₃m₀), the stationary point of the code's accuracy (m_α = m₀ + αm₁)."""
        return ratio(
            self.t2 * self.offset - 2.0 * self.t1 * self.slope,
            self.t2 * self.slope - 2.0 * self.t3 * self.offset,
        )

    @property
    def alpha_bar(self) -> FloatArray:
        """−m₀/m₁, where the mean vanishes."""
        return -ratio(self.offset, self.slope)

    @property
    def alpha_risk(self) -> FloatArray:
        """Stationary point of ν − 2m + 1."""
        return ratio(2.0 * self.slope - self.t2, 2.0 * self.t3)

    @property
    def best_accuracy(self) -> FloatArray:
        """The code's accuracy at its α*; NaN where its variance is negative."""
        return self.accuracy(self.alpha_star)
