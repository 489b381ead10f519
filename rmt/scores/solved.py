"""Scores that a solver gives one α at a time: losses other than the square are not affine in α (theory.md §1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import BoolArray, FloatArray, IntArray
from rmt.scores.score import Score

#: α is searched as unit·sinh(x), |x| ≤ _REACH: from 0 to 80,000 units on both sides, in steps of a factor 1.6.
_REACH, _POINTS = 12.0, 49
#: α that stands for infinity when the supremum lies there, in units.
_FAR = 1e7
#: Chebyshev points of one zoom, and the half-widths in x of the zooms.
_NODES, _ZOOMS = 9, (0.5, 0.1, 0.02)


class ConvergenceError(ValueError):
    """A fixed point was not found; the message says where and how far it was from one.

    >>> import rmt
    >>> issubclass(rmt.ConvergenceError, ValueError)
    True
    """


@dataclass(frozen=True)
class Solution:
    """What a solver found at its points; every field begins with their shape."""

    mean: FloatArray  #: s
    variance: FloatArray  #: σ²
    n_iter: IntArray  #: iterations taken
    converged: BoolArray  #: whether a further iteration, and finer quadrature, change nothing

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Solutions at the points of all ``parts``, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def reshape(self, shape: tuple[int, ...]) -> Self:
        """The same with its leading axis (points) in ``shape``."""
        parts = (getattr(self, field.name) for field in fields(self))
        return type(self)(*(part.reshape((*shape, *part.shape[1:])) for part in parts))


@dataclass(frozen=True)
class FixedPoint(Solution):
    """A solution of the scalar system of theory.md §5, with its other unknowns."""

    kappa: FloatArray  #: κ, sensitivity of a trained sample
    e: FloatArray  #: mean residual E ξ
    v: FloatArray  #: mean squared residual E ξ²
    tau: FloatArray  #: τ = −E ∂ξ/∂r


class SolvedScore(Score):
    """Mean and variance of the score from a solver, with the best scales found by one-dimensional search.

    Args:
        solve: scales, already broadcast against the settings, → :class:`Solution` of the same shape.
        shape: shape of the settings.
        unit: (shape) a natural unit of α, 1/sd of the source's own score; ``inf`` where the source is zero.
        describe: what to say of a point that was not solved: index of the setting → words.

    >>> import rmt
    >>> setting = rmt.Transfer(p=100, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> score = rmt.theory(setting, loss="logistic")
    >>> isinstance(score, rmt.SolvedScore), round(float(score.accuracy(1.0)), 4)
    (True, 0.8943)
    """

    def __init__(
        self,
        solve: Callable[[FloatArray], Solution],
        *,
        shape: tuple[int, ...],
        unit: FloatArray,
        describe: Callable[[tuple[int, ...]], str] = "setting {}".format,
    ) -> None:
        self._solver, self.shape, self._describe = solve, shape, describe
        unit = np.broadcast_to(np.asarray(unit, dtype=float), shape)
        self._dead = ~np.isfinite(unit)
        self._unit = np.where(self._dead, 1.0, unit)
        self._last: tuple[tuple[tuple[int, ...], bytes], Solution] | None = None

    def solution(self, alpha: ArrayLike) -> Any:
        """The fixed points at ``alpha`` (broadcast against the settings): all their numbers, and ``n_iter``.

        Raises:
            ConvergenceError: a point was not solved; the message names it.
        """
        alpha = _checks.finite("alpha", alpha)
        found = self._solved(alpha)
        if not found.converged.all():
            self._fail(alpha, found)
        return found

    def _fail(self, alpha: FloatArray, found: Solution) -> None:
        """Raise the error that names the first point without a solution."""
        bad = tuple(int(i) for i in np.argwhere(~found.converged)[0])
        full = np.broadcast_to(alpha, found.converged.shape)
        index = bad[len(bad) - len(self.shape) :]
        index = tuple(i if size > 1 else 0 for i, size in zip(index, self.shape, strict=True))
        raise ConvergenceError(
            f"no fixed point at {int((~found.converged).sum())} of {found.converged.size} points, the first at "
            f"alpha = {full[bad]:g}, {self._describe(index)}, after {int(found.n_iter[bad])} iterations; raise "
            "gamma (training data that a classifier separates leave nothing else to hold it), or smooth the loss"
        )

    def _solved(self, alpha: FloatArray) -> Solution:
        alpha = np.broadcast_to(alpha, np.broadcast_shapes(alpha.shape, self.shape))
        key = (alpha.shape, alpha.tobytes())
        if self._last is None or self._last[0] != key:
            self._last = (key, self._solver(alpha))
        return self._last[1]

    def mean(self, alpha: ArrayLike) -> FloatArray:
        """s(α)."""
        return self.solution(alpha).mean

    def variance(self, alpha: ArrayLike) -> FloatArray:
        """σ²(α)."""
        return self.solution(alpha).variance

    def _objective(self, found: Any) -> FloatArray:
        """What α* maximises; the signal-to-noise ratio unless accuracy is no function of it."""
        return found.mean / np.sqrt(found.variance)

    @cached_property
    def _grid(self) -> tuple[FloatArray, Solution]:
        """Points x and what is found there; single points far out may stay unsolved, whole settings may not."""
        x = np.linspace(-_REACH, _REACH, _POINTS)
        alpha = np.sinh(x).reshape(-1, *(1,) * len(self.shape)) * self._unit
        found = self._solved(alpha)
        if not found.converged.any(axis=0).all():
            self._fail(alpha, found)
        return x, found

    def _maximise(self, objective: Callable[[Solution], FloatArray]) -> FloatArray:
        """α of the highest ``objective`` of each setting; ±inf where it still rises at the ends of the search."""
        x, found = self._grid
        values = np.where(found.converged, objective(found), -np.inf)
        best = np.argmax(values, axis=0)
        ends = np.where(best == 0, -np.inf, np.where(best == len(x) - 1, np.inf, 0.0))
        centre = self._zoom(x[best], objective, _highest)
        return np.where(self._dead, np.nan, np.where(ends == 0, self._unit * np.sinh(centre), ends))

    def _zoom(
        self,
        centre: FloatArray,
        function: Callable[[Solution], FloatArray],
        pick: Callable[[FloatArray], FloatArray],
    ) -> FloatArray:
        """Refine ``centre`` (in x): interpolate ``function`` around it, move to what ``pick`` finds, narrow, repeat."""
        nodes = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES).reshape(-1, *(1,) * len(self.shape))
        for half in _ZOOMS:
            found = self.solution(self._unit * np.sinh(centre + half * nodes))
            values = function(found).reshape(_NODES, -1)
            centre = centre + half * pick(values).reshape(self.shape)
        return centre

    @cached_property
    def alpha_star(self) -> FloatArray:
        """The scale of the highest accuracy; ±inf where it is approached at infinity, NaN for a zero source."""
        return self._maximise(self._objective)

    @cached_property
    def alpha_risk(self) -> FloatArray:
        """The scale of the lowest squared risk; NaN for a zero source."""
        return self._maximise(lambda found: -(found.variance + (1.0 - found.mean) ** 2))

    @cached_property
    def alpha_bar(self) -> FloatArray:
        """The scale at which the mean score is 0; NaN where it keeps its sign."""
        x, found = self._grid
        sign = np.where(found.converged, np.sign(found.mean), np.nan)
        change = sign[1:] * sign[:-1] <= 0
        first = np.argmax(change, axis=0)
        centre = self._zoom(0.5 * (x[first] + x[first + 1]), lambda found: found.mean, _root)
        return np.where(change.any(axis=0) & ~self._dead, self._unit * np.sinh(centre), np.nan)

    @cached_property
    def best_accuracy(self) -> FloatArray:
        """Accuracy at α*; where α* is infinite, that of a scale 10⁷ units away."""
        star = np.where(self._dead, 0.0, self.alpha_star)
        return self.accuracy(np.where(np.isinf(star), np.sign(star) * _FAR * self._unit, star))


def _fine(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Chebyshev interpolants of ``values`` (nodes, settings) on a fine grid: its points, (points, settings)."""
    points = np.linspace(-1.0, 1.0, 2001)
    order = np.arange(_NODES)
    angles = np.pi * (order + 0.5) / _NODES
    coefficients = 2.0 / _NODES * np.cos(np.outer(order, angles)) @ values
    coefficients[0] /= 2.0
    return points, np.cos(np.outer(np.arccos(points), order)) @ coefficients


def _highest(values: FloatArray) -> FloatArray:
    """Where in [−1, 1] the interpolants are highest: the best grid point, moved by the parabola through it."""
    points, fine = _fine(values - values.max(axis=0))
    best = np.clip(np.argmax(fine, axis=0), 1, len(points) - 2)
    left, middle, right = (np.take_along_axis(fine, (best + side)[None], axis=0)[0] for side in (-1, 0, 1))
    bend = left - 2.0 * middle + right
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(bend < 0, 0.5 * (left - right) / bend, 0.0)
    return points[best] + np.clip(shift, -1.0, 1.0) * (points[1] - points[0])


def _root(values: FloatArray) -> FloatArray:
    """Where in [−1, 1] the interpolants change sign, by the line between two grid points; the nearer end if never."""
    points, fine = _fine(values)
    change = np.diff(np.sign(fine), axis=0) != 0
    first = np.argmax(change, axis=0)
    low, high = (np.take_along_axis(fine, (first + side)[None], axis=0)[0] for side in (0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        root = points[first] - np.where(high != low, low / (high - low), 0.0) * (points[1] - points[0])
    return np.where(change.any(axis=0), root, points[np.argmin(np.abs(fine), axis=0)])


def probe(score: Score) -> tuple[FloatArray, FloatArray]:
    """(c, V) of a score with affine mean and quadratic variance, from its values at α = 0, 1, −1 (theory.md §1)."""
    (s0, s1, s2), (v0, v1, v2) = ((f(0.0), f(1.0), f(-1.0)) for f in (score.mean, score.variance))
    cross = (v1 - v2) / 4.0
    c = np.stack([s0, (s1 - s2) / 2.0], axis=-1)
    V = np.stack([np.stack([v0, cross], axis=-1), np.stack([cross, (v1 + v2) / 2.0 - v0], axis=-1)], axis=-1)
    return c, V
