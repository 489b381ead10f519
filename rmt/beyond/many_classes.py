"""K classes, one score a class: the law of the K scores, and accuracy as a K-variate Gaussian integral.

Scores of a fresh sample of class c are N(M_c + b, Q_c) in ℝᴷ. A trained sample's own scores h solve
h + V_c∇ℓ_c(h) = r, r ~ N(M_c + b, Q_c); with residuals g = −∇ℓ_c(h), ē_c = E g, S_c = E ggᵀ and T_c = −E ∂g/∂r, the
trained weights are, in a basis where every covariance is diagonal with eigenvalues c_cj, w_j ∈ ℝᴷ a direction::

    D_j = (γ + Σπ_c c_cj T_c)⁻¹,   w̄_j = D_j(γ α∘w̃_j + Σπ_c μ_cj ē_c),   V_c = (1/n)Σ_j c_cj D_j
    M_c = Σ_j μ_cj w̄_j,   Q_c = Σ_j c_cj(w̄_jw̄_jᵀ + D_j(Σ_d π_d c_dj S_d)D_j/n),   Σπ_c ē_c = 0 (intercepts)

This is the scalar system of theory.md §5 with matrices for κ, τ and v. The square loss with targets ±1 (one-vs-rest)
has T_c = τ_c·1: its columns share one D, and any covariances will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt._checks import FloatArray, IntArray
from rmt.beyond.class_model import Components, common_basis, resolver
from rmt.convex.iterate import iterate
from rmt.scores.solved import ConvergenceError
from rmt.scores.winner import winning_probability
from rmt.settings.isotropic import FixedSource
from rmt.settings.many_classes import MulticlassTransfer

#: Steps of the matrix iteration at most, and the relative change that ends it.
_MAX_ITER, _TOLERANCE = 400, 1e-7
#: Gaussian averages are taken on this many points for each class, in pairs ±z.
_POINTS, _SEED = 2**10, 20251021
#: α is searched as unit·sinh(x) on this grid first.
_GRID = np.linspace(-6.0, 6.0, 25)


@dataclass(frozen=True)
class ScoreLaw:
    """Scores of a fresh sample of class c: N(means[c], covariances[c]) in ℝᴷ."""

    means: FloatArray  #: (C, K)
    covariances: FloatArray  #: (C, K, K)
    intercepts: FloatArray  #: (K,), already in ``means``


class MulticlassScore:
    """What is predicted for a :class:`rmt.MulticlassTransfer`; ``alpha`` as the setting's ``per_class`` says.

    >>> import rmt
    >>> setting = rmt.MulticlassTransfer(
    ...     n=90,
    ...     gamma=0.5,
    ...     means=[[2.0, 0.0], [0.0, 2.0], [-1.0, -1.0]],
    ...     covariances=[[1.0, 1.0]] * 3,
    ...     source=[[1, 0], [0, 1], [-1, -1]],
    ... )
    >>> score = rmt.theory(setting)
    >>> round(float(score.accuracy(1.0)), 3)
    0.875
    """

    def __init__(self, setting: MulticlassTransfer, loss: str) -> None:
        self.setting, self.loss = setting, loss
        self._model: Any = _OneVsRest(setting) if loss == "square" else _Softmax(setting)
        self._known: dict[bytes, ScoreLaw] = {}

    def law(self, alpha: ArrayLike) -> ScoreLaw:
        """The law of the K scores at one α.

        Raises:
            ConvergenceError: no fixed point was found.
        """
        scales = self.setting.scales(alpha)
        if scales.ndim != 1:
            raise ValueError(f"law takes one alpha at a time, got shape {np.shape(alpha)}")
        key = scales.tobytes()
        if key not in self._known:
            self._known[key] = self._model.law(scales)
        return self._known[key]

    def class_accuracies(self, alpha: ArrayLike) -> FloatArray:
        """(…, K) accuracy on each class."""
        alpha = np.asarray(alpha, dtype=float)
        shape = alpha.shape[:-1] if self.setting.per_class else alpha.shape
        found = np.empty((*shape, self.setting.classes))
        for index in np.ndindex(shape):
            law = self.law(alpha[index])
            found[index] = [
                winning_probability(mean, form, c)
                for c, (mean, form) in enumerate(zip(law.means, law.covariances, strict=True))
            ]
        return found

    def accuracy(self, alpha: ArrayLike) -> FloatArray:
        """(…) share of right answers, Σπ_c P(score c is the highest)."""
        return self.class_accuracies(alpha) @ self.setting.shares

    def _log_odds(self, alpha: ArrayLike) -> float:
        accuracy = float(np.clip(self.accuracy(alpha), 1e-15, 1.0 - 1e-15))
        return float(np.log(accuracy / (1.0 - accuracy)))

    @cached_property
    def _common_star(self) -> float:
        """The best scale that all rows of the source share."""
        from scipy.optimize import minimize_scalar

        setting = self.setting
        weights = np.asarray(setting.source, dtype=float)
        spread = np.mean([np.sum(one.colour(weights) ** 2) for one in setting.spectra]) / setting.classes
        if spread == 0:
            return np.nan
        unit = 1.0 / np.sqrt(spread)
        ones = np.ones(setting.classes) if setting.per_class else 1.0

        def value(x: float) -> float:
            return -self._log_odds(unit * np.sinh(x) * ones)

        best = int(np.argmin([value(x) for x in _GRID]))
        if best in (0, len(_GRID) - 1):
            return float(np.copysign(np.inf, _GRID[best]))
        found = minimize_scalar(value, bracket=tuple(_GRID[best - 1 : best + 2]), tol=1e-4)
        return float(unit * np.sinh(found.x))

    @cached_property
    def alpha_star(self) -> FloatArray:
        """The scale(s) of the highest accuracy; ±inf where it is approached at infinity, NaN for a zero source."""
        common = self._common_star
        if not self.setting.per_class or not np.isfinite(common):
            return np.full(self.setting.classes if self.setting.per_class else (), common)
        from scipy.optimize import minimize

        start = np.full(self.setting.classes, common)
        size = max(abs(common), 1e-3)
        found = minimize(
            lambda x: -self._log_odds(start + size * x),
            np.zeros_like(start),
            method="L-BFGS-B",
            options={"ftol": 1e-9, "finite_diff_rel_step": 1e-3, "eps": 1e-4},
        )
        return start + size * found.x

    @cached_property
    def best_accuracy(self) -> FloatArray:
        """Accuracy at :attr:`alpha_star`."""
        star = self.alpha_star
        if np.isfinite(star).all():
            return self.accuracy(star)
        return self.accuracy(np.nan_to_num(star, nan=0.0, posinf=1e6, neginf=-1e6))


class _OneVsRest:
    """Square loss: e_ck = τ_c(t_ck − M_ck − b_k), one linear system for all columns."""

    def __init__(self, setting: MulticlassTransfer) -> None:
        self.setting = setting
        count, means = setting.classes, np.asarray(setting.means, dtype=float)
        ones, shares = np.ones(count), setting.shares
        parts = Components(ones, shares, shares, means, setting.spectra)
        sources = tuple(FixedSource(vector=row) for row in np.asarray(setting.source, dtype=float))
        resolve = resolver(parts, *sources)
        n, gamma = np.array([float(setting.n)]), np.array([float(setting.gamma)])
        state = np.zeros((1, count))  # log κ

        def residual(at: IntArray) -> FloatArray:
            tau = 1.0 / (1.0 + np.exp(state[at]))
            return np.log(resolve(n, gamma, tau).kappa) - state[at]

        solved, _ = iterate(residual, lambda move, _: np.abs(move).max(axis=1), state, np.arange(1))
        if not solved.size:
            raise ConvergenceError(f"no fixed point at n = {setting.n}, gamma = {setting.gamma}; raise gamma")
        self.tau = 1.0 / (1.0 + np.exp(state[0]))
        r = resolve(n, gamma, self.tau[None])
        self.means, self.forms, self.spread = r.means[0], r.forms[0], r.spread[0]

    def law(self, scales: FloatArray) -> ScoreLaw:
        """The law at the scales (K,)."""
        count, tau, shares = self.setting.classes, self.tau, self.setting.shares
        system = np.eye(count + 1)
        system[:count, :count] += tau[:, None] * self.means[:, count:]
        if self.setting.intercept:
            system[:count, count], system[count] = tau, [*shares, 0.0]
        targets = 2.0 * np.eye(count) - 1.0
        right = np.vstack([tau[:, None] * (targets - self.means[:, :count] * scales), np.zeros((1, count))])
        unknown = np.linalg.solve(system, right)
        residuals, offset = unknown[:count], unknown[count]  # (C, K), (K,)
        pulls = np.vstack([np.diag(scales), residuals])  # (K + C, K)
        means = self.means @ pulls
        forms = pulls.T @ self.forms @ pulls + np.einsum("cd,dk,dl->ckl", self.spread, residuals, residuals)
        # S_d = e_de_dᵀ + τ_d²Q_d, hence Q = forms + spread·eeᵀ + spread·τ²·Q.
        mix = np.eye(count) - self.spread * tau**2
        covariances = np.linalg.solve(mix, forms.reshape(count, -1)).reshape(forms.shape)
        return ScoreLaw(means + offset, covariances, offset)


class _Softmax:
    """Softmax loss: the matrix system, averages on fixed quasi-random points."""

    def __init__(self, setting: MulticlassTransfer) -> None:
        from scipy.special import ndtri
        from scipy.stats import qmc

        found = common_basis(setting.spectra)
        if found is None:
            raise ValueError(
                "softmax is solved for covariances with a common eigenbasis (equal, diagonal, commuting); "
                "use loss='square', which takes any, or one covariance for all classes"
            )
        basis, self.values = found  # (C, p)
        self.setting = setting
        self.mean = basis.rotate(np.asarray(setting.means, dtype=float))  # (C, p)
        self.source = basis.rotate(np.asarray(setting.source, dtype=float))  # (K, p)
        half = ndtri(np.clip(qmc.Sobol(setting.classes, seed=_SEED).random(_POINTS // 2), 1e-12, 1.0 - 1e-12))
        points = np.concatenate([half, -half])
        factor = np.linalg.cholesky(points.T @ points / len(points))
        self.points = np.linalg.solve(factor, points.T).T  # mean 0 and covariance 1, exactly

    def law(self, scales: FloatArray) -> ScoreLaw:
        """The law at the scales (K,)."""
        setting, shares = self.setting, self.setting.shares
        count, gamma = setting.classes, float(setting.gamma)
        identity = np.eye(count)
        means: FloatArray = np.zeros((count, count))
        offset: FloatArray = np.log(shares) if setting.intercept else np.zeros(count)
        covariances, kappa = np.tile(identity, (2, count, 1, 1))
        scores = np.zeros((count, len(self.points), count))
        pulled = gamma * scales * self.source.T  # (p, K)
        memory = _Mixing()
        for _ in range(_MAX_ITER):
            e, v, tau = (np.empty_like(part) for part in (means, covariances, covariances))
            for c in range(count):
                r = means[c] + offset + self.points @ np.linalg.cholesky(covariances[c]).T
                scores[c] = _prox(r, kappa[c], c, scores[c])
                e[c], v[c], tau[c] = _averages(scores[c], kappa[c], c)
            weighted = (shares[:, None] * self.values).T  # (p, C)
            inverse = np.linalg.inv(gamma * identity + np.tensordot(weighted, tau, 1))  # (p, K, K)
            weights = (inverse @ (pulled + (shares[:, None] * self.mean).T @ e)[..., None])[..., 0]  # (p, K)
            noise = inverse @ np.tensordot(weighted, v, 1) @ inverse / float(setting.n)
            second = weights[:, :, None] * weights[:, None, :] + noise
            new = [self.mean @ weights, np.tensordot(self.values, second, 1)]
            new.append(np.tensordot(self.values, inverse, 1) / float(setting.n))
            step = np.zeros(count)
            if setting.intercept:  # Newton's step on Σπ_cē_c(b) = 0; T is singular along (1 … 1), which has no effect
                step = np.linalg.lstsq(np.tensordot(shares, tau, 1), shares @ e, rcond=1e-9)[0]
            old = [means, covariances, kappa]
            size = max(float(np.sqrt(np.trace(new[1].mean(axis=0)))), 1e-300)
            powers = (size, size**2, float(np.abs(new[2]).max()), size)
            moves = [*(b - a for a, b in zip(old, new, strict=True)), step]
            change = max(float(np.abs(move).max()) / power for move, power in zip(moves, powers, strict=True))
            if change <= _TOLERANCE:
                return ScoreLaw(new[0] + offset, new[1], offset)
            means, covariances, kappa, offset = memory.step([*old, offset], moves)
        raise ConvergenceError(
            f"no fixed point of the softmax loss at alpha = {scales}, n = {setting.n}, gamma = {gamma:g} in "
            f"{_MAX_ITER} steps; raise gamma"
        )


class _Mixing:
    """Damped iteration with Anderson mixing; covariances that would not be positive definite fall back to damping."""

    depth, damping = 5, 0.6

    def __init__(self) -> None:
        self.states: list[FloatArray] = []
        self.moves: list[FloatArray] = []

    def step(self, state: list[FloatArray], moves: list[FloatArray]) -> list[FloatArray]:
        """The next state."""
        x, f = (np.concatenate([part.ravel() for part in parts]) for parts in (state, moves))
        self.states, self.moves = [*self.states, x][-self.depth :], [*self.moves, f][-self.depth :]
        candidate = x + self.damping * f
        if len(self.states) > 2:
            dx, df = (np.diff(np.stack(part), axis=0).T for part in (self.states, self.moves))
            weight = np.linalg.lstsq(df, f, rcond=1e-8)[0]
            mixed = _split(candidate - (dx + self.damping * df) @ weight, state)
            if all(np.linalg.eigvalsh(part)[:, 0].min() > 0 for part in mixed[1:3]):
                return mixed
        return _split(candidate, state)


def _split(flat: FloatArray, like: list[FloatArray]) -> list[FloatArray]:
    ends = np.cumsum([part.size for part in like])[:-1]
    return [part.reshape(one.shape) for part, one in zip(np.split(flat, ends), like, strict=True)]


def _softmax(scores: FloatArray) -> FloatArray:
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _prox(r: FloatArray, kappa: FloatArray, label: int, start: FloatArray) -> FloatArray:
    """h with h + V∇ℓ(h) = r, ∇ℓ = softmax(h) − e_label, for rows r (N, K): Newton, halved where it overshoots."""
    h, identity = start.copy(), np.eye(len(kappa))
    target = r + kappa[label]

    def gap(h: FloatArray) -> tuple[FloatArray, FloatArray]:
        shares = _softmax(h)
        return h + shares @ kappa - target, shares

    value, shares = gap(h)
    for _ in range(60):
        if np.abs(value).max() <= 1e-10 * (1.0 + np.abs(r).max()):
            break
        curvature = shares[:, :, None] * identity - shares[:, :, None] * shares[:, None, :]
        step = np.linalg.solve(identity + kappa @ curvature, value[..., None])[..., 0]
        norm, length = np.abs(value).max(axis=1), np.ones(len(h))
        for _ in range(8):
            new, new_shares = gap(h - length[:, None] * step)
            worse = np.abs(new).max(axis=1) > norm
            if not worse.any():
                break
            length[worse] *= 0.5
        h, value, shares = h - length[:, None] * step, new, new_shares
    return h


def _averages(scores: FloatArray, kappa: FloatArray, label: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """E g, E ggᵀ, and T = E H(1 + VH)⁻¹ with H the Hessian of the loss."""
    shares, identity = _softmax(scores), np.eye(len(kappa))
    residual = identity[label] - shares
    curvature = shares[:, :, None] * identity - shares[:, :, None] * shares[:, None, :]
    tau = np.linalg.solve(identity + curvature @ kappa, curvature).mean(axis=0)
    return residual.mean(axis=0), residual.T @ residual / len(residual), 0.5 * (tau + tau.T)


def multiclass_score(setting: MulticlassTransfer, loss: Any) -> MulticlassScore:
    """The score of ``setting`` for the loss ``"square"`` (one-vs-rest) or ``"softmax"``."""
    name = getattr(loss, "name", loss)
    if name not in ("square", "softmax"):
        raise ValueError(f"a MulticlassTransfer is trained with loss='square' (one-vs-rest) or 'softmax', got {name!r}")
    return MulticlassScore(setting, name)
