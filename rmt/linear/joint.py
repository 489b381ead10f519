"""The best scale and penalty together (theory.md §4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from rmt import _checks
from rmt._checks import FloatArray
from rmt.linear.gaussian import GaussianScore
from rmt.linear.limits import one_source
from rmt.scores.quadratic import QuadraticScore
from rmt.scores.score import ratio
from rmt.settings.gaussian import GaussianTransfer
from rmt.settings.isotropic import Transfer


@dataclass(frozen=True)
class JointOptimum:
    """The best classifier over all (α, γ): (S + γ)⁻¹(ū + ``source_weight``·w̃); for C = I γ = ∞, w ∝ ū + …·w̃.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> round(float(rmt.joint_optimum(setting).accuracy), 4)
    0.8851
    """

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


def joint_optimum(setting: Transfer | GaussianTransfer, *, source_gamma: bool = False) -> JointOptimum:
    """The optimum over (α, γ) jointly (the setting's own γ is ignored).

    For C = I it lies at γ = ∞, because SNR*² carries the factor h(γ) < 1 (theory.md §4). For a
    :class:`rmt.GaussianTransfer` it is searched for, and the answer has the shape of its n and label_noise.

    ``source_gamma=True`` also optimises γ̃ of a ridge source; its best value is ∞ too, which keeps only the
    direction of the source's mean vector: x = ρ² = β²μ⁴/(M(μ² + η̃/κ̃²)).
    Flipped target labels act as η → η/κ².

    Raises:
        ValueError: K sources of a ``Transfer``, or ``source_gamma`` without its ridge source.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> best = rmt.joint_optimum(setting)
    >>> float(best.gamma), round(float(best.accuracy), 4)
    (inf, 0.8851)
    """
    _checks.flag("source_gamma", source_gamma)
    if isinstance(setting, GaussianTransfer):
        if source_gamma:
            raise ValueError("source_gamma=True is solved for C = I only; search over RidgeSource(gamma=…) instead")
        return _gaussian_joint_optimum(setting)
    score = one_source(setting)
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


#: Step of the grid of log γ, and the number of its peaks that are refined.
_STEP, _PEAKS = 0.25, 3
#: e^−_NOTHING times the lower end of the grid stands for γ → 0.
_NOTHING = 24.0


def _gaussian_joint_optimum(setting: GaussianTransfer) -> JointOptimum:
    """For C ≠ I the best γ is finite as a rule: a search over log γ, each point with its own best α.

    The SNR may have several peaks in γ, one a cluster of eigenvalues, and nearly equal ones swap places between the
    points of a grid: golden sections follow from each of the highest. The limit γ = ∞, where the classifier is
    ū + k·w̃, competes with them, and so does γ → 0, given as a γ far below every eigenvalue (many samples and a signal
    in the directions of least noise want it). Settings have the shape of n and label_noise.
    """
    free = replace(setting, gamma=1.0)
    values = np.asarray(setting.spectrum.values, dtype=float)

    def best(log_gamma: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(log of the) best accuracy's SNR and γα* at γ of shape (G, …)."""
        gamma = np.exp(log_gamma)
        score = GaussianScore(replace(free, gamma=gamma))
        return score.best_snr, np.asarray(score.alpha_star) * (gamma[..., None] if score.vector_alpha else gamma)

    ends = np.log(values.mean()) - 12.0, np.log(values.mean()) + 12.0
    ends = min(ends[0], np.log(values[values > 0].min()) - 5.0), max(ends[1], np.log(values.max()) + 8.0)
    steps = np.append(ends[0] - _NOTHING, np.arange(ends[0], ends[1], _STEP))
    grid = steps.reshape(-1, *(1,) * len(free.shape))
    snr, _ = best(np.broadcast_to(grid, (len(grid), *free.shape)))
    padded = np.concatenate([np.full((1, *free.shape), -np.inf), snr, np.full((1, *free.shape), -np.inf)])
    peaks = np.where((snr >= padded[:-2]) & (snr >= padded[2:]), snr, -np.inf)
    middle = grid.ravel()[np.argsort(-peaks, axis=0)[:_PEAKS]]  # (peaks, …)
    low, high = middle - _STEP, middle + _STEP
    golden = 0.5 * (np.sqrt(5.0) - 1.0)
    for _ in range(40):
        inner = np.stack([high - golden * (high - low), low + golden * (high - low)])
        left, right = best(inner)[0]
        low, high = np.where(left < right, inner[0], low), np.where(left < right, high, inner[1])
    at = 0.5 * (low + high)
    highest = np.argmax(best(at)[0], axis=0)[None]
    at = np.take_along_axis(at, highest, axis=0)[0]
    snr, weight = best(at)
    limit = _infinite_gamma(free)
    beyond = limit.best_snr >= snr
    wide = beyond[..., None] if limit.vector_alpha else beyond
    return JointOptimum(
        source_weight=np.where(wide, limit.alpha_star, weight),
        snr=np.where(beyond, limit.best_snr, snr),
        gamma=np.where(beyond, np.inf, np.exp(at)),
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
