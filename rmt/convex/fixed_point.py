"""Any convex loss: the scalar fixed point of the adapter's training, for every noise model (theory.md §5).

The unknowns are mean s and variance σ² of a fresh score and κ, the sensitivity of a trained sample. A *response*
says how a model turns the residual's averages (e, v, τ) into (κ, s, σ²); a *loss* does the reverse. The fixed point
of the two is found by damped iteration, vectorised over settings and scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rmt._checks import FloatArray, IntArray
from rmt.convex.iterate import iterate
from rmt.convex.mixture import Mixture, flipped, plain_mixture
from rmt.losses import Loss, Moments
from rmt.scores.solved import FixedPoint, SolvedScore
from rmt.settings.gaussian import GaussianTransfer
from rmt.settings.isotropic import Transfer, source_moments
from rmt.settings.spectrum import BLOCK

#: (positions of the points wanted, (e, v, τ)) → (κ, s, σ², ds/de), each of the length of the positions.
Response = Callable[[IntArray, Moments], tuple[FloatArray, FloatArray, FloatArray, FloatArray]]

#: Quadrature points to begin with; they are doubled where doubling them moves the answer.
NODES, MAX_NODES = 65, 2049
#: Relative change on doubling the points that is accepted, and the one beyond which the answer is not given.
QUADRATURE, QUADRATURE_LIMIT = 1e-10, 1e-5

#: (s, log σ², log κ) to try where the iteration from zero fails: from weak to nearly separable data.
_STARTS = ((0.0, 0.0, 0.0), (1.0, 0.0, 2.0), (1.0, 0.0, 5.0), (1.0, 4.0, 8.0), (1.0, 18.0, 6.0))


def solve(respond: Response, loss: Loss, count: int, mixture: Mixture) -> FixedPoint:
    """The fixed points of ``count`` points (settings × scales), each iterated until it no longer moves.

    Points leave the iteration as they converge. Then each is checked with twice the quadrature points and, where
    that moves it, solved again with them.
    """
    state = np.zeros((count, 3))  # s, log σ², log κ
    moments = np.zeros((count, 3))
    n_iter, converged = np.zeros(count, dtype=int), np.zeros(count, dtype=bool)
    todo: IntArray = np.arange(count)
    nodes = NODES

    def residual(at: IntArray, nodes: int) -> FloatArray:
        # A point that runs away is known by a move that is not finite.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            s, s2, kappa = state[at, 0], np.exp(state[at, 1]), np.exp(state[at, 2])
            averages = mixture.average(loss, s, s2, kappa, nodes, at)
            moments[at] = np.stack(averages, axis=-1)
            kappa, s, s2, gain = respond(at, averages)
            move = np.stack([s, np.log(s2), np.log(kappa)], axis=-1) - state[at]
        # de/ds = −τ. A half step in s would diverge where τ·ds/de > 3 (strong signal, small γ); this makes half of
        # it the Newton step there, and leaves weak couplings alone.
        move[:, 0] /= np.maximum(1.0, 0.5 * (1.0 + averages.tau * gain))
        return move

    while todo.size:
        solved, taken = iterate(partial(residual, nodes=nodes), _change, state, todo, starts=_STARTS)
        n_iter[todo] += taken
        if loss.exact:
            converged[solved] = True
            break
        finer = 2 * nodes - 1
        change = _change(residual(solved, finer), state[solved])
        if finer >= MAX_NODES:
            converged[solved[change <= QUADRATURE_LIMIT]] = True
            break
        converged[solved[change <= QUADRATURE]] = True
        todo, nodes = solved[change > QUADRATURE], finer
    e, v, tau = moments.T
    return FixedPoint(state[:, 0], np.exp(state[:, 1]), n_iter, converged, np.exp(state[:, 2]), e, v, tau)


def _change(move: FloatArray, state: FloatArray) -> FloatArray:
    """Largest relative step of (s, σ², κ); s is measured against the second moment's root. NaN counts as infinite."""
    size = np.sqrt(np.exp(state[:, 1]) + state[:, 0] ** 2)
    change = np.maximum(np.abs(move[:, 0]) / size, np.abs(move[:, 1:]).max(axis=1))
    return np.where(np.isnan(change), np.inf, change)


def spectral_response(
    *,
    values: FloatArray,
    share: FloatArray,
    mean2: FloatArray,
    cross: FloatArray,
    source2: FloatArray,
    gamma: FloatArray,
    alpha: FloatArray,
) -> Response:
    """The response of a full adapter: (γ + τC)w = γαw̃ + em + √v C^{1/2}z/√n, in the eigenbasis of C.

    Args:
        values: (J,) eigenvalues c_j; J = 1 for C = I.
        share: (points, 1 or J) weight of an eigenvalue in (1/n) tr: 1/n; η for C = I.
        mean2, cross, source2: (points or 1, J) m_j², m_jw̃_j and E w̃_j². gamma, alpha: (points,).
    """

    def respond(at: IntArray, averages: Moments) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        e, v, tau = averages
        inverse = 1.0 / (gamma[at, None] + tau[:, None] * values)  # D
        pull = gamma[at] * alpha[at]
        weight = _at(share, at) * values * inverse
        kappa = weight.sum(axis=-1)
        gain = np.sum(inverse * _at(mean2, at), axis=-1)
        s = e * gain + pull * np.sum(inverse * _at(cross, at), axis=-1)
        squared = inverse * inverse * values
        s2 = e**2 * np.sum(squared * _at(mean2, at), axis=-1)
        s2 += 2.0 * pull * e * np.sum(squared * _at(cross, at), axis=-1)
        s2 += pull**2 * np.sum(squared * _at(source2, at), axis=-1)
        s2 += v * np.sum(weight * values * inverse, axis=-1)
        return kappa, s, s2, gain

    return respond


def _at(array: FloatArray, index: IntArray) -> FloatArray:
    """Rows ``index`` of an array with one row a point, or with one row for all."""
    return array if len(array) == 1 else array[index]


def check_convex(setting: Any, loss: Loss) -> None:
    """What every loss but the square asks of a setting: one source, γ > 0."""
    if setting.source_count is not None:
        raise ValueError(
            f"loss {loss.name!r} takes one source, given plainly; a sequence or a gram of sources needs loss='square'"
        )
    if (np.asarray(setting.gamma, dtype=float) == 0).any():
        raise ValueError(f"gamma must be > 0 with loss {loss.name!r}: separable data have no minimiser at gamma = 0")


@dataclass(frozen=True)
class SpectralSolver:
    """Scales (already broadcast against the setting) → fixed points of a full adapter. It can be pickled."""

    setting: Transfer | GaussianTransfer
    loss: Loss
    mixture: Mixture

    def __call__(self, alpha: FloatArray) -> FixedPoint:
        """The fixed points at ``alpha``."""
        setting = self.setting
        values, share, *products = _atoms(setting)
        gamma, noise = (np.broadcast_to(x, alpha.shape).ravel() for x in (setting.gamma, setting.label_noise))
        table = [_rows(array, alpha.shape) for array in (share, *products)]
        scale, parts = alpha.ravel(), []
        for start in range(0, scale.size, max(1, BLOCK // len(values))):
            block = np.arange(start, min(start + max(1, BLOCK // len(values)), scale.size))
            weights, mean2, cross, source2 = (_at(array, block) for array in table)
            respond = spectral_response(
                values=values,
                share=weights,
                mean2=mean2,
                cross=cross,
                source2=source2,
                gamma=gamma[block],
                alpha=scale[block],
            )
            parts.append(solve(respond, self.loss, block.size, flipped(self.mixture, noise[block])))
        return FixedPoint.joined(parts).reshape(alpha.shape)


def _rows(array: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """One row a point, or one row for all where the settings share it."""
    if array.ndim == 1:
        return array[None]
    return np.broadcast_to(array, (*shape, array.shape[-1])).reshape(-1, array.shape[-1])


def _atoms(setting: Transfer | GaussianTransfer) -> tuple[FloatArray, ...]:
    """Eigenvalues (J,), weight of each in tr/n (…, 1), and m_j², m_jw̃_j, E w̃_j² (…, J); J = 1 for C = I."""
    if isinstance(setting, Transfer):
        overlap, norm2 = source_moments(setting)
        return np.ones(1), *(np.asarray(x)[..., None] for x in (setting.eta, setting.m2, overlap, norm2))
    mean, weights, spread = setting.in_eigenbasis
    share = 1.0 / np.asarray(setting.n, dtype=float)[..., None]
    return np.asarray(setting.spectrum.values), share, mean**2, mean * weights[0], weights[0] ** 2 + spread[0]


def convex_score(setting: Transfer | GaussianTransfer, loss: Loss) -> SolvedScore[FixedPoint]:
    """The score of ``setting`` trained with ``loss``."""
    check_convex(setting, loss)
    return SolvedScore(
        SpectralSolver(setting, loss, plain_mixture()),
        shape=setting.shape,
        unit=source_unit(setting),
        describe=partial(point_words, setting),
    )


def source_unit(setting: Transfer | GaussianTransfer) -> FloatArray:
    """1/sd of the source's own score: the natural unit of α; inf for a zero source."""
    values, _, _, _, source2 = _atoms(setting)
    with np.errstate(divide="ignore"):
        return 1.0 / np.sqrt(source2 @ values)


def point_words(setting: Any, index: tuple[int, ...]) -> str:
    """n and γ of one setting, for a message."""
    n, gamma = (np.broadcast_to(np.asarray(x, dtype=float), setting.shape)[index] for x in (setting.n, setting.gamma))
    return f"n = {n:g}, gamma = {gamma:g}"
