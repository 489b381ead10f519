"""Classes with own means, covariances and proportions, an optional intercept, any loss (theory.md §5 "Classes").

With m_c = y_cμ_c and margins r_c ~ N(s_c + y_cb₀, σ_c²), the trained weights are w̄ + noise with::

    D = (γ + Σπ_cτ_cC_c)⁻¹,   w̄ = D(γαw̃ + Σπ_ce_cm_c),   κ_c = tr C_cD/n
    s_c = m_cᵀw̄,   σ_c² = w̄ᵀC_cw̄ + tr C_cD(Σπ_dv_dC_d)D/n,   Σπ_cy_ce_c = 0 (intercept)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from rmt._checks import BoolArray, FloatArray, IntArray
from rmt.convex.fixed_point import MAX_NODES, NODES, QUADRATURE, QUADRATURE_LIMIT, point_words
from rmt.convex.iterate import iterate
from rmt.scores.solved import Solution, SolvedScore
from rmt.settings.classes import ClassTransfer
from rmt.settings.isotropic import FixedSource
from rmt.settings.losses import SQUARE, Loss
from rmt.settings.spectrum import Spectrum


@dataclass(frozen=True)
class ClassSolution(Solution):
    """Adds what each class sees. ``mean`` and ``variance`` are those of the mixture of margins."""

    class_means: FloatArray  #: (…, C) s_c + y_cb₀
    class_variances: FloatArray  #: (…, C) σ_c²
    intercept: FloatArray  #: b₀


class ClassScore(SolvedScore):
    """Accuracy Σπ_cΦ((s_c + y_cb₀)/σ_c). Mean, variance and risk are those of the mixture over classes."""

    def __init__(self, setting: ClassTransfer, loss: Loss) -> None:
        self.setting, self.loss = setting, loss
        model = _Model(setting)
        super().__init__(
            model.square() if loss is SQUARE else lambda alpha: model.solve(alpha, loss),
            shape=setting.shape,
            unit=model.unit,
            describe=lambda index: point_words(setting, index),
        )

    def class_accuracies(self, alpha: ArrayLike) -> FloatArray:
        """(…, C) accuracy on each class."""
        found = self.solution(alpha)
        return ndtr(found.class_means / np.sqrt(found.class_variances))

    def intercept(self, alpha: ArrayLike) -> FloatArray:
        """(…) the intercept b₀; 0 where none is fitted."""
        return self.solution(alpha).intercept

    def accuracy(self, alpha: ArrayLike, *, folded: bool = False) -> FloatArray:
        """Σπ_cΦ((s_c + y_cb₀)/σ_c)."""
        signed = self.class_accuracies(alpha) @ self.setting.shares
        return np.maximum(signed, 1.0 - signed) if folded else signed

    def _objective(self, found: Any) -> FloatArray:
        ratio, shares = found.class_means / np.sqrt(found.class_variances), self.setting.shares
        right, wrong = (np.maximum(ndtr(side) @ shares, 1e-300) for side in (ratio, -ratio))
        return np.log(right) - np.log(wrong)  # log odds do not saturate near 1


class _Model:
    """The arrays of a setting, and its two solvers."""

    def __init__(self, setting: ClassTransfer) -> None:
        self.setting = setting
        self.labels, self.shares = np.asarray(setting.labels, dtype=float), setting.shares
        self.signed = self.labels[:, None] * np.asarray(setting.means, dtype=float)  # (C, p) m_c
        self.covariances, source = setting.dense, setting.source
        self.noise: FloatArray = np.zeros((setting.p, setting.p))  # covariance Ω of the source weights
        if isinstance(source, FixedSource):
            self.source = np.asarray(source.vector, dtype=float)
        else:
            own, variances = source.law
            self.source = source.spectrum.restore(own)
            self.noise = Spectrum(variances, source.spectrum.vectors).dense()
        spread = np.einsum("cij,i,j->c", self.covariances, self.source, self.source)
        spread += np.sum(self.covariances * self.noise, axis=(1, 2))
        with np.errstate(divide="ignore"):
            self.unit = 1.0 / np.sqrt(self.shares @ spread)

    def points(self) -> list[tuple[tuple[int, ...], float, float]]:
        """(index, n, γ) of every setting."""
        shape = self.setting.shape
        n, gamma = (np.broadcast_to(np.asarray(x, dtype=float), shape) for x in (self.setting.n, self.setting.gamma))
        return [(index, float(n[index]), float(gamma[index])) for index in np.ndindex(shape)]

    def resolve(self, n: float, gamma: float, tau: FloatArray) -> _Resolved:
        """What follows from D for given τ."""
        inverse = np.linalg.inv(gamma * np.eye(self.setting.p) + np.tensordot(self.shares * tau, self.covariances, 1))
        seen = inverse @ self.covariances  # (C, p, p) DC_c
        kappa = np.trace(seen, axis1=1, axis2=2) / n
        pulls = inverse @ np.vstack([gamma * self.source, self.shares[:, None] * self.signed]).T  # (p, 1 + C)
        forms = np.einsum("ik,cij,jl->ckl", pulls, self.covariances, pulls, optimize=True)
        if self.noise.any():
            forms[:, 0, 0] += gamma**2 * np.einsum("cij,ji->c", seen @ inverse, self.noise, optimize=True)
        spread = np.einsum("cij,dji->cd", seen, seen, optimize=True) * self.shares / n  # tr C_cDπ_dC_dD/n
        return _Resolved(kappa, self.signed @ pulls, forms, spread)

    def square(self) -> Callable[[FloatArray], ClassSolution]:
        """Square loss: κ, τ do not depend on α, means are affine and variances quadratic in it."""
        shape, count = self.setting.shape, len(self.labels)
        # Coefficients of 1, α, α²: class means, intercept, class variances.
        affine, offset, quadratic = np.zeros((2, *shape, count)), np.zeros((2, *shape)), np.zeros((3, *shape, count))
        n_iter, converged = np.zeros(shape, dtype=int), np.zeros(shape, dtype=bool)
        for index, n, gamma in self.points():
            state = np.zeros((1, count))

            def residual(at: IntArray, n: float = n, gamma: float = gamma, state: FloatArray = state) -> FloatArray:
                tau = 1.0 / (1.0 + np.exp(state[0]))
                return (np.log(self.resolve(n, gamma, tau).kappa) - state[0])[None]

            solved, taken = iterate(residual, lambda move, _: np.abs(move).max(axis=1), state, np.arange(1))
            n_iter[index], converged[index] = taken[0], solved.size == 1
            tau = 1.0 / (1.0 + np.exp(state[0]))
            means, shifts, powers = self._affine(self.resolve(n, gamma, tau), tau)
            for power in range(3):
                quadratic[(power, *index)] = powers[power]
                if power < 2:
                    affine[(power, *index)], offset[(power, *index)] = means[power], shifts[power]

        def solver(alpha: FloatArray) -> ClassSolution:
            a = alpha[..., None]
            intercept = offset[0] + alpha * offset[1]
            means = affine[0] + a * affine[1] + self.labels * intercept[..., None]
            variances = quadratic[0] + a * (quadratic[1] + a * quadratic[2])
            return self._mixture(means, variances, intercept, n_iter, converged)

        return solver

    def _affine(self, r: _Resolved, tau: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Means (2, C) and intercept (2,) by powers of α, and variances (3, C).

        Unknowns e_c and b₀ solve e_c = τ_c(1 − s_c − y_cb₀), s = m(γαw̃ + Σπ_de_dm_d), Σπ_cy_ce_c = 0.
        """
        count = len(tau)
        system = np.zeros((count + 1, count + 1))
        system[:count, :count] = np.eye(count) + tau[:, None] * r.means[:, 1:]
        system[count, count] = 1.0
        if self.setting.intercept:
            system[:count, count] = tau * self.labels
            system[count] = [*(self.shares * self.labels), 0.0]
        right = np.zeros((count + 1, 2))
        right[:count] = np.stack([tau, -tau * r.means[:, 0]], axis=-1)
        unknown = np.linalg.solve(system, right)
        residuals, offset = unknown[:count], unknown[count]  # (C, 2), (2,)
        means = r.means[:, 1:] @ residuals
        means[:, 1] += r.means[:, 0]
        coefficients = np.vstack([[0.0, 1.0], residuals])  # (1 + C, 2) of (γαw̃, e_c)
        forms = np.einsum("ki,ckl,lj->cij", coefficients, r.forms, coefficients)
        powers = np.stack([forms[:, 0, 0], 2.0 * forms[:, 0, 1], forms[:, 1, 1]])  # (3, C)
        e0, e1 = residuals.T
        squares = np.stack([e0**2, 2.0 * e0 * e1, e1**2])
        # v_d = e_d² + τ_d²σ_d², hence σ² = forms + spread·e² + spread·τ²·σ².
        variances = np.linalg.solve(np.eye(count) - r.spread * tau**2, (powers + squares @ r.spread.T).T).T
        return means.T, offset, variances

    def _slope(self, gain: FloatArray, tau: FloatArray) -> FloatArray:
        """Minus the Jacobian of (s_c(e) − s_c, Σπ_cy_ce_c) in (s, b₀), for ds/de = ``gain`` (C, C)."""
        count = len(tau)
        slope = np.eye(count + 1)
        slope[:count, :count] += gain * tau
        if self.setting.intercept:
            slope[:count, count] = gain @ (tau * self.labels)
            slope[count] = [*(self.shares * self.labels * tau), self.shares @ tau]
        return slope

    def solve(self, alpha: FloatArray, loss: Loss) -> ClassSolution:
        """Any loss, one α and one setting at a time."""
        count, shape = len(self.labels), alpha.shape
        means, variances = np.zeros((2, *shape, count))
        intercept, n_iter, converged = np.zeros(shape), np.zeros(shape, dtype=int), np.zeros(shape, dtype=bool)
        settings = {index: (n, gamma) for index, n, gamma in self.points()}
        own = self.setting.shape
        for index in np.ndindex(shape):
            # NumPy's rules: the trailing axes are those of the setting, length 1 repeats.
            place = tuple(i if size > 1 else 0 for i, size in zip(index[len(shape) - len(own) :], own, strict=True))
            n, gamma = settings[place]
            state, n_iter[index], converged[index] = self._solve_one(n, gamma, float(alpha[index]), loss)
            intercept[index] = state[-1]
            means[index] = state[:count] + self.labels * state[-1]
            variances[index] = np.exp(state[count : 2 * count])
        return self._mixture(means, variances, intercept, n_iter, converged)

    def _solve_one(self, n: float, gamma: float, alpha: float, loss: Loss) -> tuple[FloatArray, int, bool]:
        """State (s_c, log σ_c², log κ_c, b₀) of one point, its iterations, and whether it converged."""
        count = len(self.labels)
        state, nodes, total = np.zeros((1, 3 * count + 1)), NODES, 0

        def residual(at: IntArray) -> FloatArray:
            s, spread, kappa, offset = np.split(state[0], [count, 2 * count, 3 * count])
            e, v, tau = loss.moments(s + self.labels * offset, np.exp(spread), np.exp(kappa), nodes)
            r = self.resolve(n, gamma, tau)
            pull = np.concatenate([[alpha], e])
            variances = np.einsum("k,ckl,l->c", pull, r.forms, pull) + r.spread @ v
            gap = np.append(r.means @ pull - s, (self.shares * self.labels) @ e if self.setting.intercept else 0.0)
            # de_c = −τ_c(ds_c + y_cdb₀): a Newton step in (s, b₀), without which small γ diverges.
            step = np.linalg.solve(self._slope(r.means[:, 1:], tau), gap)
            move = [step[:count], np.log(variances) - spread, np.log(r.kappa) - kappa, step[count:]]
            return np.concatenate(move)[None]

        def change(move: FloatArray, state: FloatArray) -> FloatArray:
            size = np.sqrt(np.exp(state[:, count : 2 * count]) + state[:, :count] ** 2)
            level = np.abs(move[:, :count] / size).max(axis=1)
            offset = np.abs(move[:, -1]) / size.max(axis=1)
            found = np.maximum(np.maximum(level, offset), np.abs(move[:, count:-1]).max(axis=1))
            return np.where(np.isnan(found), np.inf, found)

        while True:
            solved, taken = iterate(residual, change, state, np.arange(1))
            total += int(taken[0])
            if loss.exact or not solved.size:
                return state[0], total, solved.size == 1
            nodes = 2 * nodes - 1
            moved = change(residual(np.arange(1)), state)[0]
            if moved <= QUADRATURE or nodes >= MAX_NODES:
                return state[0], total, bool(moved <= QUADRATURE_LIMIT)

    def _mixture(
        self, means: FloatArray, variances: FloatArray, intercept: FloatArray, n_iter: IntArray, converged: BoolArray
    ) -> ClassSolution:
        mean = means @ self.shares
        variance = (variances + (means - mean[..., None]) ** 2) @ self.shares
        taken, solved = np.broadcast_to(n_iter, mean.shape), np.broadcast_to(converged, mean.shape)
        return ClassSolution(mean, variance, taken, solved, means, variances, intercept)


@dataclass(frozen=True)
class _Resolved:
    """Numbers of one D = (γ + Σπτ C)⁻¹; index 0 stands for γαw̃, c for π_cm_c."""

    kappa: FloatArray  # (C,) tr C_cD/n
    means: FloatArray  # (C, 1 + C) m_cᵀD(γw̃, π_dm_d)
    forms: FloatArray  # (C, 1 + C, 1 + C) quadratic forms of D(γw̃, π_dm_d) in C_c
    spread: FloatArray  # (C, C) π_d tr C_cDC_dD/n
