"""Paired differences of two methods over test examples and seeds, with the intervals of the language studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import Figures


@dataclass(frozen=True)
class Paired:
    """A paired difference of accuracies in points.

    Attributes:
        mean: first minus second.
        error: one standard error over both test examples and seeds.
        examples: number of test examples.
        freedom: degrees of freedom of the error: few where the seeds' spread makes most of it.
    """

    mean: float
    error: float
    examples: int
    freedom: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval by Student's t."""
        return self.interval_at(0.95)

    def interval_at(self, level: float) -> tuple[float, float]:
        """The interval of another confidence level."""
        from scipy.stats import t as student

        width = float(student.ppf(0.5 + level / 2, self.freedom)) * self.error
        return self.mean - width, self.mean + width

    @property
    def more(self) -> str:
        """How many times as many test examples and seeds would tell a difference of this size from 0, in words."""
        low, high = self.interval
        times = ((high - low) / (2 * max(abs(self.mean), 1e-9))) ** 2
        return f"about {times:.1f} times" if times < 100 else "more than 100 times"


def paired(first: list[Figures], second: list[Figures]) -> Paired:
    """Difference of two methods that ran with the same seeds on the same examples.

    The variance is that of the per-example differences (averaged over seeds) plus that of the seeds' means, with
    Satterthwaite's degrees of freedom for the sum.
    """
    return paired_values(100.0 * (_answers(first) - _answers(second)))


def paired_values(difference: NDArray[np.floating[Any]]) -> Paired:
    """`paired` for any differences, shape (seeds, examples)."""
    seeds, examples = difference.shape
    parts = [(difference.mean(0).var(ddof=1) / examples, examples - 1)]
    if seeds > 1:
        parts.append((difference.mean(1).var(ddof=1) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    freedom = float(variance**2 / spread) if spread > 0 else float(examples - 1)
    return Paired(float(difference.mean()), float(np.sqrt(variance)), examples, freedom)


def _answers(finals: list[Figures]) -> NDArray[np.floating[Any]]:
    """Shape (seeds, examples), entries 0 and 1."""
    return np.array([[float(one) for one in figures["correct"]] for figures in finals])
