"""Theory with estimated moments: theory.md §3 with what a sample says of m and C in their place (theory.md §6).

As a rule for α it treats the estimates as known. That is right for n in the hundreds and reckless for n in the tens,
where :mod:`rmt.choosing.posterior` is the rule to use. As a prediction it says, from one large sample of a task, what
fine-tuning on n of its rows will reach, for every n, γ and α.

**Rows of unequal length** (long and short texts): u_i = r_i(m + C^{1/2}z_i), E r² = 1. Signs, and so the accuracy
Φ(s/σ), do
not see r; training does, for long rows pull harder. The leave-one-out argument of theory.md §3 with leverage r_i²κ
gives::

    τ = E r²/(1+r²κ),   κ = tr C(γ+τC)⁻¹/n,   θ = γ/τ,   ρ = E[r/(1+r²κ)]/τ,   b_k = E r^k/(1+r²κ)²
    (θI + C)w ≗ θαw̃ + (ρ−s)m + √(v/n) C^{1/2}z/τ,     v = b₂ − 2sb₃ + (s²+σ²)b₄

so s and σ² are again affine and quadratic in (1, α): with A = mᵀHm, B = W̃ᵀHm, d = tr CHCH/(nτ²)::

    c = (ρA, θB)/(1+A),   ε = (ρ, −θB)/(1+A),   F = H([0, θW̃] + mεᵀ)
    V = [FᵀCF + d(b₂e₀e₀ᵀ − b₃(e₀cᵀ + ce₀ᵀ) + b₄ccᵀ)]/(1 − d b₄)

For r = 1 this is theory.md §3 (d b₄ = 1 − h).
"""

from __future__ import annotations

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt.choosing.direction import Direction, best_direction

#: γ = ∞ is computed at this multiple of the mean eigenvalue; the error of the limit is of its inverse.
_FAR = 1e8


class PlugIn:
    """Deterministic equivalents of ridge fine-tuning, from a sample of the target.

    Args:
        rows: (N, p) signed samples u_i.
        sources: (p, K) source weight vectors.
        covariance: (p, p) estimate of C, or a number ρ for (1−ρ)S_c + ρ(tr S_c/p)I.
        lengths: (N,) row lengths r_i (:func:`rmt.choosing.moments.row_lengths`); None for rows of one length.
        dimension: directions that share the identity of (1−ρ)S_c + ρ(tr/d)I; None for p.
        debias: remove the noise of ū from every quadratic form of the mean; ``False`` takes ū for the true mean.

    Raises:
        ValueError: shapes that do not fit, or non-finite entries.
    """

    def __init__(
        self,
        rows: FloatArray,
        sources: FloatArray,
        covariance: FloatArray | float,
        *,
        lengths: FloatArray | None = None,
        debias: bool = True,
        dimension: float | None = None,
    ) -> None:
        rows, sources = _checks.finite("rows", rows), _checks.finite("sources", sources)
        if rows.ndim != 2 or len(rows) < 2 or sources.shape[:1] != rows.shape[1:] or sources.ndim != 2:
            raise ValueError(f"rows must be (N, p) with N ≥ 2 and sources (p, K), got {rows.shape} and {sources.shape}")
        self.N, self.p = rows.shape
        self.debias = debias
        self.lengths: FloatArray = np.ones(1)
        if lengths is not None:
            lengths = _checks.at_least("lengths", lengths, 0.0)
            if lengths.shape != (self.N,) or not lengths.all():
                raise ValueError(f"lengths must be ({self.N},) positive numbers, one a row, got shape {lengths.shape}")
            rows, self.lengths = rows / lengths[:, None], lengths
        mean = rows.mean(axis=0)
        vectors = np.column_stack([mean, sources])  # shape (p, K+1)
        if np.ndim(covariance) == 0:
            # Eigenbasis of Ĉ within the span of the sample; all else has one eigenvalue and is kept as a Gram matrix.
            rho = float(covariance)
            residuals = (rows - mean) / np.sqrt(self.N - 1)
            if self.p >= self.N:
                _, singular, right = np.linalg.svd(residuals, full_matrices=False)
                spectrum = singular**2
            else:
                spectrum, basis = np.linalg.eigh(residuals.T @ residuals)
                right = basis.T
            if dimension is not None:  # directions without variance are no directions
                seen = spectrum > 1e-7 * spectrum.max(initial=0.0)
                spectrum, right = spectrum[seen], right[seen]
            # Without p (features that are zero must not count) the floor is shared by the d directions of the noise.
            count = self.p if dimension is None else max(dimension, float(len(spectrum)))
            floor = rho * float(np.sum(spectrum)) / count
            self.values = np.append((1.0 - rho) * np.maximum(spectrum, 0.0) + floor, floor)
            self._inside = right @ vectors
            self._outside = vectors.T @ vectors - self._inside.T @ self._inside
            self.counts = np.append(np.ones(len(spectrum)), count - len(spectrum))
        else:
            values, right = np.linalg.eigh(_checks.finite("covariance", covariance))
            self.values = np.append(np.maximum(values, 0.0), 0.0)
            self._inside = right.T @ vectors
            self._outside = np.zeros((vectors.shape[1],) * 2)
            self.counts = np.append(np.ones(self.p), 0.0)

    def _form(self, weights: FloatArray) -> FloatArray:
        """[m, W̃]ᵀ f(Ĉ) [m, W̃] with f given on the eigenvalues, ū for m and its noise tr(fĈ)/N removed; (K+1, K+1)."""
        form = (self._inside.T * weights[:-1]) @ self._inside + weights[-1] * self._outside
        if self.debias:
            form[0, 0] -= float(np.sum(self.counts * weights * self.values)) / self.N
            # The signal is at least what the sources explain of it (Cauchy–Schwarz).
            explained = (
                form[0, 1:] @ np.linalg.pinv(form[1:, 1:], hermitian=True) @ form[0, 1:] if len(form) > 1 else 0.0
            )
            form[0, 0] = max(form[0, 0], explained, 0.0)
        return form

    def coefficients(self, gamma: float, n: int | None = None) -> tuple[FloatArray, FloatArray]:
        """c (K+1,) and V (K+1, K+1) of fine-tuning on n rows (default N) at this γ.

        γ = ∞: of w = ū + W̃α, up to a factor.
        """
        n = self.N if n is None else n
        unit = float(np.sum(self.counts * self.values**2) / np.sum(self.counts * self.values))
        far = bool(np.isinf(gamma))
        gamma = _FAR * unit if far else gamma
        r, kappa = self.lengths, self._leverage(gamma, n)
        damped = 1.0 / (1.0 + r**2 * kappa)
        tau = float(np.mean(r**2 * damped))
        rho = float(np.mean(r * damped)) / tau
        b2, b3, b4 = (float(np.mean(r**k * damped**2)) for k in (2, 3, 4))
        theta = gamma / tau
        H = 1.0 / (theta + self.values)
        d = float(np.sum(self.counts * (self.values * H) ** 2)) / n / tau**2
        resolvent, noise = self._form(H), self._form(H**2 * self.values)
        total = 1.0 + resolvent[0, 0]
        c = np.append(rho * resolvent[0, 0], theta * resolvent[0, 1:]) / total
        E = np.diag(np.append(0.0, np.full(len(c) - 1, theta)))
        E[0] += np.append(rho, -theta * resolvent[0, 1:]) / total  # ε
        first = np.eye(len(c))[0]
        cross = np.outer(first, c)
        fluctuation = b2 * np.outer(first, first) - b3 * (cross + cross.T) + b4 * np.outer(c, c)
        V = (E.T @ noise @ E + d * fluctuation) / (1.0 - d * b4)
        if far:  # c, V belong to (S+γ)⁻¹ū ≈ ū/γ: rescale the target column by γ
            stretch = np.append(gamma, np.ones(len(c) - 1))
            c, V = c * stretch, V * np.outer(stretch, stretch)
        return c, V

    def _leverage(self, gamma: float, n: int) -> float:
        """κ = tr C(γ+τ(κ)C)⁻¹/n, the root of an increasing function on [0, tr C/(nγ)]."""
        from scipy.optimize import brentq

        r2 = self.lengths**2

        def excess(kappa: float) -> float:
            tau = np.mean(r2 / (1.0 + r2 * kappa))
            return kappa - float(np.sum(self.counts * self.values / (gamma + tau * self.values))) / n

        top = float(np.sum(self.counts * self.values)) / (n * gamma)
        return float(brentq(excess, 0.0, top * (1.0 + 1e-9), xtol=1e-300, rtol=1e-14))

    def direction(self, gamma: float) -> Direction:
        """The best combination of W(γ)'s columns if the estimates were exact."""
        return best_direction(*self.coefficients(gamma))
