"""SymPy derives α* and ᾱ from the moments of the score and proves the closed forms (theory.md §1, §2, §4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sympy as sp

if TYPE_CHECKING:
    from sympy import Expr

#: Symbols: θ, λ = 1 + θ is written out, M = ‖m‖², g = ⟨w̃, m⟩, W = ‖w̃‖², η = p/n, h, α.
ALPHA = sp.Symbol("alpha", real=True)
THETA, M, W, ETA, H = sp.symbols("theta M W eta h", positive=True)
G = sp.Symbol("g", real=True, nonzero=True)


@dataclass(frozen=True)
class Derivation:
    """A derived quantity, the closed form the package computes with, and whether SymPy proved them equal."""

    name: str
    derived: Expr
    closed_form: Expr

    @property
    def proved(self) -> bool:
        """True when ``derived − closed_form`` simplifies to zero."""
        return sp.simplify(sp.together(self.derived - self.closed_form)) == 0

    @property
    def latex(self) -> str:
        """The closed form as LaTeX, with its left-hand side."""
        return f"{self.name} = {sp.latex(self.closed_form)}"


def score_mean() -> Expr:
    """s(α) = (M + θαg)/L, L = 1 + θ + M."""
    return (M + THETA * ALPHA * G) / (1 + THETA + M)


def score_variance() -> Expr:
    """σ²(α) = [θ²α²W + 2θαeg + e²(M + η)]/(λ²h), e = 1 − s."""
    e = 1 - score_mean()
    numerator = (THETA * ALPHA) ** 2 * W + 2 * THETA * ALPHA * e * G + e**2 * (M + ETA)
    return numerator / ((1 + THETA) ** 2 * H)


def derive_alpha_star() -> Derivation:
    """α* from the stationarity of s²/σ²: the root other than ᾱ of 2s′σ² = s(σ²)′."""
    s, variance = score_mean(), score_variance()
    condition = 2 * sp.diff(s, ALPHA) * variance - s * sp.diff(variance, ALPHA)
    # The root ᾱ of s was divided out above: what remains is linear in α.
    numerator = sp.Poly(sp.numer(sp.together(condition)), ALPHA)
    if numerator.degree() != 1:
        raise ArithmeticError(f"the stationarity condition should be linear in alpha, has degree {numerator.degree()}")
    slope, constant = numerator.all_coeffs()
    level = 1 + THETA + M
    closed = ETA * (1 + THETA) * G / (THETA * (level * (M * W - G**2) + ETA * G**2))
    return Derivation(r"\alpha^\star", -constant / slope, closed)


def derive_alpha_bar() -> Derivation:
    """ᾱ, the root of s(α)."""
    (root,) = sp.solve(score_mean(), ALPHA)
    return Derivation(r"\bar\alpha", root, -M / (THETA * G))


def derive_alpha_risk() -> Derivation:
    """The minimiser of 1 − 2s + s² + σ², with h = 1 − η/λ² put in (the closed form needs it)."""
    lam = 1 + THETA
    risk = ((1 - score_mean()) ** 2 + score_variance()).subs(H, 1 - ETA / lam**2)
    numerator = sp.Poly(sp.numer(sp.together(sp.diff(risk, ALPHA))), ALPHA)
    slope, constant = numerator.all_coeffs()
    closed = lam**2 * G / (W * (lam + M) ** 2 - G**2 * (M + 2 * lam - lam**2))
    return Derivation(r"\alpha_{\mathrm{risk}}", -constant / slope, closed)


def derive_best_snr() -> Derivation:
    """SNR*² = h(M D + ηg²)/(D + ηW), D = MW − g²: the score's s²/σ² at α*."""
    star = derive_alpha_star().closed_form
    gap = M * W - G**2
    value = (score_mean() ** 2 / score_variance()).subs(ALPHA, star)
    return Derivation(r"\mathrm{SNR}^{\star 2}", value, H * (M * gap + ETA * G**2) / (gap + ETA * W))


def derivations() -> list[Derivation]:
    """All of them, in reading order."""
    return [derive_alpha_bar(), derive_alpha_star(), derive_alpha_risk(), derive_best_snr()]
