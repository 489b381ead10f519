"""Questions that people ask of a setting: how many samples, which penalty for the source, one more scale?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from rmt import _checks
from rmt._checks import FloatArray
from rmt.predict import theory
from rmt.resolvent import isotropic, spectral
from rmt.scores.quadratic import QuadraticScore
from rmt.settings.gaussian import GaussianTransfer, RidgeSource
from rmt.settings.isotropic import Transfer, source_moments

#: Points of the first scan over n or γ̃, and the most samples that are looked at unless told.
_SCAN, MOST = 241, 10**7


def samples_needed(
    setting: Transfer | GaussianTransfer,
    beat: Any = "source",
    *,
    alpha: float | None = None,
    loss: Any = "square",
    most: int = MOST,
) -> float:
    """The fewest target samples n at which the adapter is better than ``beat`` (the setting's own n is ignored).

    Args:
        setting: one scalar setting with one source.
        beat: ``"source"``, the source used as it is, or an accuracy in (1/2, 1).
        alpha: the scale that is used; the best one at each n when None.
        loss: as in :func:`rmt.theory`. most: samples to look at.

    Returns:
        n, or ``math.inf`` if ``most`` are too few. Where accuracy dips again (n near p at small γ) it is the first n
        that the scan of 241 sizes brackets.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=1, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> rmt.samples_needed(setting), rmt.samples_needed(setting, 0.9)
    (622, 2939)
    """
    if not isinstance(setting, Transfer | GaussianTransfer) or setting.shape or setting.source_count is not None:
        raise ValueError("samples_needed takes one scalar Transfer or GaussianTransfer with one source")
    most = _checks.whole("most", most, low=2)
    alpha = None if alpha is None else _checks.one("alpha", alpha)
    if isinstance(beat, str):
        _checks.one_of("beat", beat, ("source",))
        goal = float(np.asarray(theory(setting).accuracy_source_only))
    else:
        goal = _checks.one("beat", beat)
        if not 0.5 < goal < 1:
            raise ValueError(f"beat must be 'source' or an accuracy in (1/2, 1), got {beat}")
    forbidden = setting.p if float(np.asarray(setting.gamma)) == 0 else -1

    def enough(sizes: FloatArray) -> Any:
        score = theory(replace(setting, n=sizes), loss=loss)
        return (score.best_accuracy if alpha is None else score.accuracy(alpha)) > goal

    sizes = np.unique(np.round(np.geomspace(1, most, _SCAN)))
    sizes = sizes[sizes != forbidden]
    good = enough(sizes)
    if not good.any():
        return math.inf
    first = int(np.argmax(good))
    low, high = (int(sizes[first - 1]) if first else 0), int(sizes[first])
    while high - low > 1:
        inner = np.unique(np.linspace(low, high, min(high - low + 1, 65)).astype(int))[1:]
        inner = inner[inner != forbidden]
        if not inner.size:
            break
        index = int(np.argmax(enough(inner.astype(float))))
        low, high = (int(inner[index - 1]) if index else low), int(inner[index])
    return high


@dataclass(frozen=True)
class SourcePenalty:
    """The penalty γ̃ of a ridge source that is best for the source task, and the one that is best to transfer.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> found = rmt.source_penalty(setting)
    >>> found.transfer_accuracies[1] >= found.transfer_accuracies[0]
    True
    """

    source: float  #: γ̃ of the highest accuracy on the source task
    transfer: float  #: γ̃ of the highest accuracy of the fine-tuned classifier on the target task
    source_accuracies: tuple[float, float]  #: on the source task at (``source``, ``transfer``)
    transfer_accuracies: tuple[float, float]  #: on the target task at (``source``, ``transfer``)


def source_penalty(setting: Transfer | GaussianTransfer, *, alpha: float | None = None) -> SourcePenalty:
    """Which penalty to train the source with, if it is to be fine-tuned (the setting's own γ̃ is ignored).

    The best source need not be the best start: penalties outside the range are given as its ends, 1e-8 and 1e8 times
    the mean noise variance.

    Args:
        setting: one scalar setting with one ridge source. alpha: the scale used; the best one for each γ̃ when None.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> found = rmt.source_penalty(setting)
    >>> found.transfer != found.source
    True
    """
    ridge = isinstance(setting, GaussianTransfer) and isinstance(setting.source, RidgeSource)
    ridge = ridge or (isinstance(setting, Transfer) and setting.source is None)
    if not ridge or setting.shape:
        raise ValueError("source_penalty takes one scalar Transfer or GaussianTransfer with one ridge source")
    alpha = None if alpha is None else _checks.one("alpha", alpha)

    def both(gamma: float) -> tuple[float, float]:
        """Accuracy on the source task and after transfer."""
        if isinstance(setting, Transfer):
            changed: Any = replace(setting, gamma_source=gamma)
            _, norm2 = source_moments(changed)
            lam = isotropic(setting.eta_source, gamma).lam
            mu2 = float(np.asarray(setting.mu)) ** 2
            own = (1.0 - 2.0 * float(np.asarray(setting.label_noise_source))) * mu2 / (lam + mu2)
            snr = own / np.sqrt(norm2)
        else:
            assert isinstance(setting.source, RidgeSource)
            source = replace(setting.source, gamma=gamma)
            changed = replace(setting, source=source)
            weights, noise = source.law
            values = np.asarray(source.spectrum.values)
            snr = weights @ source.spectrum.rotate(source.mean) / np.sqrt(values @ (weights**2 + noise))
        score = theory(changed)
        return float(ndtr(snr)), float(score.best_accuracy if alpha is None else score.accuracy(alpha))

    level = 1.0
    if isinstance(setting, GaussianTransfer):
        assert isinstance(setting.source, RidgeSource)
        level = float(np.mean(np.asarray(setting.source.spectrum.values)))
    best = []
    for which in range(2):
        grid = np.log(level) + np.log(10.0) * np.linspace(-8.0, 8.0, 65)
        for _ in range(4):  # a finer grid around the best point
            values = [both(float(np.exp(x)))[which] for x in grid]
            at = int(np.argmax(values))
            peak = float(np.exp(grid[at]))
            grid = np.linspace(grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)], 17)
        best.append(peak)
    tables = [both(gamma) for gamma in best]
    return SourcePenalty(
        source=best[0],
        transfer=best[1],
        source_accuracies=(tables[0][0], tables[1][0]),
        transfer_accuracies=(tables[0][1], tables[1][1]),
    )


@dataclass(frozen=True)
class TwoScales:
    """w = αw̃ + λa with the adapter a trained beside αw̃, and rescaled afterwards.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> round(float(rmt.two_scales(setting).adapter_scale), 3)
    -0.265
    """

    law: QuadraticScore  #: of w₀ + α·w₁ + ρ·w̃, the same classifier up to its size where ρ = α(1 − λ)/λ
    alpha: float  #: the best α
    adapter_scale: float  #: the best λ
    accuracy: float  #: at the best pair

    def accuracy_at(self, alpha: Any, adapter_scale: Any) -> FloatArray:
        """Accuracy at (α, λ), λ > 0; arrays broadcast."""
        alpha, scale = np.broadcast_arrays(
            _checks.finite("alpha", alpha), _checks.finite("adapter_scale", adapter_scale)
        )
        if (scale <= 0).any():
            raise ValueError(f"adapter_scale must be > 0, got {_checks.shown(adapter_scale)}")
        return self.law.accuracy(np.stack([alpha, alpha * (1.0 - scale) / scale], axis=-1))


def two_scales(setting: Transfer | GaussianTransfer) -> TwoScales:
    """Rescaling the source before training (α) and the adapter after it (λ): the law and the best pair.

    With w_α = w₀ + αw₁ the trained weights, αw̃ + λa = λ(w_α + (1 − λ)/λ·αw̃), so accuracy is that of three fixed
    columns w₀, w₁, w̃. Their products with w̃ are means: w̃ᵀCw_α = w̃ᵀCH(θαw̃ + em) (theory.md §3).

    Args:
        setting: one scalar setting with one source and γ > 0.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> both = rmt.two_scales(setting)
    >>> round(float(both.accuracy), 4) >= round(float(rmt.theory(setting).best_accuracy), 4)
    True
    """
    if not isinstance(setting, Transfer | GaussianTransfer) or setting.shape or setting.source_count is not None:
        raise ValueError("two_scales takes one scalar Transfer or GaussianTransfer with one source")
    score = theory(setting)
    if isinstance(setting, Transfer):
        values, share = np.ones(1), float(setting.p)
        overlap, norm2 = (float(np.asarray(x)) for x in source_moments(setting))
        mean2, cross, source2 = np.array([float(setting.m2)]), np.array([overlap]), np.array([norm2])
        theta = float(isotropic(share / float(setting.n), float(setting.gamma)).theta)
    else:
        mean, (weights,), (noise,) = setting.in_eigenbasis
        values = np.asarray(setting.spectrum.values, dtype=float)
        mean2, cross, source2 = mean**2, mean * weights, weights**2 + noise
        theta = float(spectral(values, setting.n, setting.gamma).theta)
    inverse = 1.0 / (theta + values)
    gain, pull = np.sum(inverse * mean2), np.sum(inverse * cross)
    kappa = 1.0 - 2.0 * float(np.asarray(setting.label_noise))
    residual = np.array([kappa, -theta * pull]) / (1.0 + gain)
    seen = residual * np.sum(values * inverse * cross) + np.array([0.0, theta * np.sum(values * inverse * source2)])
    c, V = np.zeros(3), np.zeros((3, 3))
    c[:2], c[2], V[:2, :2] = np.asarray(score.c), cross.sum(), np.asarray(score.V)
    V[2, :2] = V[:2, 2] = seen
    V[2, 2] = np.sum(values * source2)
    law = QuadraticScore(c, V)
    alpha, rest = (float(x) for x in law.alpha_star)
    return TwoScales(law, alpha, alpha / (alpha + rest) if np.isfinite(alpha) else math.nan, float(law.best_accuracy))
