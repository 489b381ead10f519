"""Choosing (α, γ) by the evidence of a Gaussian model, in the row space: nothing here knows p.

**Model.** The coded outputs of row i are β + Σ_k α_k s_k(x_i) + aᵀ(x_i − x̄) + noise, with the source scores s_k (their
own intercepts included) brought to unit variance on the sample, and independent priors::

    α_k ~ N(½/K, 2σ²),    a ~ N(0, σ²/(nγ) I),    β ~ N(0, vσ²),    noise ~ N(0, σ²),    p(σ²) ∝ 1/σ²

The mode of a given (α, γ) is the ridge fine-tuning of theory.md §0, so γ *is* the size of what the source does not
see, and v that of the error of its threshold. Neither is known: each (γ, v) of a grid has the same prior probability,
γ = ∞ (the source alone) and v = 1/1000 (its threshold holds) among them, and what speaks for and against them is
weighed by one number. With A = I + K/γ + v11ᵀ, K = XXᵀ/n for centred rows, e = y − ½Σs_k/K, and α, a, β and σ²
integrated out::

    log p(y | γ, v) = −½ log|A| − ½ log|½I + F| − ½ n log(eᵀA⁻¹e − gᵀ(½I+F)⁻¹g),   F = SᵀA⁻¹S,  g = SᵀA⁻¹e

The classifier is the mean over the posterior of all (γ, v), not the best of them: nothing is maximised, so there is no
winner's curse. Several classes share α, γ and v; their outputs are the columns 1_c − 1/C, and source scores lose what
all classes have in common, which no decision sees. The forms are then sums over outputs, and a row still counts once:
its outputs are one label (taken for C − 1 observations they make the evidence too sure of a γ that is too large).

**Leave-one-out.** Without row i every line above is a rank-one change, the weights of the grid included, so the score
of row i under the *whole* rule fitted to the others (centre, α, β and the evidence for each (γ, v) anew) is exact and
costs no further decomposition. With T = (I + K/γ)⁻¹ − 11ᵀ/n and t_i its diagonal, quadratic forms lose
(Te)_i²/t_i and gain (Σ_{j≠i}e_j)²/((n−1)(1+(n−1)v)), determinants t_i; and the flat-intercept residual (Te)_i/t_i
becomes that of a threshold drawn towards 0.

**Invariance.** Only K, the source scores over their own size, and γ in units of Σλ²/Σλ (λ the eigenvalues of K) enter:
scaling the features or a source, a rotation, features that are zero, change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rmt._checks import FloatArray

#: Prior of the standardised α of one source.
PRIOR_MEAN, PRIOR_VARIANCE = 0.5, 2.0
#: Prior variances of the threshold, in units of the noise: the source's holds, is a little off, unknown, no guide.
THRESHOLDS = np.array([1e-3, 0.03, 1.0, 1e4])


class Rows:
    """The sample in its eigenbasis; one decomposition of size min(n, p) for all outputs, sources and penalties.

    Args:
        X: (n, p) rows.
        centred: remove the mean of the rows, for a model with a threshold.
    """

    def __init__(self, X: FloatArray, *, centred: bool) -> None:
        self.centred = centred
        self.n, p = X.shape
        self.centre = X.mean(axis=0) if centred else np.zeros(p)
        self.X = X - self.centre if centred else X
        n = self.n
        if n <= p:
            values, basis = np.linalg.eigh(self.X @ self.X.T / n)
            keep = values > max(values[-1], 0.0) * n * np.finfo(float).eps
            self.values, self.basis = values[keep], basis[:, keep]
        else:
            values, right = np.linalg.eigh(self.X.T @ self.X / n)
            keep = values > max(values[-1], 0.0) * p * np.finfo(float).eps
            self.values = values[keep]
            self.basis = self.X @ (right[:, keep] / np.sqrt(n * self.values))
        total = float(self.values.sum())
        #: the unit in which penalties make sense: the eigenvalue that a typical part of the variance has
        self.scale = float(np.sum(self.values**2)) / total if total > 0 else 1.0
        self._complete = len(self.values) == n - int(centred)

    def residuals(self, gammas: FloatArray, columns: FloatArray) -> FloatArray:
        """(G, n, ·) TZ for centred columns Z (n, ·), without cancellation where the rows span everything."""
        parts = self.basis.T @ columns  # (r, ·)
        each = self._kept(gammas) if self._complete else self.values / (self.values + gammas[:, None])
        mixed = self.basis @ (each.T[:, :, None] * parts[:, None, :]).reshape(len(parts), -1)
        mixed = mixed.reshape(self.n, len(gammas), -1).transpose(1, 0, 2)
        return mixed if self._complete else columns - mixed

    def diagonal(self, gammas: FloatArray) -> FloatArray:
        """(G, n) t_i."""
        squares = self.basis**2
        if self._complete:
            return self._kept(gammas) @ squares.T
        return 1.0 - self.centred / self.n - (self.values / (self.values + gammas[:, None])) @ squares.T

    def _kept(self, gammas: FloatArray) -> FloatArray:
        """(G, r) γ/(λ+γ)."""
        return 1.0 / (1.0 + self.values / gammas[:, None])

    def log_determinant(self, gammas: FloatArray) -> FloatArray:
        """(G,) log|I + K/γ|."""
        return np.sum(np.log1p(self.values / gammas[:, None]), axis=1)


class Scores:
    """Source scores of the rows, brought to one size.

    Args:
        rows: the sample.
        weights: (K, M, p) source weights, of any size. offsets: (K, M) their intercepts (0 without a threshold).
    """

    def __init__(self, rows: Rows, weights: FloatArray, offsets: FloatArray) -> None:
        M = weights.shape[1]
        largest = np.abs(weights).max(axis=(1, 2), initial=0.0)  # 1e±200 must not overflow
        weights, offsets = weights / largest[:, None, None], offsets / largest[:, None]
        if M > 1:
            weights, offsets = (each - each.mean(axis=1, keepdims=True) for each in (weights, offsets))
        about = np.einsum("np,kmp->knm", rows.X, weights, optimize=True)
        size = np.sqrt(np.mean(about**2, axis=(1, 2)))
        faint = 1e-13 * np.sqrt(np.mean(rows.X**2) * np.sum(weights**2, axis=(1, 2)) / max(M, 1))
        size = np.where(size > faint, size, np.inf)  # a source that the rows do not see has no scores
        self.level = (weights @ rows.centre + offsets) / np.where(np.isfinite(size), size, 1.0)[:, None]  # at x̄
        self.weights = weights / size[:, None, None]
        self.about = about / size[:, None, None]  # (K, n, M) about the centre of the rows
        self.level = np.where(np.isfinite(size)[:, None], self.level, 0.0)
        #: (K,) what standardised scales are divided by to be scales of the sources as given
        self.units = np.where(np.isfinite(size), size, 1.0) * largest

    @property
    def K(self) -> int:
        """Number of sources."""
        return len(self.about)


@dataclass(frozen=True)
class Averaged:
    """The mean classifier of some (γ, v), and what it says of rows that it has not seen."""

    alpha: FloatArray  #: (K,) mean standardised scale
    weights: FloatArray  #: (M, p)
    level: FloatArray  #: (M,) scores at the centre of the rows
    left_out: FloatArray  #: (n, M) exact leave-one-out scores


class Posterior:
    """The posterior of (γ, v) and the classifiers that go with it.

    Args:
        rows: the sample.
        outputs: (n, M) coded classes, prior mean 0.
        scores: of the sources.
        gammas: (G,) penalties to weigh, inf for the source alone.
        alpha: (K,) standardised scales where they are given, else None.
        caution: log-prior odds of a simpler state, per factor e of 1 + tr K/(nγ) and of 1 + nv.
    """

    def __init__(
        self,
        rows: Rows,
        outputs: FloatArray,
        scores: Scores,
        gammas: FloatArray,
        *,
        alpha: FloatArray | None = None,
        caution: float = 0.0,
    ) -> None:
        self.rows, self.scores, self.gammas, self.given = rows, scores, gammas, alpha
        self.outputs = outputs
        n = len(outputs)
        self._K = scores.K if alpha is None else 0
        self._start = np.full(scores.K, PRIOR_MEAN / max(scores.K, 1)) if alpha is None else alpha
        every = scores.about + scores.level[:, None, :]  # (K, n, M)
        rest = outputs - np.einsum("k,knm->nm", self._start, every)
        # columns e, s_1 … s_K, in the order (n, 1+K, M)
        self._columns = np.stack([rest, *every[: self._K]], axis=1)
        self._sums = self._columns.sum(axis=0)  # (1+K, M)
        centred = self._columns - self._sums / n if rows.centred else self._columns
        self._centred = centred.reshape(n, -1)
        self._v = THRESHOLDS if rows.centred else np.zeros(1)
        log, self._alpha, log_without, self._scores_without = self._compute()
        prior = -caution * np.log1p(float(rows.values.sum()) / n / gammas)[:, None] - caution * np.log1p(n * self._v)
        self.weight = _normalised(log + prior)  # (G, V)
        self._weight_without = _normalised(log_without + prior[:, :, None])  # (G, V, n)

    def _compute(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """log p(y | γ, v) (G, V) and E α (G, V, K); without row i log p (G, V, n) and its scores (G, V, n, M)."""
        rows, v, K, gammas = self.rows, self._v, self._K, self.gammas
        n, _, M = self._columns.shape
        T = rows.residuals(gammas, self._centred).reshape(-1, n, 1 + K, M)
        own = np.maximum(rows.diagonal(gammas), np.finfo(float).eps)
        flat = np.tensordot(T, self._centred.reshape(n, 1 + K, M), axes=([1, 3], [0, 2]))  # (G, 1+K, 1+K)
        shape = rows.log_determinant(gammas)[:, None]
        drawn = rows.centred / (1.0 + n * v) / n
        forms = flat[:, None] + drawn[:, None, None] * (self._sums @ self._sums.T)
        step, quadratic, extra = self._integrated(forms)
        log = -0.5 * (shape + np.log1p(n * v) + extra + n * self._log(quadratic))

        lost = T @ T.swapaxes(2, 3) / own[:, :, None, None]
        others = self._sums - self._columns  # sums without row i, (n, 1+K, M)
        drawn = rows.centred / (1.0 + (n - 1) * v)
        gained = others @ others.swapaxes(1, 2) / (n - 1)
        forms = (flat[:, None] - lost)[:, None] + drawn[:, None, None, None] * gained  # (G, V, n, 1+K, 1+K)
        shift, quadratic, extra = self._integrated(forms)
        size = (shape + np.log(own))[:, None] + np.log1p((n - 1) * v)[:, None]
        log_without = -0.5 * (size + extra + (n - 1) * self._log(quadratic))
        T = T / own[:, :, None, None]
        residual = T[:, None, :, 0] - np.einsum("gvnk,gnkm->gvnm", shift, T[:, :, 1:])
        gap = others[:, 0] - np.einsum("gvnk,nkm->gvnm", shift, others[:, 1:])
        residual += drawn[:, None, None] / (n - 1) * gap
        return log, self._start[:K] + step, log_without, self.outputs - residual

    def _integrated(self, forms: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """α's step from the prior mean, what is left of eᵀA⁻¹e, and log|½I + F|, for forms (…, 1+K, 1+K)."""
        precision = forms[..., 1:, 1:] + np.eye(self._K) / PRIOR_VARIANCE
        g = forms[..., 1:, 0]
        step: FloatArray
        extra: FloatArray
        if self._K == 1:  # many small systems: a division is faster
            step, extra = g / precision[..., 0], np.log(precision[..., 0, 0])
        else:
            step, extra = np.linalg.solve(precision, g[..., None])[..., 0], np.linalg.slogdet(precision)[1]
        return step, forms[..., 0, 0] - np.sum(g * step, axis=-1), extra

    def _log(self, quadratic: FloatArray) -> FloatArray:
        floor = np.finfo(float).eps * max(float(np.sum(self._columns[:, 0] ** 2)), np.finfo(float).tiny)
        return np.log(np.maximum(quadratic, floor))

    @cached_property
    def _source_parts(self) -> FloatArray:
        """(K, r, M) the source scores in the eigenbasis."""
        return np.einsum("nr,knm->krm", self.rows.basis, self.scores.about, optimize=True)

    @property
    def by_penalty(self) -> FloatArray:
        """(G,) p(γ | y)."""
        return self.weight.sum(axis=1)

    def averaged(self, only: int | None = None) -> Averaged:
        """The mean classifier over all penalties, or over the thresholds of one of them (an index)."""
        chosen = slice(None) if only is None else slice(only, only + 1)
        weight, without = self._weights_of(chosen, each=only is not None)
        scores, values, v, n = self.scores, self.rows.values, self._v, self.rows.n
        mean = np.einsum("gv,gvk->gk", weight, self._scales[chosen])
        alpha = mean.sum(axis=0)
        inverse = 1.0 / (values + self.gammas[chosen][:, None])  # (G, r), 0 at γ = ∞
        dual = (weight.sum(axis=1) @ inverse)[:, None] * (self.rows.basis.T @ self.outputs)
        dual -= np.einsum("kr,krm->rm", mean.T @ inverse, self._source_parts)
        beta = np.zeros(self.outputs.shape[1])
        if self.rows.centred:
            trust = weight * n * v / (1.0 + n * v)
            drawn = np.einsum("gv,gvk->k", trust, self._scales[chosen]) @ scores.level
            beta = trust.sum() * self.outputs.mean(axis=0) - drawn
        left_out = np.einsum("gvn,gvnm->nm", without, self._scores_without[chosen])
        weights = np.einsum("k,kmp->mp", alpha, scores.weights) + (self.rows.X.T @ (self.rows.basis @ dual) / n).T
        return Averaged(alpha, weights, beta + alpha @ scores.level, left_out)

    def path(self) -> tuple[FloatArray, FloatArray]:
        """Mean standardised scales (G, K) and left-out scores (G, n, M) at each penalty."""
        weight, without = self._weights_of(slice(None), each=True)
        alpha = np.einsum("gv,gvk->gk", weight, self._scales)
        return alpha, np.einsum("gvn,gvnm->gnm", without, self._scores_without)

    def _weights_of(self, chosen: slice, *, each: bool) -> tuple[FloatArray, FloatArray]:
        """Weights of the grid, as they are or over their sum at each penalty."""
        weight, without = self.weight[chosen], self._weight_without[chosen]
        if not each:
            return weight, without
        tiny = np.finfo(float).tiny
        weight = weight / np.maximum(weight.sum(axis=1, keepdims=True), tiny)
        return weight, without / np.maximum(without.sum(axis=1, keepdims=True), tiny)

    @cached_property
    def _scales(self) -> FloatArray:
        """(G, V, K) standardised scales."""
        if self.given is None:
            return self._alpha
        return np.broadcast_to(self.given, (*self.weight.shape, self.scores.K))


def _normalised(log: FloatArray) -> FloatArray:
    """exp(log) over its sum along the first two axes."""
    weight = np.exp(log - log.max(axis=(0, 1)))
    return weight / weight.sum(axis=(0, 1))


def penalties(scale: float, *, low: float = 1e-2, high: float = 10**1.5, count: int = 16) -> FloatArray:
    """(count + 1,) penalties in units of ``scale``, γ = ∞ last."""
    return np.append(np.geomspace(low * scale, high * scale, count), np.inf)
