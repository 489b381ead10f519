"""Fixed points of many small systems at once: damped iteration, sped up near the solution, then Newton's method."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rmt._checks import BoolArray, FloatArray, IntArray

#: Relative change in one undamped step at which a point counts as solved.
TOLERANCE = 1e-12
#: Cheap iterations before Newton's method takes over, and its steps at most.
MAX_ITER, MAX_NEWTON = 120, 60
_DAMPING = 0.5

#: (moves, states), (points, size) each → relative size (points,) of the moves; NaN counts as infinite.
Change = Callable[[FloatArray, FloatArray], FloatArray]


def iterate(
    residual: Callable[[IntArray], FloatArray],
    change: Change,
    state: FloatArray,
    todo: IntArray,
    *,
    starts: Sequence[Sequence[float]] = (),
) -> tuple[IntArray, IntArray]:
    """Move ``state`` to where ``residual`` vanishes. Points leave the iteration as they converge.

    Nearly all do so within fifty mixed steps. Where the map is a rotation rather than a contraction (strong signal,
    small γ) no damping helps; those points are given to Newton's method with its cost of one step a coordinate.

    Args:
        residual: positions of points → G(x) − x of the iterated map G at their present state, (points, size).
        change: relative size of a move.
        state: (points, size) start, changed in place. todo: positions to solve.
        starts: states from which Newton's method may try again.

    Returns:
        Positions that converged, and the iterations taken at each of ``todo``.
    """
    taken = np.zeros(len(state), dtype=int)
    mixing, active = _Anderson(todo.size, state.shape[1], change), todo
    nearest, distance = state.copy(), np.full(len(state), np.inf)
    for _ in range(MAX_ITER):
        move = residual(active)
        taken[active] += 1
        size = change(move, state[active])
        closer = active[size < distance[active]]
        nearest[closer], distance[closer] = state[closer], size[size < distance[active]]
        state[active] += mixing.step(state[active], move, size)
        going = ~(size <= TOLERANCE)
        active = active[going]
        if not active.size:
            break
        mixing.keep(going)
    for start in (nearest[active], *map(np.asarray, starts)):
        if not active.size:
            break
        state[active] = start
        active = _levenberg(residual, change, state, active, taken)
    for side in (-1, 1):  # points lie along the scales: what solves one nearly solves the next
        solved = np.setdiff1d(todo, active)
        if not active.size or not solved.size:
            break
        place = np.searchsorted(solved, active) - (side < 0)
        state[active] = state[solved[np.clip(place, 0, solved.size - 1)]]
        active = _levenberg(residual, change, state, active, taken)
    return np.setdiff1d(todo, active), taken[todo]


def _levenberg(
    residual: Callable[[IntArray], FloatArray], change: Change, state: FloatArray, active: IntArray, taken: IntArray
) -> IntArray:
    """Levenberg–Marquardt with differenced Jacobians; the positions that did not converge."""
    size = state.shape[1]
    force = np.full(len(state), 1e-2)
    value = np.zeros_like(state)
    value[active] = residual(active)
    for _ in range(MAX_NEWTON):
        x, f = state[active].copy(), value[active]
        jacobian = np.empty((active.size, size, size))
        for k in range(size):
            delta = _DIFFERENCE * (1.0 + np.abs(x[:, k]))
            state[active, k] = x[:, k] + delta
            with np.errstate(invalid="ignore"):
                jacobian[:, :, k] = (residual(active) - f) / delta[:, None]
            state[active, k] = x[:, k]
        jacobian = np.where(np.isfinite(jacobian), jacobian, 0.0)  # the averages of a hinge may underflow far away
        normal, slope = jacobian.mT @ jacobian, (jacobian.mT @ np.where(np.isfinite(f), f, 0.0)[:, :, None])[:, :, 0]
        weight = np.diagonal(normal, axis1=1, axis2=2)
        weight = weight + 1e-9 * weight.max(axis=1, keepdims=True) + 1e-30
        lifted = normal + force[active, None, None] * weight[:, None, :] * np.eye(size)
        step = -np.linalg.solve(lifted, slope[:, :, None])[:, :, 0]
        far = np.abs(step).max(axis=1) / _LONGEST  # in logarithms: no unknown changes by more than e² at once
        state[active] = x + step / np.maximum(far, 1.0)[:, None]
        new = residual(active)
        taken[active] += size + 1
        better = change(new, state[active]) < change(f, x)
        state[active] = np.where(better[:, None], state[active], x)
        value[active] = np.where(better[:, None], new, f)
        force[active] *= np.where(better, 0.1, 4.0)
        active = active[~(change(value[active], state[active]) <= TOLERANCE)]
        if not active.size:
            break
    return active


#: Relative step of the differenced Jacobian, and the longest step of Newton's method.
_DIFFERENCE, _LONGEST = 1e-7, 2.0


class _Anderson:
    """Damped iteration for x ← x + f(x), sped up by Anderson mixing of the last steps, one memory a point.

    With as many differences as unknowns this is a secant form of Newton's method, so it is tried only near the
    solution. A point whose residual grows goes back to damped steps, which converge, if slowly, and must come
    nearer before it tries again.
    """

    depth = 3
    #: Relative residual below which mixing is tried, and how much nearer a point must come after a failure.
    near, nearer = 0.3, 0.3

    def __init__(self, count: int, size: int, change: Change) -> None:
        self.change = change
        self.points: FloatArray = np.zeros((count, self.depth, size))  # last differences of x
        self.residuals: FloatArray = np.zeros((count, self.depth, size))  # last differences of f
        self.last_x: FloatArray = np.zeros((count, size))
        self.last_f: FloatArray = np.zeros((count, size))
        self.best, self.age = np.full(count, np.inf), np.zeros(count, dtype=int)
        self.start = np.full(count, self.near)

    def step(self, x: FloatArray, f: FloatArray, change: FloatArray) -> FloatArray:
        """The step to take from ``x`` (count, size), where the residual is ``f`` of relative size ``change``."""
        mixed = self.age > self.depth
        lost = mixed & ~(change <= 2.0 * self.best)
        self.start = np.where(lost, self.nearer * self.best, self.start)
        self.best = np.where(lost, change, np.minimum(change, self.best))
        self.age = np.where(change <= self.start, self.age, 0)
        for memory, new, old in ((self.points, x, self.last_x), (self.residuals, f, self.last_f)):
            memory[:, 1:] = memory[:, :-1]
            memory[:, 0] = new - old
            memory[self.age == 0] = 0.0
        self.last_x, self.last_f = x.copy(), f.copy()
        move = _DAMPING * f
        warm = self.age >= self.depth
        self.age += 1
        if warm.any():
            slopes = np.swapaxes(self.residuals[warm], 1, 2)
            scale = np.sqrt(np.sum(slopes**2, axis=1, keepdims=True))
            scale = np.where(scale > 0, scale, 1.0)
            weight = np.linalg.pinv(slopes / scale, rcond=1e-10) @ f[warm][:, :, None] / np.swapaxes(scale, 1, 2)
            known = np.swapaxes(self.points[warm], 1, 2) + _DAMPING * slopes
            mixed_move = move[warm] - (known @ weight)[..., 0]
            short = self.change(mixed_move, x[warm]) <= 1.0  # a longer step says that the secants are not to be trusted
            move[warm] = np.where(short[:, None], mixed_move, move[warm])
        return move

    def keep(self, going: BoolArray) -> None:
        """Drop the memory of the points that have converged."""
        for name in ("points", "residuals", "last_x", "last_f", "best", "age", "start"):
            setattr(self, name, getattr(self, name)[going])
