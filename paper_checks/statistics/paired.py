"""Paired differences of two methods over test examples and seeds, with the intervals of the language studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import Figures
from paper_checks.statistics.power import Part, needed, total

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Paired:
    """A paired difference of accuracies in points.

    Attributes:
        mean: first minus second.
        parts: of its variance: test examples, seeds, and the choice of a learning rate where that was drawn again.
        examples: number of test examples.
    """

    mean: float
    parts: tuple[Part, ...]
    examples: int

    @property
    def error(self) -> float:
        """One standard error over all parts."""
        return total(self.parts)[0]

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the error: few where the seeds' spread makes most of it."""
        return total(self.parts)[1]

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
    def text(self) -> str:
        """The difference with its interval."""
        return "{:+.2f} [{:+.2f}, {:+.2f}]".format(self.mean, *self.interval)

    @property
    def needed(self) -> str:
        """What would tell a difference of this size from 0, in words; see `power.needed`."""
        return needed(self.mean, self.parts)


def paired(first: list[Figures], second: list[Figures]) -> Paired:
    """Difference of two methods that ran with the same seeds on the same examples.

    The variance is that of the per-example differences (averaged over seeds) plus that of the seeds' means, with
    Satterthwaite's degrees of freedom for the sum.
    """
    return paired_values(100.0 * (answers(first) - answers(second)))


def paired_values(difference: Array) -> Paired:
    """`paired` for any differences, shape (seeds, examples)."""
    seeds, examples = difference.shape
    parts = [Part("examples", float(difference.mean(0).var(ddof=1)) / examples, examples - 1, examples)]
    if seeds > 1:
        parts.append(Part("seeds", float(difference.mean(1).var(ddof=1)) / seeds, seeds - 1, seeds))
    return Paired(float(difference.mean()), tuple(parts), examples)


def choice_weights(validation: Mapping[float, float], examples: int, draws: int = 4000) -> dict[float, float]:
    """How often each learning rate would be chosen by its accuracy, were the validation examples drawn again.

    Args:
        validation: accuracy in percent by rate. examples: it was measured on; its errors are binomial.
        draws: of the choice, from a fixed seed.
    """
    shares = np.array(list(validation.values())) / 100
    spread = np.sqrt(np.maximum(shares * (1 - shares), 1e-9) / examples)
    drawn = shares + spread * np.random.default_rng(0).standard_normal((draws, len(shares)))
    counts = np.bincount(drawn.argmax(axis=1), minlength=len(shares))
    return {rate: float(count) / draws for rate, count in zip(validation, counts, strict=True)}


def over_choices(
    first: Mapping[float, list[Figures]],
    second: Mapping[float, list[Figures]],
    weights: tuple[Mapping[float, float], Mapping[float, float]],
    tried: int,
) -> Paired:
    """`paired` of two methods whose learning rates were chosen noisily, with the choice's noise in the interval.

    Args:
        first, second: runs by learning rate, the same seeds at each.
        weights: how often each method's rates are chosen, see `choice_weights`.
        tried: validation examples that the rates are chosen on.

    The mean and the parts of the variance are averages over both choices; what the mean varies by from choice to
    choice is a part of its own.
    """
    examples = len(next(iter(first.values()))[0]["correct"])
    mean, square = 0.0, 0.0
    parts: dict[str, list[float]] = {}
    kinds: dict[str, Part] = {}
    for one, runs in first.items():
        for other, rivals in second.items():
            weight = weights[0].get(one, 0.0) * weights[1].get(other, 0.0)
            found = paired(runs, rivals)
            mean += weight * found.mean
            square += weight * found.mean**2
            for part in found.parts:
                parts.setdefault(part.what, []).append(weight * part.variance)
                kinds[part.what] = part
    averaged = [Part(what, sum(values), kinds[what].freedom, kinds[what].count) for what, values in parts.items()]
    choice = Part("validation examples", max(square - mean**2, 0.0), tried - 1, tried)
    return Paired(mean, (*averaged, choice), examples)


def answers(finals: list[Figures]) -> Array:
    """Shape (seeds, examples), entries 0 and 1."""
    return np.array([[float(one) for one in figures["correct"]] for figures in finals])
