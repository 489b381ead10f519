"""When α* exceeds 1, and what it tends to with many, few or hardly regularised samples (theory.md §4, C = I)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from rmt._checks import FloatArray
from rmt.linear.isotropic import IsotropicScore
from rmt.resolvent import gamma_of_theta
from rmt.scores.score import ratio
from rmt.settings.isotropic import Transfer


@dataclass(frozen=True)
class Limit:
    """α* and its signal-to-noise ratio in a limit. ``scaled_star`` is the limit of α*·θ.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> limit = rmt.ridgeless(setting)
    >>> round(float(limit.alpha_star), 4), round(float(limit.snr), 4)
    (2.9656, 0.8491)
    """

    alpha_star: FloatArray
    scaled_star: FloatArray
    snr: FloatArray

    @property
    def accuracy(self) -> FloatArray:
        """Φ(snr)."""
        return ndtr(self.snr)


def one_source(setting: Transfer) -> IsotropicScore:
    """The score of an isotropic setting with one source; ValueError for any other."""
    if not isinstance(setting, Transfer):
        raise ValueError(f"this function is solved for C = I: give a Transfer, not a {type(setting).__name__}")
    if setting.source_count is not None:
        raise ValueError("this function takes a setting with one source; give FixedSource(overlap=…, norm2=…)")
    return IsotropicScore(setting)


def gamma_one(setting: Transfer) -> FloatArray:
    """γ₁, the penalty below which the optimal scale exceeds 1: α* > 1 iff γ < γ₁ (theory.md §4; γ is ignored).

    With D = (MW − g²)/(ηg) and κ = 1 − 2ε, θ₁ is the positive root of
    Dθ² + ((M+1)D + g − 1/κ)θ − (1 + (1−κ²)M)/κ = 0 and γ₁ = θ₁(1 − η/(1+θ₁)).
    γ₁ ≤ 0 says that α* < 1 for every γ; an overlap g ≤ 0 gives −inf, a source along m may give +inf.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> round(float(rmt.gamma_one(setting)), 3)
    6.0
    """
    score = one_source(setting)
    m2, eta, g, norm2, kappa = np.broadcast_arrays(score.m2, score.eta, score.overlap, score.norm2, score.kappa)
    usable = g > 0
    safe = np.where(usable, g, 1.0)
    slope = np.maximum(m2 * norm2 - g**2, 0.0) / (eta * safe)
    linear = safe + (m2 + 1.0) * slope - 1.0 / kappa
    constant = (1.0 + (1.0 - kappa) * (1.0 + kappa) * m2) / kappa
    root = np.sqrt(linear**2 + 4.0 * slope * constant)
    theta = np.where(linear >= 0, ratio(2.0 * constant, linear + root), ratio(root - linear, 2.0 * slope))
    with np.errstate(invalid="ignore"):
        gamma = np.where(np.isinf(theta), np.inf, gamma_of_theta(np.where(np.isinf(theta), 1.0, theta), eta))
    return np.broadcast_to(np.where(usable, gamma, -np.inf), setting.shape).copy()


def many_samples(setting: Transfer) -> Limit:
    """n → ∞: α* ~ ηλg[κ + (1−κ²)L/(κλ)]/(γLD) at the setting's η, which tends to 0; SNR → √M.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> round(float(rmt.many_samples(setting).snr), 4)
    1.3416
    """
    score = one_source(setting)
    gamma = np.asarray(setting.gamma, dtype=float)
    lam, level = 1.0 + gamma, 1.0 + gamma + score.m2
    gap = np.maximum(score.m2 * score.norm2 - score.overlap**2, 0.0)
    boost = score.kappa + (1.0 - score.kappa**2) * level / (score.kappa * lam)
    scaled = ratio(score.eta * lam * score.overlap * boost, level * gap)
    return _limit(setting, ratio(scaled, gamma), scaled, np.sqrt(score.m2))


def few_samples(setting: Transfer) -> Limit:
    """n → 0: α* → g/(κMW) and SNR → |g|/√W, the source alone.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> round(float(rmt.few_samples(setting).snr), 4)
    1.1678
    """
    score = one_source(setting)
    star = ratio(score.overlap, score.kappa * score.m2 * score.norm2)
    return _limit(setting, star, np.inf * np.sign(star), ratio(np.abs(score.overlap), np.sqrt(score.norm2)))


def ridgeless(setting: Transfer) -> Limit:
    """γ → 0 with α free (γ is ignored).

    p > n: α* stays finite. p < n: α* → ±∞ while α*θ tends to ``scaled_star`` and SNR*² to (1−η)·(value at h = 1).
    p = n: the SNR falls to 0, double descent that no α removes.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> round(float(rmt.ridgeless(setting).alpha_star), 4)
    2.9656
    """
    one_source(setting)
    peak = np.asarray(setting.p) == np.asarray(setting.n)
    tiny = np.where(peak, 1.0, 0.0)  # γ = 0 is refused at the peak, whose limit is known
    score = one_source(replace(setting, gamma=tiny))
    theta = np.where(peak, 0.0, score.resolvent.theta)
    scaled = score.scaled_star
    if np.any(peak):  # θ → 0, λ → 1 at the peak
        level = 1.0 + score.m2
        gap = np.maximum(score.m2 * score.norm2 - score.overlap**2, 0.0)
        boost = score.kappa + (1.0 - score.kappa**2) * level / score.kappa
        at_peak = ratio(score.eta * score.overlap * boost, level * gap + score.eta * score.overlap**2)
        scaled = np.where(peak, at_peak, scaled)
    return _limit(setting, ratio(scaled, theta), scaled, np.where(peak, 0.0, score.supremum_snr))


def many_source_samples(setting: Transfer) -> Limit:
    """N → ∞ at the setting's γ: the source is κ̃μ/(μ² + 1 + γ̃), without noise.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> round(float(rmt.many_source_samples(setting).alpha_star), 4)
    2.0215
    """
    one_source(setting)
    score = one_source(replace(setting, N=math.inf))
    return _limit(setting, score.alpha_star, score.scaled_star, score.best_snr)


def _limit(setting: Transfer, *parts: FloatArray) -> Limit:
    star, scaled, snr = (np.broadcast_to(part, setting.shape).copy() for part in parts)
    return Limit(alpha_star=star, scaled_star=scaled, snr=snr)
