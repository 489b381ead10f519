"""Interleaved timing: ratios survive a machine whose speed drifts."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any


def interleaved(
    *functions: Callable[[], Any], rounds: int = 5, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median seconds of each function, measured in turn A B A B … after one warm-up each."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, record in zip(functions, times, strict=True):
            start = clock()
            function()
            record.append(clock() - start)
    return [median(record) for record in times]


def row(figure: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> dict[str, Any]:
    """One line of the benchmark table."""
    bar = f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}" if at_most is not None else None
    met = value >= at_least if at_least is not None else value <= at_most if at_most is not None else None
    return {"figure": figure, "value": value, "bar": bar, "met": met}


def measure() -> list[dict[str, Any]]:
    """Nothing to measure here."""
    return []
