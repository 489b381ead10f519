"""Every α-ridge classifier of one training sample from one eigendecomposition, with exact leave-one-out scores.

With u_i = y_i x_i, S = UᵀU/n, K = UUᵀ/n and ū the mean of the u_i (theory.md §0, §6)::

    w_α = (S+γ)⁻¹(ū + γ W̃α) = W(γ) q,    q = (1, α₁ … α_K)

The limit γ → ∞ with γα fixed is ``gamma=inf``: w = ū + W̃α, the mean difference beside the source.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray


class RidgePath:
    """Columns W(γ) and leave-one-out scores for any γ, after one O(np·min(n, p)) decomposition.

    Args:
        rows: (n, p) signed samples u_i = y_i x_i.
        sources: (p, K) source weight vectors W̃; K = 0 is target-only training.

    Raises:
        ValueError: non-finite entries, or sources whose length is not p.

    >>> import numpy as np
    >>> import rmt
    >>> rows = np.random.default_rng(0).normal(size=(30, 5)) + 0.5
    >>> path = rmt.RidgePath(rows)
    >>> path.weights(0.1).shape
    (5, 1)
    """

    def __init__(self, rows: FloatArray, sources: FloatArray | None = None) -> None:
        self.rows = _checks.finite("rows", rows)
        if self.rows.ndim != 2 or not self.rows.size:
            raise ValueError(
                f"rows must be (n, p) signed samples, got shape {self.rows.shape}; give U = y[:, None] * X"
            )
        self.n, self.p = self.rows.shape
        sources = np.zeros((self.p, 0)) if sources is None else _checks.finite("sources", sources)
        sources = sources[:, None] if sources.ndim == 1 else sources
        if sources.ndim != 2 or len(sources) != self.p:
            raise ValueError(f"sources must be (p, K) with p = {self.p} like the rows, got shape {sources.shape}")
        self.sources = sources
        self.mean = self.rows.mean(axis=0)  # ū, shape (p,)
        self.source_scores = self.rows @ sources  # shape (n, K)
        # The smaller Gram matrix; `basis` are eigenvectors of K in ℝⁿ, as many as min(n, p).
        if self.n <= self.p:
            values, self._basis = np.linalg.eigh(self.kernel)
        else:
            values, right = np.linalg.eigh(self.rows.T @ self.rows / self.n)
            keep = values > values[-1] * self.p * np.finfo(float).eps
            values, right = values[keep], right[:, keep]
            self._basis = self.rows @ right / np.sqrt(self.n * values)
        self._values = np.maximum(values, 0.0)
        ones = np.ones((self.n, 1))
        self._targets = np.hstack([ones, self.source_scores])  # shape (n, K+1)
        self._coordinates = self._basis.T @ self._targets

    @cached_property
    def kernel(self) -> FloatArray:
        """(n, n) K = UUᵀ/n."""
        return self.rows @ self.rows.T / self.n

    @property
    def scale(self) -> float:
        """tr S/p, the unit in which penalties make sense."""
        return float(np.mean(self.rows**2))

    def residuals(self, gamma: float) -> FloatArray:
        """(n, K+1) γ(K+γ)⁻¹[1, UW̃]: what ridge regression of 1 and of the source scores leaves, for finite γ > 0.

        Raises:
            ValueError: γ ≤ 0 or γ = ∞.
        """
        if np.isinf(_penalty(gamma)):
            raise ValueError("gamma must be finite here: at inf nothing is fitted and the residuals are 1 and UW̃")
        shrink = self._values / (self._values + gamma)
        if self.n <= self.p:  # the basis is complete: γ/(λ+γ) without cancellation
            return self._basis @ ((gamma / (self._values + gamma))[:, None] * self._coordinates)
        return self._targets - self._basis @ (shrink[:, None] * self._coordinates)

    def weights(self, gamma: float) -> FloatArray:
        """(p, K+1) columns: target-only ridge (S+γ)⁻¹ū, then γ(S+γ)⁻¹w̃_k; for γ = ∞ ū and w̃_k.

        Raises:
            ValueError: γ ≤ 0.
        """
        gamma = _penalty(gamma)
        if np.isinf(gamma):
            return np.column_stack([self.mean, self.sources])
        # (S+γ)⁻¹Uᵀ = Uᵀ(K+γ)⁻¹ and γ(S+γ)⁻¹w̃ = w̃ − Uᵀ(K+γ)⁻¹Uw̃/n
        dual = self._basis @ (self._coordinates / (self._values + gamma)[:, None])
        out = self.rows.T @ dual / self.n
        out[:, 1:] = self.sources - out[:, 1:]
        return out

    def loo_scores(self, gamma: float) -> FloatArray:
        """(n, K+1) scores of u_i under the fits without row i, for each column (exact, theory.md §6).

        The penalty of the n−1 fits is kept at nγ in sums, so that no refit is needed: with T = (K+γ)⁻¹,
        z⁰ = 1 − T1/diag T and z^k = TUw̃_k/diag T. For γ = ∞: u_iᵀΣ_{j≠i}u_j/n and u_iᵀw̃_k.
        """
        gamma = _penalty(gamma)
        if np.isinf(gamma):
            own = np.einsum("ij,ij->i", self.rows, self.rows) / self.n
            return np.column_stack([self.rows @ self.mean - own, self.source_scores])
        if self.n <= self.p:
            diagonal = self._basis**2 @ (gamma / (self._values + gamma))
        else:
            diagonal = 1.0 - self._basis**2 @ (self._values / (self._values + gamma))
        scores = self.residuals(gamma) / diagonal[:, None]
        scores[:, 0] = 1.0 - scores[:, 0]
        return scores


def penalty_grid(scale: float, *, low: float = 1e-2, high: float = 1e3, count: int = 16) -> FloatArray:
    """(count + 1,) penalties in units of ``scale`` (the mean eigenvalue of S), with γ = ∞ last."""
    return np.append(np.geomspace(low * scale, high * scale, count), np.inf)


def _penalty(gamma: float) -> float:
    if not gamma > 0:
        raise ValueError(f"gamma must be > 0 (inf allowed: the mean difference), got {gamma!r}")
    return float(gamma)
