"""Choosing (α, γ) by the accuracy to be expected given what a small sample leaves unknown.

The plug-in rule treats estimated moments as known; at n = 20 their noise is larger than the signal, and the rule trusts
the target sample far too much. Here the mean of the target keeps its posterior distribution and every classifier is
judged by the accuracy expected under it.

**Model.** With source scores standardised by their noise, s_k = w̃_kᵀm/σ_k, σ_k² = w̃_kᵀCw̃_k, R their noise
correlation, and
v_k = Cw̃_k/σ_k, split the target mean into what the sources see and the rest::

    m = Σ_k v_k (R⁻¹s)_k + r,      r ~ N(0, (t²/p) C),      ū | m ~ N(m, C/n)

Φ(s_k) is the accuracy of source k on the target, Φ(t) the accuracy the rest would allow alone.

**Prior.** Nothing is known but that both lie between chance and perfect: each is uniform on (½, 1). So t is
half-normal, and s_k is half-normal too; to keep the posterior in closed form (and to let a harmful source have s_k <
0) it is taken normal with the half-normal's mean √(2/π) and variance 1 − 2/π. The prior thus
counts like 1/(1 − 2/π), about three, samples in favour of the source.

**Posterior.** With τ² = t²/p, ω = τ² + 1/n, κ = τ²/ω (weight of ū), and for each t on a grid::

    m̄ = κū + (1−κ) V R⁻¹s̄,       cov = (κ/n) C + (1−κ)² b V R⁻¹Vᵀ,      s̄, b: normal update of s by ŝ = w̃ᵀū/σ,
    variance ω p(t) ∝ half-normal(t) · N(ŝ; prior mean, (b₀+ω)R) · χ²-likelihood of ‖ū − VR⁻¹ŝ‖² with tr²C/tr C²
    degrees of freedom

A new score wᵀu then has mean wᵀm̄ and variance wᵀ(C + cov)w, averaged over t; with w = W(γ)q this is again a Rayleigh
quotient, whose maximiser over q is in closed form for any number of sources (theory.md §1).

**Caution.** At n = 10 the highest expected accuracy is a gamble: what it wins over the untouched source is small
against what is unknown. So the choice is made along the way from the source to that maximiser, at every γ, by the
largest *sure*
gain: with a = w/√(wᵀCw) − w̃/√(w̃ᵀCw̃), the gain in mean/sd is aᵀm, of posterior mean aᵀm̄ and standard error √(aᵀcov
    a), and aᵀm̄ − √(aᵀcov a) is maximised (the one-standard-error rule, applied to the paired difference). It is 0 at
    the source itself.

**Noise.** wᵀCw must not be computed with a covariance estimated from the rows that w was fitted to. Its sample part is
replaced by the covariance of exact leave-one-out scores; variances (one number each, known to √(2/(n−1))) are drawn
from the covariance model towards their left-out values as far as the two disagree by more than chance, and
correlations are shrunk by the Ledoit–Wolf weight. Everything is computed on rows brought to equal length
(:func:`rmt.choosing.moments.row_lengths`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from rmt._checks import FloatArray
from rmt.choosing.direction import best_direction, snr
from rmt.choosing.moments import NoiseTraces, noise_traces, row_lengths, shrinkage
from rmt.choosing.ridge_path import RidgePath

#: Mean and variance of |N(0, 1)|: the prior of a source's signal-to-noise ratio.
PRIOR_MEAN = float(np.sqrt(2.0 / np.pi))
PRIOR_VARIANCE = 1.0 - 2.0 / np.pi
#: Steps from the untouched source (0) to the classifier of the highest expected accuracy (1).
_STEPS = np.linspace(0.0, 1.0, 41)
#: Grid of t; beyond 4 a classifier would be right 99.997 times in 100.
_T = np.linspace(0.0, 4.0, 81)[1:]


@dataclass(frozen=True)
class Expected:
    """What is expected of the classifier W(γ)q, before any test row is seen."""

    gamma: float
    q: FloatArray  #: (K+1,) weights of the columns of W(γ)
    merit: float  #: what the choice maximises: the sure gain in mean/sd over the source (no source: mean/sd)
    mean: float  #: posterior mean of the score
    variance: float  #: predictive variance with the left-out noise variance
    accuracy: float  #: Φ(mean/√variance), the predicted accuracy
    interval: tuple[float, float]  #: where the accuracy lies with the asked probability


@dataclass(frozen=True)
class NoiseModel:
    """How wᵀCw is estimated: Ĉ = (1−ρ)S_c + ρ(tr/p)I with weight ρ, or a given covariance."""

    weight: float | None = None  #: ρ; None for Ledoit and Wolf's
    covariance: FloatArray | None = None  #: (p, p), known from elsewhere


class Posterior:
    """The posterior of the target mean, and the classifiers it expects most of.

    Args:
        path: rows and sources; at least 3 rows.
        gammas: penalties to consider (inf allowed).
        noise: see :class:`NoiseModel`.
        caution: posterior standard errors of the gain over the untouched source that are subtracted before choosing;
            1 is the one-standard-error rule, 0 takes the highest expected accuracy.

    Raises:
        ValueError: fewer than 3 rows, rows without any noise, or a source that is zero.
    """

    def __init__(
        self, path: RidgePath, gammas: Sequence[float], noise: NoiseModel | None = None, *, caution: float = 1.0
    ) -> None:
        if path.n < 3:
            raise ValueError(f"the posterior needs at least 3 rows, got {path.n}; collect more target samples")
        self.path, self.noise, self.caution = path, noise or NoiseModel(), caution
        self.gammas = [float(gamma) for gamma in gammas]
        self.lengths = row_lengths(path.rows)
        rows = path.rows / self.lengths[:, None]
        self.mean = rows.mean(axis=0)  # shape (p,)
        self.residuals = rows - self.mean
        self.traces = self._traces(rows)
        if not self.traces.trace > 1e-20 * float(np.sum(rows**2)):  # equal rows leave rounding errors
            raise ValueError("the rows do not vary, so their noise cannot be estimated; check for repeated samples")
        self.rho = shrinkage(rows) if self.noise.weight is None else self.noise.weight
        self._measure()
        self._update()

    def _traces(self, rows: FloatArray) -> NoiseTraces:
        C = self.noise.covariance
        if C is None:
            return noise_traces(rows)
        return NoiseTraces(trace=float(np.trace(C)), square=float(np.sum(C**2)), p=self.path.p)

    def _apply(self, W: FloatArray) -> FloatArray:
        """ĈW for columns that do not depend on the sample; (p, ·)."""
        if self.noise.covariance is not None:
            return self.noise.covariance @ W
        sample = self.residuals.T @ (self.residuals @ W) / (self.path.n - 1)
        return (1.0 - self.rho) * sample + self.rho * self.traces.scale * W

    def _measure(self) -> None:
        """Noise covariances of the columns of [W(γ), W̃] for every γ, (G, 1+2K, 1+2K)."""
        path, sources = self.path, self.path.sources
        left_out, model, signals = [], [], []
        for gamma in self.gammas:
            columns = np.hstack([path.weights(gamma), sources])
            scores = np.hstack([path.loo_scores(gamma), path.source_scores]) / self.lengths[:, None]
            left_out.append(np.atleast_2d(np.cov(scores.T)))
            if self.noise.covariance is None:
                model.append(self.traces.scale * columns.T @ columns)
            else:
                model.append(columns.T @ self.noise.covariance @ columns)
            signals.append(columns.T @ self.mean)
        self.left_out, model_forms = np.array(left_out), np.array(model)
        self.signals = np.array(signals)  # W'ū, shape (G, 1+2K)
        shape = model_forms
        if self.noise.covariance is None:
            shape = (1.0 - self.rho) * self.left_out + self.rho * model_forms
        variances = _shrunk_variances(self.left_out, model_forms, self.path.n - 1)
        factor = np.sqrt(variances / _diagonals(shape))
        self.forms = shape * factor[:, :, None] * factor[:, None, :]

    def _update(self) -> None:
        """The posterior over t and, given t, of the weights of ū and of the sources' directions."""
        path, n = self.path, self.path.n
        K = path.sources.shape[1]
        self._own = slice(1 + K, 1 + 2 * K)  # the columns of W̃ itself
        own = self.forms[-1, self._own, self._own]
        self.sd = np.sqrt(np.diag(own))  # σ_k, shape (K,)
        if (self.sd == 0).any():
            raise ValueError("a source is zero; leave it out")
        self.precision = np.linalg.pinv(own / np.outer(self.sd, self.sd), rcond=1e-8, hermitian=True)  # R⁻¹
        estimate = self.mean @ path.sources / self.sd  # ŝ, shape (K,)
        directions = self._apply(path.sources)
        scale = np.einsum("pk,pk->k", path.sources, directions)
        directions = directions * (self.sd / np.where(scale > 0, scale, 1.0))  # v_k, with w̃_k'v_k = σ_k
        rest = self.mean - directions @ (self.precision @ estimate)

        tau2 = _T**2 / path.p
        omega = tau2 + 1.0 / n
        freedom, ratio = self.traces.effective, float(rest @ rest) / self.traces.trace
        total = PRIOR_VARIANCE + omega
        gap = estimate - PRIOR_MEAN
        rank = np.linalg.matrix_rank(self.precision, hermitian=True) if K else 0
        log = -0.5 * _T**2 - 0.5 * freedom * (np.log(omega) + ratio / omega)
        log -= 0.5 * rank * np.log(total) + 0.5 * float(gap @ self.precision @ gap) / total
        density = np.exp(log - log.max())
        density /= density.sum()

        kappa = tau2 / omega
        given = (PRIOR_VARIANCE * estimate[:, None] + omega * PRIOR_MEAN) / total  # s̄ for each t, shape (K, T)
        parts = np.vstack([kappa, (1.0 - kappa) * (self.precision @ given)])  # weights of ū and v_k, shape (1+K, T)
        self.weights = parts @ density
        spread = parts - self.weights[:, None]
        self.between = (spread * density) @ spread.T  # uncertainty of t, shape (1+K, 1+K)
        self.noise_share = float(kappa @ density) / n
        self.source_share = float(((1.0 - kappa) ** 2 * PRIOR_VARIANCE * omega / total) @ density)
        self.t = float(_T @ density)

    def _forms(self, index: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Posterior mean of the scores of [W(γ), W̃], the covariance of that mean, and their noise; 1+2K columns."""
        noise = self.forms[index]
        along = noise[:, self._own] / self.sd  # columns' overlaps with v_k, shape (1+2K, K)
        seen = np.column_stack([self.signals[index], along])
        unknown = self.noise_share * noise + self.source_share * along @ self.precision @ along.T
        return seen @ self.weights, unknown + seen @ self.between @ seen.T, noise

    def _careful(self, index: int) -> tuple[FloatArray, float]:
        """The combination of W(γ)'s columns with the best sure gain over the untouched source, and that gain."""
        K = self.path.sources.shape[1]
        mean, unknown, noise = self._forms(index)
        head = slice(0, 1 + K)
        bold = best_direction(mean[head], (noise + unknown)[head, head])
        if not K:
            return bold.q, bold.snr
        alone = self._untouched(mean[self._own], (noise + unknown)[self._own, self._own])
        reference = np.concatenate([np.zeros(1 + K), alone / np.sqrt(alone @ noise[self._own, self._own] @ alone)])
        start = np.concatenate([[0.0], alone / np.sqrt(alone @ noise[1 : 1 + K, 1 : 1 + K] @ alone), np.zeros(K)])
        end = np.concatenate([bold.q / np.sqrt(bold.q @ noise[head, head] @ bold.q), np.zeros(K)])
        blend = start + _STEPS[:, None] * (end - start)  # shape (steps, 1+2K)
        blend /= np.sqrt(np.einsum("si,ij,sj->s", blend, noise, blend))[:, None]
        change = blend - reference
        error = np.sqrt(np.maximum(np.einsum("si,ij,sj->s", change, unknown, change), 0.0))
        gain = change @ mean - self.caution * error
        best = int(np.argmax(gain))
        return blend[best, head], float(gain[best])

    def _untouched(self, mean: FloatArray, variance: FloatArray) -> FloatArray:
        """(K,) weights ≥ 0 of the sources used as they are: one source counts 1, several by their expected worth.

        Never negative: to turn a source round is a change that has to be sure like any other.
        """
        if len(mean) > 1:
            weights = np.maximum(best_direction(np.append(0.0, mean), _bordered(variance)).q[1:], 0.0)
            if weights.any():
                return weights
        return 1.0 / self.sd

    def expect(self, index: int, q: FloatArray | None = None, level: float = 0.95) -> Expected:
        """The chosen classifier at ``gammas[index]``, or W(γ)q for a given q, with its expected accuracy.

        The interval joins two errors of mean/sd: the posterior's of the mean, and 1/√(2(n−1)) relative for the sd.
        """
        K = self.path.sources.shape[1]
        mean, unknown, noise = (part[..., : 1 + K] for part in self._forms(index))
        unknown, noise = unknown[: 1 + K], noise[: 1 + K]
        ratio = 0.0
        if q is None:
            q, ratio = self._careful(index)
        else:
            ratio = snr(mean, noise + unknown, q)
        left_out = float(q @ self.left_out[index, : 1 + K, : 1 + K] @ q)
        drift, score = float(q @ unknown @ q), float(mean @ q)
        variance = left_out + drift
        if not variance > 0:
            return Expected(self.gammas[index], q, ratio, score, 0.0, float(ndtr(ratio)), (0.0, 1.0))
        centre = score / np.sqrt(left_out) if left_out > 0 else ratio
        error = np.sqrt(drift / left_out + centre**2 / (2.0 * (self.path.n - 1))) if left_out > 0 else np.inf
        width = float(ndtri(0.5 + level / 2.0)) * error
        interval = (float(ndtr(centre - width)), float(ndtr(centre + width)))
        accuracy = float(ndtr(score / np.sqrt(variance)))
        return Expected(self.gammas[index], q, ratio, score, variance, accuracy, interval)

    def choose(self) -> list[Expected]:
        """The best classifier at each γ, in the order of ``gammas``; take the one of the highest ``merit``."""
        return [self.expect(index) for index in range(len(self.gammas))]


def _bordered(V: FloatArray) -> FloatArray:
    """V with a first row and column of a unit that nothing is correlated with."""
    out = np.eye(len(V) + 1)
    out[1:, 1:] = V
    return out


def _diagonals(forms: FloatArray) -> FloatArray:
    return np.maximum(np.einsum("gii->gi", forms), np.finfo(float).tiny)


def _shrunk_variances(left_out: FloatArray, model: FloatArray, freedom: int) -> FloatArray:
    """Variances between the model's and the left-out ones, on the log scale; (G, 1+2K).

    A sample variance on f degrees of freedom has log-variance about 2/f. Where the log-ratios to the model scatter more
    than that, the model is wrong by δ² = mean(log-ratio²) − 2/f, and the left-out value gets weight δ²/(δ² + 2/f).
    The target column and the source columns count equally in the mean.
    """
    ratio = np.log(_diagonals(left_out) / _diagonals(model))
    squared = np.mean(ratio[:, 0] ** 2)
    if ratio.shape[1] > 1:
        squared = (squared + np.mean(ratio[:, 1:] ** 2)) / 2.0
    excess = max(float(squared) - 2.0 / freedom, 0.0)
    weight = excess / (excess + 2.0 / freedom)
    return _diagonals(model) * np.exp(weight * ratio)
