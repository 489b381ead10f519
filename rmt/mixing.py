"""Fixed points of many small systems at once: damped iteration, sped up near the solution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rmt.validate import BoolArray, FloatArray, IntArray

#: Relative change in one undamped step at which a point counts as solved.
TOLERANCE = 1e-12
MAX_ITER = 5000
_DAMPING = 0.5

#: (moves, states), (points, size) each → relative size (points,) of the moves; NaN counts as infinite.
Change = Callable[[FloatArray, FloatArray], FloatArray]


def iterate(
    residual: Callable[[IntArray], FloatArray], change: Change, state: FloatArray, todo: IntArray
) -> tuple[IntArray, IntArray]:
    """Move ``state`` to where ``residual`` vanishes. Points leave the iteration as they converge.

    Args:
        residual: positions of points → G(x) − x of the iterated map G at their present state, (points, size).
        change: relative size of a move.
        state: (points, size) start, changed in place. todo: positions to solve.

    Returns:
        Positions that converged, and the iterations taken at each of ``todo``.
    """
    taken = np.zeros(len(state), dtype=int)
    mixing, active = _Anderson(todo.size, state.shape[1], change), todo
    for _ in range(MAX_ITER):
        move = residual(active)
        taken[active] += 1
        size = change(move, state[active])
        state[active] += mixing.step(state[active], move, size)
        going = ~(size <= TOLERANCE)
        active = active[going]
        if not active.size:
            break
        mixing.keep(going)
    return np.setdiff1d(todo, active), taken[todo]


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
