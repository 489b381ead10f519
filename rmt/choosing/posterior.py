"""Choosing (α, γ) by the evidence of a Gaussian model, in the row space: nothing here knows p.

**Model.** The coded outputs of row i are b + Σ_k α_k s_k(x_i) + a(x_i) + noise, with source scores s_k brought to unit
mean square on the sample, and independent priors::

    α_k ~ N(½/K, 2),      aᵀx with a ~ N(0, σ²/(nγ) I),      noise ~ N(0, σ²),      p(σ²) ∝ 1/σ²

The mode of a given (α, γ) is the ridge fine-tuning of theory.md §0, so γ *is* the size of what the source does not
see, and it is estimated: with A = I + K/γ, K = XXᵀ/n, e = y − ½Σs_k/K, and α, a and σ² integrated out (M outputs, f
degrees of freedom, f = n − 1 where an intercept is fitted)::

    log p(y | γ) = −½ M log|A| − ½ log|½I + F| − ½ M f log(eᵀA⁻¹e − gᵀ(½I+F)⁻¹g),    F = SᵀA⁻¹S,  g = SᵀA⁻¹e
    E α = ½/K + (½I+F)⁻¹g

γ = ∞, with a = 0, is the source alone. It is one state among the others: what speaks for it and against it is
weighed by the same number. The chosen γ is the median of p(γ | y), α its mean given that γ. Several classes share α and
γ; their outputs are the M of the formula. Nothing is maximised over a path, hence no winner's curse to speak of.

**Invariance.** Only K, the source scores over their own size, and γ in units of Σλ²/Σλ (λ the eigenvalues of K) enter:
scaling the features or a source, a rotation, features that are zero, change nothing.
"""

from __future__ import annotations

import numpy as np

from rmt._checks import FloatArray

#: Prior of the standardised α: half of a perfect source's (correlation ½), wide enough for useless and harmful ones.
PRIOR_MEAN, PRIOR_VARIANCE = 0.5, 2.0


class Posterior:
    """The evidence for every penalty, and the fits that go with them.

    Args:
        X: (n, p) rows, centred where ``centred``.
        outputs: (n, M) coded classes ±1, centred likewise.
        sources: (K, M, p) source weights, of any size.
        centred: whether the means of the rows and outputs were removed (one degree of freedom less).
    """

    def __init__(self, X: FloatArray, outputs: FloatArray, sources: FloatArray, *, centred: bool) -> None:
        self.X, self.outputs, self.centred = X, outputs, centred
        n, p = X.shape
        self.n, self.freedom = n, n - int(centred)
        if n <= p:
            values, self._basis = np.linalg.eigh(X @ X.T / n)
            keep = values > max(values[-1], 0.0) * n * np.finfo(float).eps
            values, self._basis = values[keep], self._basis[:, keep]
        else:
            values, right = np.linalg.eigh(X.T @ X / n)
            keep = values > max(values[-1], 0.0) * p * np.finfo(float).eps
            values = values[keep]
            self._basis = X @ (right[:, keep] / np.sqrt(n * values))
        self._values = values
        total = float(values.sum())
        #: the unit in which penalties make sense: the eigenvalue that a typical part of the variance has
        self.scale = float(np.sum(values**2)) / total if total > 0 else 1.0
        # A source's size must not matter, and 1e±200 must not overflow.
        self.largest = np.abs(sources).max(axis=(1, 2), initial=0.0) if len(sources) else np.zeros(0)
        self.unit_sources = sources / self.largest[:, None, None] if len(sources) else sources
        scores = np.einsum("np,kmp->knm", X, self.unit_sources, optimize=True)
        size = np.sqrt(np.mean(scores**2, axis=(1, 2)))
        self.size = np.where(size > 0, size, 1.0)
        self._scores = scores / self.size[:, None, None]  # (K, n, M)
        self.units = self.size * self.largest  # α in a source's own units is α/units
        self._output_parts = self._basis.T @ outputs  # (r, M)
        self._score_parts = np.einsum("nr,knm->krm", self._basis, self._scores, optimize=True)

    @property
    def K(self) -> int:
        """Number of sources."""
        return len(self._scores)

    def _fitted(self, gamma: float) -> FloatArray:
        """(r,) eigenvalues λ/(λ+γ) of the hat matrix."""
        return self._values / (self._values + gamma)

    def _residual_forms(self, gamma: float) -> tuple[float, FloatArray, FloatArray]:
        """yᵀA⁻¹y, SᵀA⁻¹y (K,), SᵀA⁻¹S (K, K), summed over outputs."""
        h = self._fitted(gamma)[:, None]
        yy = float(np.sum(self.outputs**2) - np.sum(h * self._output_parts**2))
        flat = self._scores.reshape(self.K, self.outputs.size)
        parts = (np.sqrt(h) * self._score_parts).reshape(self.K, self._output_parts.size)
        target = (np.sqrt(h) * self._output_parts).ravel()
        return yy, flat @ self.outputs.ravel() - parts @ target, flat @ flat.T - parts @ parts.T

    def weigh(self, gamma: float, alpha: FloatArray | None = None) -> tuple[float, FloatArray]:
        """log p(y | γ) up to a constant, and E α (K,), in standardised units; with ``alpha`` given, the evidence for
        both."""
        yy, sy, ss = self._residual_forms(gamma)
        M = self.outputs.shape[1]
        spread = M * float(np.sum(np.log1p(self._values / gamma)))
        start = np.full(self.K, PRIOR_MEAN / max(self.K, 1)) if alpha is None else alpha
        rest = yy - 2.0 * float(start @ sy) + float(start @ ss @ start)
        if alpha is None and self.K:
            gap = sy - ss @ start
            precision = np.eye(self.K) / PRIOR_VARIANCE + ss
            step = np.linalg.solve(precision, gap)
            rest -= float(gap @ step)
            spread += float(np.linalg.slogdet(precision)[1])
            start = start + step
        floor = np.finfo(float).eps * max(float(np.sum(self.outputs**2)), 1.0)
        return -0.5 * spread - 0.5 * M * self.freedom * float(np.log(max(rest, floor))), start

    def probabilities(self, gammas: FloatArray, caution: float = 0.0, alpha: FloatArray | None = None) -> FloatArray:
        """(G,) p(γ | y) under a prior flat on the grid times (1 + tr K/(nγ))^−caution."""
        log = np.array([self.weigh(gamma, alpha)[0] for gamma in gammas])
        log -= caution * np.log1p(float(self._values.sum()) / self.n / gammas)
        if not self.K or alpha is not None:
            log = np.where(np.isinf(gammas), -np.inf, log)  # no α left to carry the scores
        weight = np.exp(log - log.max())
        return weight / weight.sum()

    def weights(self, gamma: float, alpha: FloatArray) -> FloatArray:
        """(M, p) weights of the ridge fine-tuning at (α, γ), α standardised; γ = ∞: Σα_k w̃_k."""
        own = np.einsum("k,kmp->mp", alpha / self.size, self.unit_sources) if self.K else 0.0
        if np.isinf(gamma):
            return own + np.zeros((self.outputs.shape[1], self.X.shape[1]))
        rest = self._output_parts - np.einsum("k,krm->rm", alpha, self._score_parts)
        dual = self._basis @ (rest / (self._values + gamma)[:, None])
        return own + (self.X.T @ dual / self.n).T

    def left_out(self, gamma: float, alpha: FloatArray, *, refit: bool = False) -> FloatArray:
        """(n, M) scores w₋ᵢᵀxᵢ of the fits without row i (exact), about the common centre of the rows.

        With ``refit`` (one output only) α is estimated anew without row i; otherwise it is fixed.
        """
        scores = np.einsum("k,knm->nm", alpha, self._scores)
        if np.isinf(gamma) and not refit:
            return scores
        h = self._fitted(gamma)
        keep = 1.0 - self._basis**2 @ h - (1.0 / self.n if self.centred else 0.0)

        def residual(columns: FloatArray, parts: FloatArray) -> FloatArray:
            return columns - self._basis @ (h[:, None] * parts)

        if refit and self.K and self.outputs.shape[1] == 1:
            T = residual(self._scores[:, :, 0].T, self._score_parts[:, :, 0].T)  # TS, (n, K)
            precision = np.eye(self.K) / PRIOR_VARIANCE + self._scores[:, :, 0] @ T
            keep = keep - np.einsum("nk,kn->n", T, np.linalg.solve(precision, T.T))
        left = residual(self.outputs - scores, self._output_parts - np.einsum("k,krm->rm", alpha, self._score_parts))
        factor = (self.n - 1.0) / self.n if self.centred else 1.0
        return self.outputs - factor * left / np.maximum(keep, np.finfo(float).eps)[:, None]


def penalties(scale: float, *, low: float = 10**-3.5, high: float = 10**1.5, count: int = 16) -> FloatArray:
    """(count + 1,) penalties in units of ``scale``, γ = ∞ last."""
    return np.append(np.geomspace(low * scale, high * scale, count), np.inf)
