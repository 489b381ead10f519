"""Classes with own means, covariances and proportions, an optional intercept, any loss (theory.md §5 "Classes").

With m_c = y_cμ_c and margins r_c ~ N(s_c + y_cb₀, σ_c²), the trained weights are w̄ + noise with::

    D = (γ + Σπ_cτ_cC_c)⁻¹,   w̄ = D(γαw̃ + Σπ_ce_cm_c),   κ_c = tr C_cD/n
    s_c = m_cᵀw̄,   σ_c² = w̄ᵀC_cw̄ + tr C_cD(Σπ_dv_dC_d)D/n,   Σπ_cy_ce_c = 0 (intercept)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from rmt._checks import BoolArray, FloatArray, IntArray
from rmt.beyond.class_model import Components, resolver
from rmt.convex.fixed_point import MAX_NODES, NODES, QUADRATURE, QUADRATURE_LIMIT, point_words
from rmt.convex.iterate import iterate
from rmt.losses import SQUARE, Loss
from rmt.scores.solved import Solution, SolvedScore
from rmt.settings.classes import ClassTransfer


@dataclass(frozen=True)
class ClassSolution(Solution):
    """Adds what each class sees. ``mean`` and ``variance`` are those of the mixture of margins."""

    class_means: FloatArray  #: (…, C) s_c + y_cb₀
    class_variances: FloatArray  #: (…, C) σ_c²
    intercept: FloatArray  #: b₀


class ClassScore(SolvedScore):
    """Accuracy Σπ_cΦ((s_c + y_cb₀)/σ_c). Mean, variance and risk are those of the mixture over classes.

    >>> import rmt
    >>> setting = rmt.ClassTransfer(
    ...     n=60,
    ...     gamma=0.5,
    ...     means=[[1.0, 0.0], [-1.0, 0.5]],
    ...     covariances=[[1.0, 1.0], [2.0, 2.0]],
    ...     source=rmt.FixedSource(vector=[0.7, 0.0]),
    ... )
    >>> score = rmt.theory(setting)
    >>> round(float(score.accuracy(1.0)), 4)
    0.8018
    """

    def __init__(self, setting: ClassTransfer, loss: Loss) -> None:
        self.setting, self.loss = setting, loss
        model = _Model(setting)
        super().__init__(
            model.square() if loss is SQUARE else partial(model.solve, loss=loss),
            shape=setting.shape,
            unit=model.unit,
            describe=partial(point_words, setting),
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
    """The components of a setting, and its two solvers."""

    def __init__(self, setting: ClassTransfer) -> None:
        self.setting, self.parts = setting, Components.of(setting)
        self.labels, self.shares = self.parts.labels, self.parts.shares
        self.resolve = resolver(self.parts, setting.source)
        with np.errstate(divide="ignore"):
            self.unit = 1.0 / np.sqrt(self.parts.tested @ self.resolve.spread_of_source)

    def _sizes(self, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        """n and γ of every point, flat."""
        n, gamma = (np.broadcast_to(np.asarray(x, dtype=float), shape) for x in (self.setting.n, self.setting.gamma))
        return n.ravel(), gamma.ravel()

    def square(self) -> Any:
        """Square loss: κ, τ do not depend on α, means are affine and variances quadratic in it."""
        shape, count = self.setting.shape, len(self.labels)
        n, gamma = self._sizes(shape)
        state = np.zeros((n.size, count))  # log κ

        def residual(at: IntArray) -> FloatArray:
            tau = 1.0 / (1.0 + np.exp(state[at]))
            return np.log(self.resolve(n[at], gamma[at], tau).kappa) - state[at]

        todo: IntArray = np.arange(n.size)
        solved, taken = iterate(residual, lambda move, _: np.abs(move).max(axis=1), state, todo)
        tau = 1.0 / (1.0 + np.exp(state))
        means, intercepts, variances = (
            part.reshape((len(part), *shape, *part.shape[2:])) for part in self._affine(n, gamma, tau)
        )
        return _SquareSolver(
            means=means,
            intercepts=intercepts,
            variances=variances,
            labels=self.labels,
            tested=self.parts.tested,
            n_iter=taken.reshape(shape),
            converged=np.isin(todo, solved).reshape(shape),
        )

    def _affine(self, n: FloatArray, gamma: FloatArray, tau: FloatArray) -> tuple[FloatArray, ...]:
        """Means (2, P, Q) and intercept (2, P) by powers of α, and variances (3, P, Q).

        Unknowns e_c and b₀ solve e_c = τ_c(1 − s_c − y_cb₀), s = m(γαw̃ + Σπ_de_dm_d), Σπ_cy_ce_c = 0.
        """
        r, (points, count) = self.resolve(n, gamma, tau), tau.shape
        system = np.zeros((points, count + 1, count + 1))
        system[:, :count, :count] = np.eye(count) + tau[:, :, None] * r.means[:, :, 1:]
        system[:, count, count] = 1.0
        if self.setting.intercept:
            system[:, :count, count] = tau * self.labels
            system[:, count] = [*(self.shares * self.labels), 0.0]
        right = np.zeros((points, count + 1, 2))
        right[:, :count] = np.stack([tau, -tau * r.means[:, :, 0]], axis=-1)
        unknown = np.linalg.solve(system, right)
        residuals, offset = unknown[:, :count], unknown[:, count]  # (P, Q, 2), (P, 2)
        means = r.means[:, :, 1:] @ residuals
        means[..., 1] += r.means[:, :, 0]
        constant = np.broadcast_to([0.0, 1.0], (points, 1, 2))
        coefficients = np.concatenate([constant, residuals], axis=1)  # (P, 1 + Q, 2) of (γαw̃, e_c)
        forms = coefficients[:, None].mT @ r.forms @ coefficients[:, None]  # (P, Q, 2, 2)
        powers = np.stack([forms[..., 0, 0], 2.0 * forms[..., 0, 1], forms[..., 1, 1]], axis=-1)  # (P, Q, 3)
        e0, e1 = np.moveaxis(residuals, -1, 0)
        squares = np.stack([e0**2, 2.0 * e0 * e1, e1**2], axis=-1)
        # v_d = e_d² + τ_d²σ_d², hence σ² = forms + spread·e² + spread·τ²·σ².
        variances = np.linalg.solve(np.eye(count) - r.spread * tau[:, None] ** 2, powers + r.spread @ squares)
        return np.moveaxis(means, -1, 0), offset.T, np.moveaxis(variances, -1, 0)

    def _step(self, gap: FloatArray, gain: FloatArray, tau: FloatArray) -> FloatArray:
        """Newton's step in (s, b₀), without which small γ diverges: de_c = −τ_c(ds_c + y_cdb₀), ds/de = ``gain``.

        Only a direction for the iteration, so it may be rough where no residual is left: at far scales every τ
        underflows, and with it the equation of the intercept.
        """
        points, count = tau.shape
        slope = np.tile(np.eye(count + 1), (points, 1, 1))
        slope[:, :count, :count] += gain * tau[:, None]
        if self.setting.intercept:
            slope[:, :count, count] = np.einsum("pcd,pd->pc", gain, tau * self.labels)
            slope[:, count, :count] = self.shares * self.labels * tau
            slope[:, count, count] = tau @ self.shares
        unit = np.abs(slope).max(axis=2, keepdims=True)
        known = np.isfinite(unit[:, :, 0]).all(axis=1) & (unit[:, :, 0] > _UNDERFLOW).all(axis=1)
        step = gap.copy()
        scaled = slope[known] / unit[known]
        scaled += _LIFT * np.eye(count + 1)
        step[known] = np.linalg.solve(scaled, (gap[known] / unit[known, :, 0])[..., None])[..., 0]
        return step

    def solve(self, alpha: FloatArray, loss: Loss) -> ClassSolution:
        """Any loss: states (s_c, log σ_c², log κ_c, b₀) of all points at once."""
        count, shape, scale = len(self.labels), alpha.shape, alpha.ravel()
        n, gamma = self._sizes(shape)
        state, nodes = np.zeros((scale.size, 3 * count + 1)), NODES
        n_iter, converged = np.zeros(scale.size, dtype=int), np.zeros(scale.size, dtype=bool)

        def residual(at: IntArray, nodes: int) -> FloatArray:
            s, spread, kappa, offset = np.split(state[at], [count, 2 * count, 3 * count], axis=1)
            # A point that runs away is known by a move that is not finite.
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                e, v, tau = loss.moments(s + self.labels * offset, np.exp(spread), np.exp(kappa), nodes)
                r = self.resolve(n[at], gamma[at], np.where(np.isfinite(tau), tau, 0.0))
                pull = np.concatenate([scale[at, None], e], axis=1)
                variances = (pull[:, None, None] @ r.forms @ pull[:, None, :, None])[..., 0, 0]
                variances += (r.spread @ v[..., None])[..., 0]
                gap = np.zeros((at.size, count + 1))
                gap[:, :count] = (r.means @ pull[..., None])[..., 0] - s
                if self.setting.intercept:
                    gap[:, count] = e @ (self.shares * self.labels)
                step = self._step(gap, r.means[:, :, 1:], tau)
                # Beyond the spread of the margins the residuals saturate, and a step further would never return.
                reach = np.sqrt(np.exp(spread) + s**2).max(axis=1)
                step[:, count] = np.clip(step[:, count], -reach, reach)
                moves = [step[:, :count], np.log(variances) - spread, np.log(r.kappa) - kappa, step[:, count:]]
                return np.concatenate(moves, axis=1)

        def change(move: FloatArray, state: FloatArray) -> FloatArray:
            size = np.sqrt(np.exp(state[:, count : 2 * count]) + state[:, :count] ** 2)
            level = np.abs(move[:, :count] / size).max(axis=1)
            offset = np.abs(move[:, -1]) / size.max(axis=1)
            found = np.maximum(np.maximum(level, offset), np.abs(move[:, count:-1]).max(axis=1))
            return np.where(np.isnan(found), np.inf, found)

        todo: IntArray = np.arange(scale.size)
        while todo.size:
            solved, taken = iterate(partial(residual, nodes=nodes), change, state, todo)
            n_iter[todo] += taken
            if loss.exact or not solved.size:
                converged[solved] = True
                break
            nodes = 2 * nodes - 1
            moved = change(residual(solved, nodes), state[solved])
            if nodes >= MAX_NODES:
                converged[solved[moved <= QUADRATURE_LIMIT]] = True
                break
            converged[solved[moved <= QUADRATURE]] = True
            todo = solved[moved > QUADRATURE]
        means = state[:, :count] + self.labels * state[:, -1:]
        parts = (means, np.exp(state[:, count : 2 * count]), state[:, -1])
        means, variances, intercept = (part.reshape((*shape, *part.shape[1:])) for part in parts)
        return _mixture(means, variances, intercept, n_iter.reshape(shape), converged.reshape(shape), self.parts.tested)


#: Size of a row of Newton's system at which it says nothing, and what is added to its unit diagonal.
_UNDERFLOW, _LIFT = 1e-250, 1e-14


@dataclass(frozen=True)
class _SquareSolver:
    """Scales → solutions, from the powers of α."""

    means: FloatArray  # (2, …, Q)
    intercepts: FloatArray  # (2, …)
    variances: FloatArray  # (3, …, Q)
    labels: FloatArray
    tested: FloatArray
    n_iter: IntArray
    converged: BoolArray

    def __call__(self, alpha: FloatArray) -> ClassSolution:
        a = alpha[..., None]
        intercept = self.intercepts[0] + alpha * self.intercepts[1]
        means = self.means[0] + a * self.means[1] + self.labels * intercept[..., None]
        variances = self.variances[0] + a * (self.variances[1] + a * self.variances[2])
        return _mixture(means, variances, intercept, self.n_iter, self.converged, self.tested)


def _mixture(
    means: FloatArray,
    variances: FloatArray,
    intercept: FloatArray,
    n_iter: IntArray,
    converged: BoolArray,
    tested: FloatArray,
) -> ClassSolution:
    """The solution over the components that are tested (those of flipped labels come last and are not)."""
    count = np.count_nonzero(tested)
    means, variances, shares = means[..., :count], variances[..., :count], tested[:count]
    mean = means @ shares
    variance = (variances + (means - mean[..., None]) ** 2) @ shares
    taken, solved = np.broadcast_to(n_iter, mean.shape), np.broadcast_to(converged, mean.shape)
    return ClassSolution(mean, variance, taken, solved, means, variances, intercept)
