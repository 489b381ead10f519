"""Deterministic equivalents: the resolvent scalars θ, ψ, δ, h of the isotropic model (theory.md §2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmt import validate
from rmt.validate import FloatArray


@dataclass(frozen=True)
class Resolvent:
    """Scalars of ``(S + γ)⁻¹`` for p/n → η and noise covariance I. All fields have the broadcast shape."""

    theta: FloatArray  #: θ = γ(1+δ) ≥ 0, the nonnegative root of θ² + (1−η−γ)θ − γ = 0
    psi: FloatArray  #: ψ = γ/θ ∈ [0, 1]
    h: FloatArray  #: h = 1 − η/(1+θ)² ∈ (0, 1], the inflation factor
    eta: FloatArray  #: η = p/n

    @property
    def lam(self) -> FloatArray:
        """λ = 1 + θ."""
        return 1.0 + self.theta

    @property
    def delta(self) -> FloatArray:
        """δ = θ/γ − 1 = η/(λψ); inf for γ = 0 with η > 1."""
        with np.errstate(divide="ignore", over="ignore"):
            return self.eta / (self.lam * self.psi)


def isotropic(eta: ArrayLike, gamma: ArrayLike) -> Resolvent:
    """Resolvent scalars for C = I, without cancellation for any η > 0, γ ≥ 0 (η = 0 stands for n = ∞).

    θ = (b + √(b² + 4γ))/2 with b = η − 1 + γ. For b < 0 the conjugate form is used, and h is computed as
    ψ + ηθ/λ², a sum of nonnegative terms equal to 1 − η/λ².

    Raises:
        ValueError: η < 0, γ < 0, or η = 1 with γ = 0 (h = 0).
    """
    eta = validate.at_least("eta", eta, 0.0)
    gamma = validate.at_least("gamma", gamma, 0.0)
    b = (eta - 1.0) + gamma
    root = np.hypot(b, 2.0 * np.sqrt(gamma))
    large = np.abs(b) + root  # > 0 unless η = 1 and γ = 0
    if (large == 0).any():
        raise ValueError("eta = 1 with gamma = 0 has h = 0 and infinite variance; give gamma > 0, however small")
    small = 4.0 * gamma / large  # root − |b| without cancellation
    theta = np.where(b >= 0, large, small) / 2.0
    psi = np.where(b >= 0, small, large) / 2.0
    lam = 1.0 + theta
    return Resolvent(theta=theta, psi=psi, h=np.minimum(psi + eta * theta / lam**2, 1.0), eta=eta)


def gamma_of_theta(theta: ArrayLike, eta: ArrayLike) -> FloatArray:
    """The inverse map γ = θ(1 − η/(1+θ)); negative where no γ ≥ 0 gives that θ."""
    theta = np.asarray(theta, dtype=float)
    return theta * (1.0 - np.asarray(eta, dtype=float) / (1.0 + theta))
