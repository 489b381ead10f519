"""Deterministic equivalents: the resolvent scalars θ, ψ, δ, h for isotropic (theory.md §2) and general noise (§3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray

#: Newton converges in about ten steps; near γ = 0, n = rank the root is nearly double and it takes about fifty.
_MAX_NEWTON = 200


@dataclass(frozen=True)
class Resolvent:
    """Scalars of ``(S + γ)⁻¹`` for noise covariance C, H = (θ + C)⁻¹. All fields have the broadcast shape."""

    theta: FloatArray  #: θ = γ(1+δ) ≥ 0; for C = I the nonnegative root of θ² + (1−η−γ)θ − γ = 0
    psi: FloatArray  #: ψ = γ/θ ∈ [0, 1]
    h: FloatArray  #: h = 1 − tr(CHCH)/n ∈ (0, 1], the inflation factor; 1 − η/(1+θ)² for C = I
    excess: FloatArray  #: 1 − h, without cancellation
    load: FloatArray  #: tr(CH)/n = 1 − ψ; η/(1+θ) for C = I

    @property
    def lam(self) -> FloatArray:
        """λ = 1 + θ."""
        return 1.0 + self.theta

    @property
    def delta(self) -> FloatArray:
        """δ = θ/γ − 1 = tr(CH)/(nψ); inf where γ = 0 < θ."""
        with np.errstate(divide="ignore", over="ignore"):
            return self.load / self.psi


def isotropic(eta: ArrayLike, gamma: ArrayLike) -> Resolvent:
    """Resolvent scalars for C = I, without cancellation for any η > 0, γ ≥ 0 (η = 0 stands for n = ∞).

    θ = (b + √(b² + 4γ))/2 with b = η − 1 + γ. For b < 0 the conjugate form is used, and h is computed as
    ψ + ηθ/λ², a sum of nonnegative terms equal to 1 − η/λ².

    Raises:
        ValueError: η < 0, γ < 0, or η = 1 with γ = 0 (h = 0).
    """
    eta = _checks.at_least("eta", eta, 0.0)
    gamma = _checks.at_least("gamma", gamma, 0.0)
    b = (eta - 1.0) + gamma
    root = np.hypot(b, 2.0 * np.sqrt(gamma))
    large = np.abs(b) + root  # > 0 unless η = 1 and γ = 0
    if (large == 0).any():
        raise ValueError("eta = 1 with gamma = 0 has h = 0 and infinite variance; give gamma > 0, however small")
    small = 4.0 * gamma / large  # root − |b| without cancellation
    theta = np.where(b >= 0, large, small) / 2.0
    psi = np.where(b >= 0, small, large) / 2.0
    lam = 1.0 + theta
    h = np.minimum(psi + eta * theta / lam**2, 1.0)
    return Resolvent(theta=theta, psi=psi, h=h, excess=eta / lam**2, load=eta / lam)


def gamma_of_theta(theta: ArrayLike, eta: ArrayLike) -> FloatArray:
    """The inverse map γ = θ(1 − η/(1+θ)); negative where no γ ≥ 0 gives that θ."""
    theta = np.asarray(theta, dtype=float)
    return theta * (1.0 - np.asarray(eta, dtype=float) / (1.0 + theta))


def spectral(values: ArrayLike, n: ArrayLike, gamma: ArrayLike) -> Resolvent:
    """Resolvent scalars for a covariance with eigenvalues ``values`` (theory.md §3).

    θ is the root of f(θ) = θ(1 − (1/n)Σ c_j/(θ + c_j)) = γ. f is convex with f′ = h, and f ≥ γ at the upper end
    of the bracket [0, γ + tr C/n], so Newton's method from there falls monotonically onto the root. At γ = 0 the
    root is 0 when at most n eigenvalues are positive.

    Args:
        values: (p,) eigenvalues ≥ 0. n: samples (``inf`` allowed). gamma: ridge penalty; broadcasts with ``n``.

    Raises:
        ValueError: negative input, or γ = 0 with exactly n positive eigenvalues (h = 0).
    """
    values = _checks.at_least("values", values, 0.0)
    n, gamma = np.broadcast_arrays(_checks.count("n", n, infinite=True), _checks.at_least("gamma", gamma, 0.0))
    values = values[values > 0]
    rank = values.size
    if ((gamma == 0) & (n == rank)).any():
        raise ValueError(
            f"gamma = 0 with n = {rank}, the rank of the covariance, has h = 0 and infinite variance; "
            "give gamma > 0, however small"
        )
    flat = (gamma == 0) & (n > rank)  # there θ = 0 and nothing is left to solve
    share, target = 1.0 / n.ravel()[:, None], gamma.ravel()
    theta = target + share[:, 0] * values.sum()
    active = np.flatnonzero(~flat.ravel() & (theta > 0))
    for _ in range(_MAX_NEWTON):
        if not active.size:
            break
        at = theta[active, None]
        filtered = values / (at + values)  # (active, p): c_j/(θ + c_j)
        value = at[:, 0] * (1.0 - share[active, 0] * filtered.sum(axis=1))
        slope = 1.0 - share[active, 0] * (filtered**2).sum(axis=1)
        step = np.maximum(value - target[active], 0.0) / slope
        theta[active] -= step
        active = active[step > 1e-15 * theta[active]]
    theta = np.where(flat, 0.0, theta.reshape(n.shape))
    share = 1.0 / n
    filtered = values / (theta[..., None] + values)
    bulk = filtered * (theta[..., None] / (theta[..., None] + values))
    with np.errstate(divide="ignore", invalid="ignore"):
        psi = np.where(theta > 0, gamma / theta, 1.0 - share * rank)  # the limit of γ/θ where θ = 0
    return Resolvent(
        theta=theta,
        psi=psi,
        h=np.minimum(psi + share * bulk.sum(axis=-1), 1.0),
        excess=share * (filtered**2).sum(axis=-1),
        load=share * filtered.sum(axis=-1),
    )


def inverse_of(values: FloatArray, theta: FloatArray, gamma_name: str) -> FloatArray:
    """Eigenvalues of H = (θ + C)⁻¹, (…, p)."""
    shifted = np.asarray(theta)[..., None] + values
    if (shifted == 0).any():
        raise ValueError(f"{gamma_name} = 0 with a singular covariance leaves H undefined; give {gamma_name} > 0")
    return 1.0 / shifted
