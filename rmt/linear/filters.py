"""Spectral filters other than ridge, C = I: early-stopped gradient flow, principal components, any φ (theory.md §5).

The trained classifier is w = φ(S)ū + α(1 − Sφ(S))w̃ with S, ū second moment and mean of the signed target samples;
ridge is φ(l) = 1/(l + γ). Every quadratic form of φ(S) is a contour integral of resolvent forms, which are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmt._checks import FloatArray
from rmt.losses import SQUARE, Loss, only_square
from rmt.scores.quadratic import QuadraticScore
from rmt.scores.solved import ConvergenceError
from rmt.settings.filters import ComplexArray, FilteredTransfer, PrincipalComponents
from rmt.settings.isotropic import source_products

#: Contour points to begin with and at most; their number is doubled until the integrals stand still.
_NODES, _MAX_NODES = 200, 6400
#: Relative change on doubling the points that ends the refinement, and the one accepted at most (rounding costs
#: digits where γ is tiny, since the contour must then pass close to a pole).
_TOLERANCE, _LIMIT = 1e-10, 1e-6
#: The contour rises at most this high above the real line, so that e^{−tz} stays tame.
_HEIGHT = 2.0
#: Range of the double-exponential variable: beyond it weights are below 1e-16.
_TANH_SINH = 3.2


def filtered_score(setting: FilteredTransfer, loss: Loss | str = SQUARE) -> QuadraticScore:
    """The score of a filtered adapter; K sources by their Gram matrix."""
    only_square(setting, loss)
    base, shape = setting.base, setting.base.shape
    vector_alpha = base.source_count is not None
    overlap, gram = source_products(base)
    count = overlap.shape[-1]
    c, V = np.empty((*shape, count + 1)), np.empty((*shape, count + 1, count + 1))
    eta, m2, gamma = (np.broadcast_to(x, shape) for x in (base.eta, base.m2, np.asarray(base.gamma, dtype=float)))
    overlap, gram = np.broadcast_to(overlap, (*shape, count)), np.broadcast_to(gram, (*shape, count, count))
    for index in np.ndindex(shape):
        point = _Point(float(eta[index]), float(m2[index]), overlap[index], gram[index])
        c[index], V[index] = point.score(setting.filter, float(gamma[index]))
    return QuadraticScore(c, V, vector_alpha=vector_alpha)


@dataclass(frozen=True)
class _Point:
    """One setting: what its resolvent forms need."""

    eta: float
    m2: float
    overlap: FloatArray  # shape: (K,)
    gram: FloatArray  # shape: (K, K)

    @property
    def right(self) -> float:
        """A point to the right of the bulk and of the outlier that the mean makes."""
        bulk = (1.0 + np.sqrt(self.eta)) ** 2
        outlier = (1.0 + self.m2) * (1.0 + self.eta / self.m2) if self.m2**2 > self.eta else 0.0
        return 1.1 * max(bulk, outlier) + 0.1

    def _arc(self, left: float, nodes: int) -> tuple[ComplexArray, ComplexArray]:
        """Points z and weights dz of the upper half-ellipse from ``left`` to :attr:`right`.

        The angle follows the double-exponential (tanh-sinh) rule: points crowd at both ends, where the contour
        meets the spectrum or a pole is near, and the error falls exponentially in their number.
        """
        t = np.linspace(-_TANH_SINH, _TANH_SINH, nodes)
        ramp = np.exp(-np.pi * np.sinh(t))
        angle, slope = np.pi * ramp / (1.0 + ramp), np.pi**2 * np.cosh(t) * ramp / (1.0 + ramp) ** 2
        centre, radius = 0.5 * (left + self.right), 0.5 * (self.right - left)
        height = min(radius, _HEIGHT)
        z = centre + radius * np.cos(angle) + 1j * height * np.sin(angle)
        # 1 + cos loses digits at the left end: measured from there instead.
        z.real = np.where(angle > 2.0, left + 2.0 * radius * np.sin(0.5 * np.pi / (1.0 + ramp)) ** 2, z.real)
        dz = (radius * np.sin(angle) - 1j * height * np.cos(angle)) * slope * (t[1] - t[0])
        return z, dz

    def _scalars(self, z: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
        """(θ, d) of Q = (S − z)⁻¹: γ = −z, the root with Im δ > 0, d = 1 + δ."""
        b = 1.0 - self.eta + z
        root = np.sqrt(b * b - 4.0 * z)
        first = -0.5 * (b + root) / -z  # d = θ/γ
        second = -0.5 * (b - root) / -z
        d = np.where(first.imag > second.imag, first, second)
        return -z * d, d

    def integrals(self, phi: Callable[[ComplexArray], ComplexArray], left: float, nodes: int) -> FloatArray:
        """The forms (mᵀφū, ūᵀφ²ū, mᵀSφw̃, ūᵀφ(1−Sφ)w̃, w̃ᵀ(S²φ²−2Sφ)w̃) in one array, K = 1 slots per source."""
        z, dz = self._arc(left, nodes)
        theta, d = self._scalars(z)
        level, lam = 1.0 + theta + self.m2, 1.0 + theta
        f = phi(z)
        weight = dz / np.pi

        def integral(values: ComplexArray) -> FloatArray:
            return np.imag(values @ weight)

        outer = self.overlap[:, None] * self.overlap
        kept = z * f
        return np.concatenate(
            [
                [integral(f * self.m2 / level)],
                [integral(f**2 * ((d - 1.0) / d + self.m2 / (d * level)))],
                integral(kept * d / level) * self.overlap,
                integral(f * (1.0 - kept) / level) * self.overlap,
                (
                    integral((kept**2 - 2.0 * kept) * d / lam) * self.gram
                    - integral((kept**2 - 2.0 * kept) * d / (lam * level)) * outer
                ).ravel(),
            ]
        )

    def share_above(self, cut: float, nodes: int = 400) -> float:
        """Share of the p eigenvalues of S above ``cut``: I[1, tr Q/p]."""
        z, dz = self._arc(cut, nodes)
        _, d = self._scalars(z)
        return float(np.imag(((d - 1.0) / self.eta) @ dz) / np.pi)

    def cut_of(self, fraction: float) -> float:
        """The cut that keeps ``fraction`` of the components."""
        from scipy.optimize import brentq

        edge = (1.0 - np.sqrt(self.eta)) ** 2
        top = (1.0 + np.sqrt(self.eta)) ** 2
        most = min(1.0, 1.0 / self.eta)
        if not fraction < most:
            raise ValueError(
                f"fraction must be below min(1, n/p) = {most:g}, the share of nonzero eigenvalues, got {fraction}"
            )
        low = edge + 1e-9 * (top - edge)
        return float(brentq(lambda cut: self.share_above(cut) - fraction, low, top, xtol=1e-12))

    def score(self, law: Any, gamma: float) -> tuple[FloatArray, FloatArray]:
        """(c, V), with the contour refined until it no longer matters."""
        if isinstance(law, PrincipalComponents):
            left = self.cut_of(law.fraction) if law.cut is None else float(law.cut)  # type: ignore[arg-type]
            if left >= self.right:
                raise ValueError(f"cut = {left:g} is above every eigenvalue (they end near {self.right:g})")
        else:
            # Below p = n no eigenvalue lies under the bulk: starting there keeps clear of the poles.
            left = max(law.left(gamma), 0.5 * max(1.0 - np.sqrt(self.eta), 0.0) ** 2)
        nodes = _NODES
        forms = self.integrals(lambda z: law(z, gamma), left, nodes)
        while True:
            nodes *= 2
            finer = self.integrals(lambda z: law(z, gamma), left, nodes)
            change = np.max(np.abs(finer - forms)) / (1e-300 + np.max(np.abs(finer)))
            forms = finer
            if change <= _TOLERANCE or (nodes >= _MAX_NODES and change <= _LIMIT):
                break
            if nodes >= _MAX_NODES:
                raise ConvergenceError(
                    f"the contour integral of {law} still moves by {change:.1e} with {nodes} points at eta = "
                    f"{self.eta:g}, gamma = {gamma:g}; raise gamma or use a smoother filter"
                )
        return self._assemble(forms)

    def _assemble(self, forms: FloatArray) -> tuple[FloatArray, FloatArray]:
        count = len(self.overlap)
        kept, cross = forms[2 : 2 + count], forms[2 + count : 2 + 2 * count]
        c = np.concatenate([forms[:1], self.overlap - kept])
        V = np.empty((count + 1, count + 1))
        V[0, 0], V[0, 1:], V[1:, 0] = forms[1], cross, cross
        V[1:, 1:] = self.gram + forms[2 + 2 * count :].reshape(count, count)
        return c, V
