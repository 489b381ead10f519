"""Choosing a learning rate on validation: a small grid, extended while its best rate lies at an end of it.

A grid whose best rate is its smallest or largest says that a better one may lie beyond, so the next one beyond is
tried, by the same rule for every method. The budget of a comparison is then "a grid, and what it takes to see its best
rate from both sides".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

STEP = 4.0  #: ratio of a rate beyond the grid to the rate at its end, where none is given
BEYOND = 3  #: rates tried beyond the grid at most


def settle(grid: Sequence[float], score: Callable[[float], Any], step: float = STEP) -> float:
    """The rate with the highest score, the smaller one of equals.

    Args:
        grid: the rates tried in any case; of a single one nothing is tried.
        score: how good a rate is on validation, a number or a tuple of them; called once a rate.
        step: ratio of a rate beyond the grid to the rate at its end.
    """
    if len(grid) == 1:
        return grid[0]
    scores = {rate: score(rate) for rate in grid}
    while True:
        best = max(scores, key=lambda rate: (scores[rate], -rate))
        beyond = best / step if best == min(scores) else best * step if best == max(scores) else None
        if beyond is None or len(scores) == len(grid) + BEYOND:
            return best
        beyond = float(f"{beyond:.6g}")  # names of cells hold six digits
        scores[beyond] = score(beyond)
