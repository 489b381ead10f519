"""How adapters are trained on drawn data: Newton's method for any loss, an eigendecomposition for a spectral filter."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmt._checks import FloatArray
from rmt.losses import Loss
from rmt.scores.solved import ConvergenceError
from rmt.settings.filters import PrincipalComponents

_MAX_NEWTON = 100


class Newton:
    """Minimise (1/n)Σℓ(u_iᵀ(αw̃ + Ub) + y_ib₀) + (γ/2)|b|² over b and, with ``labels``, b₀, on D draws at once.

    (For the square loss ½(1 − x)² that is the ridge problem of theory.md §0 at the same γ.)
    """

    def __init__(
        self,
        samples: FloatArray,
        labels: FloatArray | None,
        source: FloatArray,
        basis: FloatArray | None,
        gamma: float,
        loss: Loss,
    ) -> None:
        if gamma <= 0:
            raise ValueError("gamma must be > 0 in simulate_fits")
        self.loss, self.gamma, self.source, self.basis = loss, gamma, source, basis
        self.offsets = np.einsum("dnp,dp->dn", samples, source)
        features = samples if basis is None else samples @ basis  # (D, n, r)
        self.back: FloatArray | None = None
        if features.shape[2] > features.shape[1]:  # b lies in the span of the n samples: work there
            self.back, triangle = np.linalg.qr(features.mT)
            features = triangle.mT
        self.penalty = np.full(features.shape[2] + (labels is not None), gamma)
        if labels is not None:
            features = np.concatenate([features, labels[..., None]], axis=2)
            self.penalty[-1] = 0.0
        self.has_intercept = labels is not None
        self.features = features

    def _gradient(self, alpha: float, b: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gradient (D, r) at ``b``, and the margins (D, n)."""
        margins = alpha * self.offsets + np.einsum("dnr,dr->dn", self.features, b)
        slope = self.loss.slopes(margins)[0] / margins.shape[1]
        return np.einsum("dnr,dn->dr", self.features, slope) + self.penalty * b, margins

    def __call__(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """Weights (D, p) and intercepts (D,) at ``alpha``."""
        b = np.zeros((self.features.shape[0], self.features.shape[2]))
        gradient, margins = self._gradient(alpha, b)
        goal = 1e-10 * (1.0 + np.abs(gradient).max())
        for _ in range(_MAX_NEWTON):
            if np.abs(gradient).max() <= goal:
                break
            curvature = self.loss.slopes(margins)[1] / margins.shape[1]
            hessian = (self.features.mT * curvature[:, None, :]) @ self.features
            hessian += np.diag(self.penalty + 1e-12)
            step = -np.linalg.solve(hessian, gradient[..., None])[..., 0]
            descent = np.sum(gradient * step, axis=1)
            length = np.ones(len(b))
            for _ in range(30):  # halve where the step passes the minimum along its line by too much
                candidate = b + length[:, None] * step
                gradient, margins = self._gradient(alpha, candidate)
                over = np.sum(gradient * step, axis=1) > 0.5 * np.abs(descent)
                if not over.any():
                    break
                length[over] *= 0.5
            b = candidate
        else:
            raise ConvergenceError(f"an adapter was not fitted in {_MAX_NEWTON} Newton steps at alpha = {alpha:g}")
        offset = b[:, -1] if self.has_intercept else np.zeros(len(b))
        b = b[:, : b.shape[1] - self.has_intercept]
        if self.back is not None:
            b = np.einsum("dri,di->dr", self.back, b)
        if self.basis is not None:
            b = np.einsum("...pr,...r->...p", self.basis, b)
        return alpha * self.source + b, offset


class Filtered:
    """w = φ(S)ū + α(1 − Sφ(S))w̃ from the eigendecomposition of S."""

    def __init__(self, samples: FloatArray, source: FloatArray, law: Any, gamma: float) -> None:
        count = samples.shape[1]
        values, vectors = np.linalg.eigh(samples.mT @ samples / count)
        values = np.maximum(values, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            phi = np.real(law(values.astype(complex), gamma))
        if isinstance(law, PrincipalComponents):
            keep = values > law.cut if law.cut is not None else self._leading(values, law)
            phi = np.where(keep, phi, 0.0)
        phi = np.where(np.isfinite(phi), phi, 0.0)  # ū and Sw̃ have no part where S = 0
        self.vectors, self.kept = vectors, 1.0 - values * phi
        self.target = phi * np.einsum("dpj,dp->dj", vectors, samples.mean(axis=1))
        self.source = self.kept * np.einsum("dpj,dp->dj", vectors, source)

    @staticmethod
    def _leading(values: FloatArray, law: PrincipalComponents) -> FloatArray:
        size = values.shape[1]
        rank = int(np.round(float(law.fraction or 0.0) * size))
        return np.broadcast_to(np.arange(size) >= size - rank, values.shape)

    def __call__(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """Weights (D, p) and zero intercepts (D,)."""
        weights = np.einsum("dpj,dj->dp", self.vectors, self.target + alpha * self.source)
        return weights, np.zeros(len(weights))
