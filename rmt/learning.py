"""Learning curves over n or N, and their exponents for power-law spectra (theory.md §5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from rmt import _checks
from rmt._checks import FloatArray
from rmt.predict import theory
from rmt.settings.gaussian import GaussianTransfer, RidgeSource
from rmt.settings.isotropic import Transfer
from rmt.settings.spectrum import Spectrum

#: Penalties of the first scan for the best one, in units of the mean noise variance, and samples that stand for ∞.
_SCAN, _INFINITE = np.geomspace(1e-16, 1e4, 101), 1e15


def power_law(p: int, capacity: float, difficulty: float, *, snr: float = 2.0) -> tuple[Spectrum, FloatArray]:
    """A power-law task: covariance eigenvalues j^−a, and a mean with m_j²/c_j ∝ j^−b.

    Args:
        p: dimension. capacity: a > 1. difficulty: b > 1; large b is easy (the signal lies in the leading directions).
        snr: signal-to-noise ratio of the best linear classifier, √(mᵀC⁻¹m).

    >>> import rmt
    >>> spectrum, mean = rmt.power_law(1000, 1.5, 2.0)
    >>> round(float((mean**2 / spectrum.values).sum()), 6)
    4.0
    """
    p = _checks.whole("p", p)
    capacity, difficulty, snr = _exponents(capacity, difficulty, snr)
    index = np.arange(1.0, p + 1.0)
    values, energy = index**-capacity, index**-difficulty
    return Spectrum(values), snr * np.sqrt(values * energy / energy.sum())


def learning_exponent(capacity: float, difficulty: float, *, decay: float | None = None) -> float:
    """κ of the lost SNR² ∝ n^−κ of a ridge classifier on a :func:`power_law` task, p → ∞ first.

    At θ ≥ n^−a the loss is ≍ θᵗ + θ^(−1/a)/n with t = min((b − 1)/a, 2): signal not yet learned, and noise. The best
    penalty has θ ≍ n^(−1/(t + 1/a)), hence κ = t/(t + 1/a), which is (b − 1)/b before saturation at t = 2. With
    γ ∝ n^−``decay`` it is min(t·decay, 1 − decay/a), and 0 from decay = a on: ridgeless fits never get there.
    A ridge source has the same exponent in N.

    >>> import rmt
    >>> round(rmt.learning_exponent(1.5, 2.0), 3), rmt.learning_exponent(1.5, 2.0, decay=1.5)
    (0.5, 0.0)
    """
    capacity, difficulty, _ = _exponents(capacity, difficulty, 1.0)
    t = min((difficulty - 1.0) / capacity, 2.0)
    if decay is None:
        return t / (t + 1.0 / capacity)
    decay = float(_checks.at_least("decay", decay, 0.0))
    return max(min(t * decay, 1.0 - decay / capacity), 0.0)


def _exponents(capacity: float, difficulty: float, snr: float) -> tuple[float, float, float]:
    capacity, difficulty, snr = (
        float(_checks.finite(*pair)) for pair in (("capacity", capacity), ("difficulty", difficulty), ("snr", snr))
    )
    if capacity <= 1 or difficulty <= 1 or snr <= 0:
        raise ValueError(
            f"capacity and difficulty must be > 1 and snr > 0, got {capacity:g}, {difficulty:g} and {snr:g}: slower "
            "decay has no finite trace or signal as p grows"
        )
    return capacity, difficulty, snr


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy over sample sizes, its limit, and the local exponent of what is still lost."""

    over: str  #: ``"n"`` or ``"N"``
    sizes: FloatArray  #: (S,)
    gamma: FloatArray  #: (S,) penalty used, of the target for n and of the source for N
    snr: FloatArray  #: (S,) signal-to-noise ratio of the score
    limit_snr: float  #: at infinitely many samples

    @property
    def accuracy(self) -> FloatArray:
        """(S,) Φ(snr)."""
        return ndtr(self.snr)

    @property
    def lost(self) -> FloatArray:
        """(S,) limit_snr² − snr²."""
        return self.limit_snr**2 - self.snr**2

    @property
    def exponents(self) -> FloatArray:
        """(S−1,) local exponents κ of lost ∝ size^−κ, between neighbouring sizes."""
        return -np.diff(np.log(self.lost)) / np.diff(np.log(self.sizes))


def learning_curve(
    setting: Transfer | GaussianTransfer,
    sizes: ArrayLike,
    *,
    over: str = "n",
    alpha: float | None = None,
    gamma: float | str | None = None,
) -> LearningCurve:
    """How accuracy grows with target samples n or with source samples N (the setting's own number is ignored).

    Args:
        setting: one scalar setting with one source; for N a ridge source.
        sizes: (S,) increasing whole numbers. over: ``"n"`` or ``"N"``.
        alpha: the scale used; the best one at each size when None.
        gamma: penalty of the target (over n) or of the source (over N): the setting's own when None, a number, or
            ``"best"`` for the best one at each size.

    >>> import rmt
    >>> spectrum, mean = rmt.power_law(2000, 1.5, 2.0)
    >>> nothing = rmt.FixedSource(vector=0.0 * mean)
    >>> setting = rmt.GaussianTransfer(n=1, gamma=1.0, mean=mean, covariance=spectrum, source=nothing)
    >>> curve = rmt.learning_curve(setting, [100, 200, 400], alpha=0.0, gamma="best")
    >>> curve.accuracy.round(3).tolist()
    [0.97, 0.972, 0.973]
    """
    if not isinstance(setting, Transfer | GaussianTransfer) or setting.shape or setting.source_count is not None:
        raise ValueError("learning_curve takes one scalar Transfer or GaussianTransfer with one source")
    _checks.one_of("over", over, ("n", "N"))
    ridge = setting.source is None if isinstance(setting, Transfer) else isinstance(setting.source, RidgeSource)
    if over == "N" and not ridge:
        raise ValueError("over 'N' needs a ridge source: a fixed one has no samples")
    sizes = np.atleast_1d(_checks.count("sizes", sizes))
    if sizes.ndim != 1 or (np.diff(sizes) <= 0).any():
        raise ValueError(f"sizes must be increasing numbers, got {_checks.shown(sizes)}")
    if isinstance(gamma, str):
        _checks.one_of("gamma", gamma, ("best",))

    def snr(size: FloatArray, penalty: FloatArray) -> FloatArray:
        score = theory(_changed(setting, over, size, penalty))
        return np.asarray(score.best_snr if alpha is None else score.snr(alpha))

    evaluate = snr if over == "n" or isinstance(setting, Transfer) else np.vectorize(snr)
    level = 1.0
    if isinstance(setting, GaussianTransfer):
        level = float(np.mean(np.asarray(setting.spectrum.values)))
    everything = np.append(sizes, _INFINITE)
    if gamma == "best":
        penalties = np.broadcast_to(level * _SCAN, (len(everything), len(_SCAN)))
        for _ in range(3):  # a finer grid around the best point of each size
            at = np.clip(np.argmax(evaluate(everything[:, None], penalties), axis=1), 1, penalties.shape[1] - 2)
            low, high = (np.take_along_axis(penalties, (at + side)[:, None], axis=1) for side in (-1, 1))
            penalties = low * (high / low) ** np.linspace(0.0, 1.0, 17)
        values = evaluate(everything[:, None], penalties)
        best = np.argmax(values, axis=1)[:, None]
        used, found = (np.take_along_axis(array, best, axis=1)[:, 0] for array in (penalties, values))
    else:
        own = _own_penalty(setting, over) if gamma is None else float(_checks.penalty("gamma", gamma))
        used = np.full(len(everything), own)
        found = evaluate(everything, used)
    return LearningCurve(over, sizes, used[:-1], found[:-1], float(found[-1]))


def _own_penalty(setting: Any, over: str) -> float:
    if over == "n":
        return float(setting.gamma)
    return float(setting.gamma_source if isinstance(setting, Transfer) else setting.source.gamma)


def _changed(setting: Any, over: str, size: Any, penalty: Any) -> Any:
    """``setting`` at other samples and penalties; the source of a GaussianTransfer takes single numbers."""
    if over == "n":
        return replace(setting, n=size, gamma=penalty)
    if isinstance(setting, Transfer):
        return replace(setting, N=size, gamma_source=penalty)
    return replace(setting, source=replace(setting.source, N=float(size), gamma=float(penalty)))
