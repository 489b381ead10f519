"""The score of the square loss: Gaussian with s = cᵀq, σ² = qᵀVq, q = (1, α₁ … α_K) (theory.md §1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt.scores.score import Score, ratio

#: Determinant, and share of the largest eigenvalue, at which a form of unit diagonal counts as singular.
_SINGULAR = 1e-13


class QuadraticScore(Score):
    """Score with mean cᵀq and variance qᵀVq, q = (1, α): the square loss, for any data model (theory.md §1).

    Args:
        c: (…, K+1) coefficients of the mean.
        V: (…, K+1, K+1) symmetric positive semi-definite form of the variance.
        vector_alpha: True when ``alpha`` has a trailing axis of length K (K sources); False (only for K = 1)
            when it is a plain array of scales.

    Raises:
        ValueError: shapes that do not fit, or non-finite entries.

    >>> import rmt
    >>> score = rmt.QuadraticScore(c=[0.5, 0.3], V=[[0.4, 0.1], [0.1, 0.2]])
    >>> float(score.mean(2.0)), float(score.variance(2.0))
    (1.1, 1.6)
    >>> round(float(score.alpha_star), 4)
    1.0
    """

    def __init__(self, c: ArrayLike, V: ArrayLike, *, vector_alpha: bool | None = None) -> None:
        self.c = _checks.finite("c", c)
        self.V = _checks.finite("V", V)
        if self.c.ndim < 1 or self.V.ndim < 2 or self.V.shape[-2:] != (self.c.shape[-1],) * 2:
            raise ValueError(f"c must be (…, K+1) and V (…, K+1, K+1), got {self.c.shape} and {self.V.shape}")
        self.sources = self.c.shape[-1] - 1
        if self.sources < 1:
            raise ValueError(f"c needs at least two entries (target, one source), got shape {self.c.shape}")
        self.vector_alpha = self.sources > 1 if vector_alpha is None else vector_alpha
        if self.sources > 1 and not self.vector_alpha:
            raise ValueError(f"with {self.sources} sources alpha is a vector; leave vector_alpha unset")

    def _scales(self, alpha: ArrayLike) -> FloatArray:
        """``alpha`` as (…, K)."""
        alpha = _checks.real("alpha", alpha)
        if not self.vector_alpha:
            return alpha[..., None]
        if alpha.ndim == 0 or alpha.shape[-1] != self.sources:
            raise ValueError(
                f"alpha needs a last axis of length {self.sources} (one scale a source), got shape {alpha.shape}"
            )
        return alpha

    def mean(self, alpha: ArrayLike) -> FloatArray:
        """s(α) = cᵀq."""
        alpha = self._scales(alpha)
        if self.sources == 1:
            return self.c[..., 0] + self.c[..., 1] * alpha[..., 0]
        return self.c[..., 0] + np.einsum("...k,...k", self.c[..., 1:], alpha)

    def variance(self, alpha: ArrayLike) -> FloatArray:
        """σ²(α) = qᵀVq."""
        alpha = self._scales(alpha)
        V = self.V
        if self.sources == 1:
            a = alpha[..., 0]
            return V[..., 0, 0] + a * (2.0 * V[..., 0, 1] + a * V[..., 1, 1])
        linear = 2.0 * np.einsum("...k,...k", V[..., 0, 1:], alpha)
        return V[..., 0, 0] + linear + np.einsum("...j,...jk,...k", alpha, V[..., 1:, 1:], alpha)

    def snr(self, alpha: ArrayLike) -> FloatArray:
        """s/σ, computed for q scaled to entries ≤ 1, so that α may be huge; α = ±inf (one source) gives ±c₂/√V₂₂."""
        scales = self._scales(alpha)
        size = np.maximum(np.max(np.abs(scales), axis=-1, keepdims=True), 1.0)
        infinite = np.isinf(scales)
        if self.sources > 1 and infinite.any():
            raise ValueError("infinite scales of several sources have no direction; best_accuracy is their limit")
        scales = np.where(infinite, np.sign(scales), np.where(infinite, 0.0, scales) / size)
        q = np.concatenate([1.0 / size, scales], axis=-1)
        mean = np.einsum("...j,...j", self.c, q)
        return ratio(mean, np.sqrt(np.maximum(np.einsum("...j,...jk,...k", q, self.V, q), 0.0)))

    def _solve(self) -> tuple[FloatArray, FloatArray]:
        """(Vᵃᵈʲ c, cᵀVᵃᵈʲc/det V): direction of the best q up to a positive factor, and SNR*²."""
        c, V = self.c, self.V
        if self.sources == 1:
            det = np.maximum(V[..., 0, 0] * V[..., 1, 1] - V[..., 0, 1] ** 2, 0.0)
            first = V[..., 1, 1] * c[..., 0] - V[..., 0, 1] * c[..., 1]
            second = V[..., 0, 0] * c[..., 1] - V[..., 0, 1] * c[..., 0]
            direction = np.stack(np.broadcast_arrays(first, second), axis=-1)
            return direction, ratio(np.sum(direction * c, axis=-1), det)
        direction = _solve(V, c)
        return direction, np.sum(direction * c, axis=-1)

    @property
    def _dead(self) -> Any:
        """Settings where no source has any effect: γ = 0 with n > p, or only zero sources."""
        return (self.c[..., 1:] == 0).all(axis=-1) & (np.diagonal(self.V, axis1=-2, axis2=-1)[..., 1:] == 0).all(
            axis=-1
        )

    @property
    def marginal_value(self) -> FloatArray:
        """(…, K) best accuracy minus the best accuracy without source k; (…) for one source."""
        keep = np.arange(self.sources + 1)
        lost = []
        for k in keep[1:]:
            rest = keep[keep != k]
            if rest.size == 1:
                lost.append(self._correct(ratio(self.c[..., 0], np.sqrt(self.V[..., 0, 0]))))
            else:
                lost.append(QuadraticScore(self.c[..., rest], self.V[..., rest[:, None], rest]).best_accuracy)
        value = np.asarray(self.best_accuracy)[..., None] - np.stack(lost, axis=-1)
        return value if self.vector_alpha else value[..., 0]

    @property
    def alpha_star(self) -> FloatArray:
        """α* = (V⁻¹c)_{k+1}/(V⁻¹c)₁, shape (…) or, with K sources, (…, K).

        This maximises the signed accuracy only where (V⁻¹c)₁ > 0 (the guard of theory.md §1). Elsewhere the
        supremum is approached as |α| → ∞: one source gives ±inf, K sources ±inf entries in the direction
        V_αα⁻¹c_α. NaN where α has no effect at all (c₂ = V₂₂ = 0).
        """
        direction, _ = self._solve()
        head, tail = direction[..., :1], direction[..., 1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            finite = tail / head
        c_tail, V_tail = self.c[..., 1:], self.V[..., 1:, 1:]
        dead = np.asarray(self._dead)[..., None]
        away = np.sign(c_tail if self.sources == 1 else _solve(V_tail, c_tail))
        finite, away = np.where(dead, np.nan, finite), np.where(dead, np.nan, away)
        # A source without overlap: running away still beats a target direction that is worse than chance.
        nowhere = np.where((head < 0) & (c_tail == 0).all(axis=-1, keepdims=True), np.inf, 0.0)
        with np.errstate(invalid="ignore"):
            star = np.where(head > 0, finite, np.where(away == 0, nowhere, away * np.inf))
        return star if self.vector_alpha else star[..., 0]

    @property
    def best_snr(self) -> FloatArray:
        """sup over α of s/σ: √(cᵀV⁻¹c) where the guard holds, else √(c_αᵀV_αα⁻¹c_α)."""
        direction, snr2 = self._solve()
        c_tail, V_tail = self.c[..., 1:], self.V[..., 1:, 1:]
        if self.sources == 1:
            source2 = ratio(c_tail[..., 0] ** 2, V_tail[..., 0, 0])
        else:
            source2 = np.sum(_solve(V_tail, c_tail) * c_tail, axis=-1)
        target = ratio(self.c[..., 0], np.sqrt(self.V[..., 0, 0]))
        guarded = np.sqrt(np.where(direction[..., 0] > 0, snr2, source2))
        return np.where(self._dead, target, guarded)

    @property
    def best_accuracy(self) -> FloatArray:
        """The accuracy at :attr:`best_snr`, a supremum where α* is infinite."""
        return self._correct(self.best_snr)

    @property
    def alpha_bar(self) -> FloatArray:
        """ᾱ = −c₁/c₂, where the mean score vanishes; ±inf where the source has no overlap. One source only."""
        if self.vector_alpha:
            raise ValueError("alpha_bar is one number only for one source; with K sources the mean vanishes on a plane")
        return -ratio(self.c[..., 0], self.c[..., 1])

    @property
    def alpha_risk(self) -> FloatArray:
        """argmin of the squared risk: (V_αα + c_αc_αᵀ)⁻¹[c_α(1−c₁) − V_α1]."""
        c, V = self.c, self.V
        right = c[..., 1:] * (1.0 - c[..., :1]) - V[..., 1:, 0]
        form = V[..., 1:, 1:] + c[..., 1:, None] * c[..., None, 1:]
        if self.sources == 1:
            star = ratio(right[..., 0], form[..., 0, 0])
            star = np.where(form[..., 0, 0] == 0, np.nan, star)
            return star[..., None] if self.vector_alpha else star
        return np.where(np.asarray(self._dead)[..., None], np.nan, _solve(form, right))


def _solve(form: FloatArray, right: FloatArray) -> FloatArray:
    """form⁻¹ right for stacks of positive semi-definite forms.

    The form is scaled to unit diagonal first: sources of very different norm, or a tiny θ, cost no digits. Empty
    rows (a source without effect) get the solution 0; of sources that are combinations of each other (two equal
    ones) the scaled solution of least norm is taken, which shares out what no data tells apart.
    """
    size = np.sqrt(np.diagonal(form, axis1=-2, axis2=-1))
    size = np.where(size > 0, size, 1.0)
    scaled = form / (size[..., :, None] * size[..., None, :])
    empty = np.diagonal(scaled, axis1=-2, axis2=-1) == 0
    scaled = scaled + np.eye(form.shape[-1]) * empty[..., None, :]
    target = right / size
    singular = np.linalg.det(scaled) <= _SINGULAR
    if not singular.any():
        solution = np.linalg.solve(scaled, target[..., None])[..., 0]
    else:
        values, vectors = np.linalg.eigh(scaled)
        kept = values > _SINGULAR * values[..., -1:]
        inverse = np.where(kept, 1.0, 0.0) / np.where(kept, values, 1.0)
        solution = ((vectors * inverse[..., None, :]) @ (vectors.mT @ target[..., None]))[..., 0]
    return np.where(empty, 0.0, solution / size)
