"""The plug-in rule: theory.md §3 with estimated moments in place of the true ones (theory.md §6).

It treats the estimates as known. That is right for n in the hundreds and reckless for n in the tens, where
:mod:`rmt.posterior` is the rule to use.
"""

from __future__ import annotations

import numpy as np

from rmt import validate
from rmt.rayleigh import Direction, best_direction
from rmt.validate import FloatArray

#: γ = ∞ is computed at this multiple of the mean eigenvalue; the error of the limit is of its inverse.
_FAR = 1e8


class PlugIn:
    """Deterministic equivalents of ridge fine-tuning from one sample.

    Args:
        rows: (n, p) signed samples u_i.
        sources: (p, K) source weight vectors.
        covariance: (p, p) estimate of C, or a number ρ for (1−ρ)S_c + ρ(tr S_c/p)I.
    """

    def __init__(self, rows: FloatArray, sources: FloatArray, covariance: FloatArray | float) -> None:
        self.n, self.p = rows.shape
        mean = rows.mean(axis=0)
        vectors = np.column_stack([mean, sources])  # shape (p, K+1)
        # Coordinates in the eigenbasis of Ĉ; `rest` gathers a p-dimensional remainder of one eigenvalue.
        if np.ndim(covariance) == 0:
            rho = float(covariance)  # type: ignore[arg-type]
            residuals = (rows - mean) / np.sqrt(self.n - 1)
            _, singular, right = np.linalg.svd(residuals, full_matrices=False)
            floor = rho * float(np.sum(singular**2)) / self.p
            self.values = np.append((1.0 - rho) * singular**2 + floor, floor)
            inside = right @ vectors
            gap = vectors.T @ vectors - inside.T @ inside  # the Gram matrix left outside the sample's span
            self.counts = np.append(np.ones(len(singular)), self.p - len(singular))
        else:
            values, right = np.linalg.eigh(validate.finite("covariance", covariance))
            self.values, inside = np.append(np.maximum(values, 0.0), 0.0), right.T @ vectors
            gap, self.counts = np.zeros((vectors.shape[1],) * 2), np.append(np.ones(self.p), 0.0)
        self._inside, self._outside = inside, gap

    def _form(self, weights: FloatArray) -> FloatArray:
        """[ū, W̃]ᵀ f(Ĉ) [ū, W̃] with f given on the eigenvalues, the noise tr(f Ĉ)/n of ū removed; (K+1, K+1)."""
        form = (self._inside.T * weights[:-1]) @ self._inside + weights[-1] * self._outside
        form[0, 0] -= float(np.sum(self.counts * weights * self.values)) / self.n
        # M̂ is at least what the sources explain of it (Cauchy–Schwarz).
        if len(form) > 1:
            form[0, 0] = max(form[0, 0], form[0, 1:] @ np.linalg.pinv(form[1:, 1:], hermitian=True) @ form[0, 1:])
        form[0, 0] = max(form[0, 0], 0.0)
        return form

    def coefficients(self, gamma: float) -> tuple[FloatArray, FloatArray]:
        """Estimates of c (K+1,) and V (K+1, K+1) at this γ; for γ = ∞ those of w = ū + W̃α (up to one factor)."""
        from scipy.optimize import brentq

        unit = float(np.sum(self.counts * self.values)) / self.p
        far = bool(np.isinf(gamma))
        gamma = _FAR * unit if far else gamma
        counts, values, n = self.counts, self.values, self.n
        span = gamma + float(np.sum(counts * values)) / n
        theta = brentq(lambda t: t * (1.0 - np.sum(counts * values / (t + values)) / n) - gamma, 1e-300, 1.01 * span)
        H = 1.0 / (theta + values)
        deficit = float(np.sum(counts * (values * H) ** 2)) / n  # 1 − h
        resolvent, noise = self._form(H), self._form(H**2 * values)
        total = 1.0 + resolvent[0, 0]
        c = np.append(resolvent[0, 0], theta * resolvent[0, 1:]) / total
        residual = np.append(1.0, -theta * resolvent[0, 1:]) / total  # ε
        E = np.diag(np.append(0.0, np.full(len(c) - 1, theta)))
        E[0] += residual
        V = (E.T @ noise @ E + deficit * np.outer(residual, residual)) / (1.0 - deficit)
        if far:  # c, V belong to (S+γ)⁻¹ū ≈ ū/γ: rescale the target column by γ
            stretch = np.append(gamma, np.ones(len(c) - 1))
            c, V = c * stretch, V * np.outer(stretch, stretch)
        return c, V

    def direction(self, gamma: float) -> Direction:
        """The best combination of W(γ)'s columns if the estimates were exact."""
        return best_direction(*self.coefficients(gamma))
