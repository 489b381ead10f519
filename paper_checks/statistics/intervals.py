"""Means with their standard errors, and the interval of a mean over tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[Any]


def mean_and_error(samples: Array) -> tuple[Any, Any]:
    """Mean over the first axis and its standard error."""
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / math.sqrt(len(samples))


def mean_stderr(values: Array | Sequence[float]) -> dict[str, float]:
    """Mean and its standard error, for storing."""
    return {"mean": float(np.mean(values)), "stderr": float(np.std(values, ddof=1) / math.sqrt(len(values)))}


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean; None with fewer than two values, and 0 where they differ by rounding alone."""
    return round(float(np.std(values, ddof=1) / np.sqrt(len(values))), 9) if len(values) > 1 else None


def interval(gaps: Sequence[Array]) -> tuple[float, float, int]:
    """Mean over tasks of the mean gap, half width of its 95 % t-interval, and the seeds a task that would decide.

    The last is the smallest count at which an interval with the spread seen here would leave 0 out (0: no spread or
    no difference).
    """
    mean = float(np.mean([gap.mean() for gap in gaps]))

    def half(count: int | None) -> float:
        sizes = [count or len(gap) for gap in gaps]
        error = math.sqrt(sum(gap.var(ddof=1) / size for gap, size in zip(gaps, sizes, strict=True))) / len(gaps)
        return float(stats.t.ppf(0.975, sum(sizes) - len(sizes))) * error

    if mean == 0 or half(None) == 0:
        return mean, half(None), 0
    count = 2
    while half(count) > abs(mean) and count < 10**6:
        count = max(count + 1, math.ceil(1.05 * count))
    return mean, half(None), count
