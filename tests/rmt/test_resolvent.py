"""θ, ψ, h, δ: the defining equation, identities, and the inverse map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmt.resolvent import gamma_of_theta, isotropic


@given(eta=st.floats(1e-6, 1e6), gamma=st.floats(1e-15, 1e9))
def test_theta_solves_its_equation(eta, gamma):
    r = isotropic(eta, gamma)
    # θ(1 − η/λ) = γ, in the form that does not cancel: θ² + θ = ηθ + γθ + γ
    assert r.theta**2 + r.theta == pytest.approx(eta * r.theta + gamma * r.theta + gamma, rel=1e-12)
    assert 0 <= r.psi <= 1
    assert 0 < r.h <= 1
    assert r.psi == pytest.approx(gamma / r.theta, rel=1e-12)


@given(eta=st.floats(1e-3, 1e3), gamma=st.floats(1e-3, 1e3))
def test_textbook_forms(eta, gamma):
    r = isotropic(eta, gamma)
    delta = (eta - gamma - 1 + np.sqrt((eta - gamma - 1) ** 2 + 4 * eta * gamma)) / (2 * gamma)  # as the paper writes δ
    assert r.delta == pytest.approx(delta, rel=1e-7)
    assert r.h == pytest.approx(1 - eta / r.lam**2, rel=1e-9, abs=1e-12)
    assert gamma_of_theta(r.theta, eta) == pytest.approx(gamma, rel=1e-6)


def test_delta_does_not_cancel_for_tiny_gamma():
    """The official code loses all digits here (theory.md §9, E7); δ → η/(1−η) for η < 1."""
    assert isotropic(0.5, 1e-15).delta == pytest.approx(1.0, rel=1e-12)


def test_ridgeless_and_edges():
    assert isotropic(3.0, 0.0).theta == 2
    assert isotropic(0.5, 0.0).theta == 0
    assert isotropic(0.5, 0.0).h == pytest.approx(0.5)
    assert isotropic(3.0, 0.0).h == pytest.approx(1 - 1 / 3)
    assert isotropic(0.0, 0.7).theta == pytest.approx(0.7)
    with pytest.raises(ValueError, match="h = 0 and infinite variance"):
        isotropic([0.5, 1.0], 0.0)
    with pytest.raises(ValueError, match="eta must be ≥ 0"):
        isotropic(-1, 1)


def test_theta_is_the_limit_of_a_large_sample():
    """θ = n/tr(K+γ)⁻¹ for K = XᵀX/n, the estimate of theory.md §6."""
    rng = np.random.default_rng(0)
    n, p, gamma = 1200, 600, 0.3
    X = rng.standard_normal((n, p))
    values = np.concatenate([np.linalg.eigvalsh(X.T @ X / n), np.zeros(n - p)])
    assert n / np.sum(1 / (values + gamma)) == pytest.approx(isotropic(p / n, gamma).theta, rel=5e-3)
