"""Beyond α at fixed γ: when α* exceeds 1, the joint optimum over (α, γ), and the limits of theory.md §4 (C = I)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from rmt.covariance import GaussianScore, GaussianTransfer
from rmt.fixed_point import gamma_of_theta
from rmt.ridge import IsotropicScore
from rmt.score import QuadraticScore, ratio
from rmt.setting import Transfer
from rmt.validate import FloatArray


@dataclass(frozen=True)
class JointOptimum:
    """The best classifier over all (α, γ): (S + γ)⁻¹(ū + ``source_weight``·w̃); for C = I γ = ∞, w ∝ ū + …·w̃."""

    source_weight: FloatArray  #: γα, weight of w̃ beside the mean ū of the signed target samples; (…, K) for K sources
    snr: FloatArray
    gamma: FloatArray  #: the best penalty, inf for C = I

    @property
    def alpha(self) -> FloatArray:
        """The best scale at :attr:`gamma`; 0 where that is infinite (see :attr:`source_weight`)."""
        gamma = self.gamma if self.gamma.ndim == self.source_weight.ndim else self.gamma[..., None]
        return self.source_weight / gamma

    @property
    def accuracy(self) -> FloatArray:
        """Φ(snr), an upper bound for every γ and α."""
        return ndtr(self.snr)


@dataclass(frozen=True)
class Limit:
    """α* and its signal-to-noise ratio in a limit. ``scaled_star`` is the limit of α*·θ."""

    alpha_star: FloatArray
    scaled_star: FloatArray
    snr: FloatArray

    @property
    def accuracy(self) -> FloatArray:
        """Φ(snr)."""
        return ndtr(self.snr)


def _one_source(setting: Transfer) -> IsotropicScore:
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
    """
    score = _one_source(setting)
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


def joint_optimum(setting: Transfer | GaussianTransfer, *, source_gamma: bool = False) -> JointOptimum:
    """The optimum over (α, γ) jointly (the setting's own γ is ignored).

    For C = I it lies at γ = ∞, because SNR*² carries the factor h(γ) < 1 (theory.md §4). For a
    :class:`rmt.GaussianTransfer` it is searched for, and the answer has the shape of its n and label_noise.

    ``source_gamma=True`` also optimises γ̃ of a ridge source; its best value is ∞ too, which keeps only the
    direction of the source's mean vector: x = ρ² = β²μ⁴/(M(μ² + η̃/κ̃²)).
    Flipped target labels act as η → η/κ².

    Raises:
        ValueError: K sources of a ``Transfer``, or ``source_gamma`` without its ridge source.
    """
    if isinstance(setting, GaussianTransfer):
        if source_gamma:
            raise ValueError("source_gamma=True is solved for C = I only; search over RidgeSource(gamma=…) instead")
        return _gaussian_joint_optimum(setting)
    score = _one_source(setting)
    m2, eta = score.m2, score.eta / score.kappa**2
    g, norm2 = score.overlap, score.norm2
    if source_gamma:
        if setting.source is not None:
            raise ValueError("source_gamma=True needs a ridge source; this setting has source=FixedSource(…)")
        # As γ̃ → ∞, γ̃·w̃ → the mean of the signed source samples: overlap κ̃βμ², squared norm κ̃²μ² + η̃.
        flips = 1.0 - 2.0 * np.asarray(setting.label_noise_source, dtype=float)
        mu2 = np.asarray(setting.mu, dtype=float) ** 2
        g = flips * np.asarray(setting.beta, dtype=float) * mu2
        norm2 = flips**2 * mu2 + setting.eta_source
    gap = np.maximum(m2 * norm2 - g**2, 0.0)
    snr = np.sqrt(ratio(m2 * gap + eta * g**2, gap + eta * norm2))
    plain = np.sqrt(ratio(m2**2, m2 + eta))
    weight = ratio(score.kappa * eta * g, gap)
    shape = setting.shape
    return JointOptimum(
        source_weight=np.broadcast_to(weight, shape).copy(),
        snr=np.broadcast_to(np.where(norm2 == 0, plain, snr), shape).copy(),
        gamma=np.full(shape, np.inf),
    )


def _gaussian_joint_optimum(setting: GaussianTransfer) -> JointOptimum:
    """For C ≠ I the best γ is finite as a rule: a search over log γ, each point with its own best α.

    The SNR may have several peaks in γ, so a grid over twelve decades comes first and golden sections follow. The
    limit γ = ∞, where the classifier is ū + k·w̃, competes with them. Settings have the shape of n and label_noise.
    """
    free = replace(setting, gamma=1.0)
    values = np.asarray(setting.spectrum.values, dtype=float)

    def best(log_gamma: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(log of the) best accuracy's SNR and γα* at γ of shape (G, …)."""
        gamma = np.exp(log_gamma)
        score = GaussianScore(replace(free, gamma=gamma))
        return score.best_snr, np.asarray(score.alpha_star) * (gamma[..., None] if score.vector_alpha else gamma)

    centre = np.log(values.mean())
    grid = centre + np.linspace(-12.0, 12.0, 97).reshape(-1, *(1,) * len(free.shape))
    snr, _ = best(np.broadcast_to(grid, (len(grid), *free.shape)))
    middle = grid.ravel()[np.argmax(snr, axis=0)]
    low, high = middle - 0.25, middle + 0.25
    golden = 0.5 * (np.sqrt(5.0) - 1.0)
    for _ in range(40):
        inner = np.stack([high - golden * (high - low), low + golden * (high - low)])
        left, right = best(inner)[0]
        low, high = np.where(left < right, inner[0], low), np.where(left < right, high, inner[1])
    (snr,), (weight,) = (part[None] for part in best(0.5 * (low + high)))
    limit = _infinite_gamma(free)
    beyond = limit.best_snr >= snr
    wide = beyond[..., None] if limit.vector_alpha else beyond
    return JointOptimum(
        source_weight=np.where(wide, limit.alpha_star, weight),
        snr=np.where(beyond, limit.best_snr, snr),
        gamma=np.where(beyond, np.inf, np.exp(0.5 * (low + high))),
    )


def _infinite_gamma(setting: GaussianTransfer) -> QuadraticScore:
    """The score of ū + k·w̃ as a function of k: γ → ∞ with k = γα fixed."""
    values = np.asarray(setting.spectrum.values, dtype=float)
    mean, weights, spread = setting.in_eigenbasis
    kappa = 1.0 - 2.0 * np.asarray(setting.label_noise, dtype=float)
    # ū = κm + noise of covariance C/n (flips add mmᵀ(1 − κ²)/n, which the limit p → ∞ does not see)
    own = kappa**2 * (mean**2 @ values) + np.sum(values**2) / np.asarray(setting.n, dtype=float)
    count = len(weights)
    c = np.zeros((*own.shape, count + 1))
    V = np.zeros((*own.shape, count + 1, count + 1))
    c[..., 0], c[..., 1:] = kappa * (mean @ mean), weights @ mean
    V[..., 0, 0] = own
    V[..., 0, 1:] = V[..., 1:, 0] = kappa[..., None] * ((weights * values) @ mean)
    V[..., 1:, 1:] = (weights * values) @ weights.T + np.diag(spread @ values)
    return QuadraticScore(c, V, vector_alpha=setting.source_count is not None)


def many_samples(setting: Transfer) -> Limit:
    """n → ∞: α* ~ ηλg[κ + (1−κ²)L/(κλ)]/(γLD) at the setting's η, which tends to 0; SNR → √M."""
    score = _one_source(setting)
    gamma = np.asarray(setting.gamma, dtype=float)
    lam, level = 1.0 + gamma, 1.0 + gamma + score.m2
    gap = np.maximum(score.m2 * score.norm2 - score.overlap**2, 0.0)
    boost = score.kappa + (1.0 - score.kappa**2) * level / (score.kappa * lam)
    scaled = ratio(score.eta * lam * score.overlap * boost, level * gap)
    return _limit(setting, ratio(scaled, gamma), scaled, np.sqrt(score.m2))


def few_samples(setting: Transfer) -> Limit:
    """n → 0: α* → g/(κMW) and SNR → |g|/√W, the source alone."""
    score = _one_source(setting)
    star = ratio(score.overlap, score.kappa * score.m2 * score.norm2)
    return _limit(setting, star, np.inf * np.sign(star), ratio(np.abs(score.overlap), np.sqrt(score.norm2)))


def ridgeless(setting: Transfer) -> Limit:
    """γ → 0 with α free (γ is ignored).

    p > n: α* stays finite. p < n: α* → ±∞ while α*θ tends to ``scaled_star`` and SNR*² to (1−η)·(value at h = 1).
    p = n: the SNR falls to 0, double descent that no α removes.
    """
    peak = np.asarray(setting.p) == np.asarray(setting.n)
    tiny = np.where(peak, 1.0, 0.0)  # γ = 0 is refused at the peak, whose limit is known
    score = _one_source(replace(setting, gamma=tiny))
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
    """N → ∞ at the setting's γ: the source is κ̃μ/(μ² + 1 + γ̃), without noise."""
    score = _one_source(replace(setting, N=math.inf))
    return _limit(setting, score.alpha_star, score.scaled_star, score.best_snr)


def _limit(setting: Transfer, *parts: FloatArray) -> Limit:
    star, scaled, snr = (np.broadcast_to(part, setting.shape).copy() for part in parts)
    return Limit(alpha_star=star, scaled_star=scaled, snr=snr)
