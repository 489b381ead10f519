"""What a target sample says about its signal and its noise: unbiased moments with their errors (theory.md §6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray

#: No row counts as shorter than this share of the typical length, or a nearly empty row would rule the rest.
_SHORTEST = 0.1


@dataclass(frozen=True)
class Moment:
    """An unbiased estimate and its sampling standard deviation (itself estimated)."""

    value: float
    sd: float


@dataclass(frozen=True)
class NoiseTraces:
    """Traces of the noise covariance C of signed samples, and the dimension that they make up."""

    trace: float  #: tr C
    square: float  #: tr C²
    p: int

    @property
    def scale(self) -> float:
        """tr C/p, the mean eigenvalue."""
        return self.trace / self.p

    @property
    def effective(self) -> float:
        """(tr C)²/tr C² ≤ p, the number of directions that share the noise (Satterthwaite)."""
        return self.trace**2 / self.square if self.square > 0 else float(self.p)


def _rows(rows: Any) -> FloatArray:
    rows = _checks.finite("rows", rows)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"rows must be (n, p) signed samples with n ≥ 2, got shape {rows.shape}")
    return rows


def noise_traces(rows: Any) -> NoiseTraces:
    """tr C and tr C² of signed samples u_i (n, p), both without bias for p ≫ n.

    tr C is that of the sample covariance. tr C² is the mean of (u_iᵀu_j)² over pairs; it also holds
    2mᵀCm + ‖m‖⁴, small beside tr C² in high dimension, and is kept within (tr C)²/p ≤ tr C² ≤ (tr C)².
    """
    rows = _rows(rows)
    n, p = rows.shape
    trace = float(np.sum((rows - rows.mean(axis=0)) ** 2) / (n - 1))
    return NoiseTraces(trace=trace, square=float(np.clip(_pair_square(rows), trace**2 / p, trace**2)), p=p)


def _pair_square(rows: FloatArray) -> float:
    """Mean of (u_iᵀu_j)² over i ≠ j."""
    n, p = rows.shape
    gram = rows @ rows.T if n <= p else rows.T @ rows  # both have the same sum of squares
    own = np.einsum("ij,ij->i", rows, rows)
    return float((np.sum(gram**2) - np.sum(own**2)) / (n * (n - 1)))


def signal(rows: Any) -> Moment:
    """M̂ = (‖Σu_i‖² − Σ‖u_i‖²)/(n(n−1)), unbiased for M = ‖m‖² whatever the covariance.

    sd² = 2 tr C²/n² + 4 mᵀCm/n, with tr C² and mᵀCm estimated; ‖ū‖² would be too large by tr C/n.
    """
    rows = _rows(rows)
    n = len(rows)
    mean = rows.mean(axis=0)
    value = (n * n * mean @ mean - np.sum(rows**2)) / (n * (n - 1))
    traces = noise_traces(rows)
    along = max(float(np.var(rows @ mean, ddof=1)) - traces.square / n, 0.0)  # ūᵀCū = mᵀCm + tr C²/n
    return Moment(float(value), float(np.sqrt(2.0 * traces.square / n**2 + 4.0 * along / n)))


def overlap(rows: Any, source: Any) -> Moment:
    """ĝ = w̃ᵀū, unbiased for g = w̃ᵀm, with sd √(w̃ᵀCw̃/n)."""
    rows, source = _rows(rows), _checks.finite("source", source)
    if source.shape != rows.shape[1:]:
        raise ValueError(f"source must have shape ({rows.shape[1]},) like a row, got {source.shape}")
    scores = rows @ source
    return Moment(float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(rows))))


def resolvent_theta(kernel: FloatArray, gamma: float) -> float:
    """θ̂ = n/tr(K+γ)⁻¹ for K = UUᵀ/n, without any covariance."""
    kernel = _checks.finite("kernel", kernel)
    values = np.maximum(np.linalg.eigvalsh(kernel), 0.0)
    return float(1.0 / np.mean(1.0 / (values + gamma)))


def shrinkage(rows: Any) -> float:
    """Ledoit and Wolf's weight ρ ∈ [0, 1] of the identity in Ĉ = (1−ρ)S_c + ρ(tr S_c/p)I, O(n²p).

    ρ = b²/d² with d² = ‖S_c − (tr S_c/p)I‖²/p and b² the sampling variance of S_c (Ledoit and Wolf 2004); S_c is the
    covariance of the rows about their mean. Two rows say nothing about the shape of C: ρ = 1.
    """
    rows = _rows(rows)
    n, p = rows.shape
    if n == 2:
        return 1.0
    rows = rows - rows.mean(axis=0)
    own = np.einsum("ij,ij->i", rows, rows)
    gram = rows @ rows.T if n <= p else rows.T @ rows
    square = float(np.sum(gram**2)) / n**2 / p  # ‖S_c‖²/p
    distance = square - (own.mean() / p) ** 2
    variance = float(np.mean(own**2)) / n / p - square / n
    return float(np.clip(variance / distance, 0.0, 1.0)) if distance > 0 else 1.0


def dimension(rows: Any) -> float:
    """(tr C)²/tr C² from estimates that do not know p: Satterthwaite's d without p as a bound."""
    rows = _rows(rows)
    trace = float(np.sum((rows - rows.mean(axis=0)) ** 2) / (len(rows) - 1))
    square = _pair_square(rows)
    return max(trace**2 / square, 1.0) if square > 0 else float(len(rows))


def free_shrinkage(rows: Any) -> float:
    """Ledoit and Wolf's weight ρ without p: d/(d + n), d = :func:`dimension`.

    Their b² is the sampling variance of S_c, tr²C/n; their d² takes (tr C)²/p from ‖S_c‖² = tr C² + tr²C/n, which
    features that are zero make vanish. Without it ρ = b²/‖S_c‖² = d/(d + n).
    """
    rows = _rows(rows)
    d = dimension(rows)
    return d / (d + len(rows))


def spread_matching(weight: float) -> float:
    """The weight ρ′ = 1 − √(1−ρ) that keeps the spread of the spectrum, from Ledoit and Wolf's ρ.

    Their Ĉ is the closest to C among the combinations, hence an orthogonal projection, hence too short: its squared
    distance from the identity is (1−ρ)²d², while that of C itself is (1−ρ)d² (d² that of S_c). tr C²/n is the noise
    of the fitted weights, so predictions made with ρ are too good; with ρ′ tr Ĉ² is right.
    """
    return 1.0 - float(np.sqrt(1.0 - weight))


def row_lengths(rows: Any) -> FloatArray:
    """(n,) lengths r_i (their squares average 1) of rows that differ in scale, u_i = r_i·(m + z_i).

    They are all 1 for Gaussian rows.

    Signs of scores do not change when a row is multiplied by a positive number, so accuracy may be computed from
    u_i/r_i, whose scores are close to Gaussian where those of u_i (long and short texts together) are not.
    ‖u_i‖² also varies by the noise itself, by 2 tr C² + 4mᵀCm in variance; only the share f of the observed
    variance beyond that is scale: r_i² = 1 + f(‖u_i‖²/mean − 1).
    """
    rows = _rows(rows)
    squared = np.einsum("ij,ij->i", rows, rows)
    spread = float(np.var(squared, ddof=1))
    share = max(0.0, 1.0 - 2.0 * _pair_square(rows) / spread) if spread > 0 else 0.0
    if share == 0.0:
        return np.ones(len(rows))
    return np.sqrt(np.maximum(1.0 + share * (squared / squared.mean() - 1.0), _SHORTEST**2))
