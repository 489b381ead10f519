"""Statistics of the vision study: paired differences with intervals, and the verdict that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import Figures, Verdict
from paper_checks.statistics.answers import unpack
from paper_checks.statistics.power import Part, needed, total


@dataclass(frozen=True)
class Difference:
    """A paired difference in points of accuracy with its standard error and 95 % interval.

    Attributes:
        mean: one method minus the other, averaged over seeds and then over tasks.
        parts: of its variance: spread over seeds within tasks, and the sampling of test images.
        pairs: number of (task, seed) pairs.
        tasks: number of tasks.
    """

    mean: float
    parts: tuple[Part, ...]
    pairs: int
    tasks: int

    @property
    def error(self) -> float:
        """Standard error over seeds and images; infinite with one seed a task, which has no spread."""
        return total(self.parts)[0]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval by Student's t with Satterthwaite's degrees of freedom; infinite with one seed a task."""
        from scipy.stats import t as student

        error, freedom = total(self.parts)
        width = float(student.ppf(0.975, freedom)) * error if np.isfinite(error) else float("inf")
        return self.mean - width, self.mean + width

    @property
    def text(self) -> str:
        """The difference with its interval, where more than one seed gives it one."""
        if not np.isfinite(self.error):
            return f"{self.mean:+.2f} (one seed a task)"
        return "{:+.2f} [{:+.2f}, {:+.2f}]".format(self.mean, *self.interval)


def whole_test(figures: Figures) -> NDArray[np.float64]:
    """A run's answers on the test split, 0 or 1 an image."""
    return unpack(figures["right"]).astype(float)


def paired(
    cells: Mapping[str, Figures],
    one: str,
    other: str,
    prefix: str = "final",
    answers: Callable[[Figures], NDArray[np.float64]] = whole_test,
) -> Difference | None:
    """``one`` minus ``other`` over all pairs of runs with the same task and seed; None without a pair.

    Runs of a task and seed in several sizes (images a class) share their test images and their structure, so they are
    averaged first and count as one; a seed that lacks sizes which others have is left out.

    Args:
        cells: figures by cell, named ``prefix-task-method[-size]-seed``.
        one, other: the methods.
        prefix: kind of the cells.
        answers: how right a run was on each image.
    """
    found: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    for cell, figures in cells.items():
        kind, task, *rest = cell.split("-")
        twin = "-".join([kind, task, other, *rest[1:]])
        if kind == prefix and rest[0] == one and twin in cells:
            difference = 100 * (answers(figures) - answers(cells[twin]))
            found.setdefault(task, {}).setdefault(rest[-1], []).append(difference)
    if not found:
        return None
    by_task: dict[str, list[NDArray[np.float64]]] = {}
    for task, by_seed in found.items():
        sizes = max(map(len, by_seed.values()))
        by_task[task] = [np.stack(runs).mean(axis=0) for runs in by_seed.values() if len(runs) == sizes]
    means = [np.mean([d.mean() for d in seeds]) for seeds in by_task.values()]
    within = [float(np.var([d.mean() for d in seeds], ddof=1)) for seeds in by_task.values() if len(seeds) > 1]
    freedom = sum(len(seeds) - 1 for seeds in by_task.values())
    pooled = float(np.mean(within)) if within else float("inf")
    pairs, tasks = sum(map(len, by_task.values())), len(by_task)
    images = [np.mean(seeds, axis=0) for seeds in by_task.values()]
    between = sum(pooled / len(seeds) for seeds in by_task.values()) / tasks**2
    sampling = sum(float(one.var(ddof=1)) / len(one) for one in images) / tasks**2
    parts = (
        Part("seeds", between, max(freedom, 1), min(map(len, by_task.values()))),
        Part("test images a task", sampling, sum(map(len, images)) - tasks, min(map(len, images))),
    )
    return Difference(float(np.mean(means)), parts, pairs, tasks)


def table(cells: Mapping[str, Figures]) -> dict[tuple[str, str], list[float]]:
    """Test accuracies of the final runs by (task, method)."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell, figures in sorted(cells.items()):
        kind, task, *rest = cell.split("-")
        if kind == "final":
            found.setdefault((task, rest[0]), []).append(figures["accuracy"])
        if kind == "supernet":
            for size, one in searches(figures).items():
                name = f"glora_inherited.{size}" if size else "glora_inherited"
                found.setdefault((task, name), []).append(one["inherited"]["accuracy"])
    return found


def searches(supernet: Figures) -> dict[str, Figures]:
    """The searches of a supernet's cell by the size in the names of methods; "" in a study of one budget."""
    return {"": supernet} if "config" in supernet or "search" in supernet else supernet


def searched(supernet: Figures, method: str) -> Figures:
    """The search at the budget that the method's name ends with."""
    return searches(supernet)[method.partition(".")[2]]


def decide(difference: Difference | None, what: str, tasks: int) -> tuple[Verdict, str]:
    """The rule for every "one beats the other": the 95 % interval lies above, below, or on both sides of 0.

    Args:
        difference: from `paired`.
        what: its name in the sentence.
        tasks: how many tasks the claim is about; with fewer it stays undecided.
    """
    if difference is None:
        return Verdict.UNDECIDED, f"no pair of runs of {what} is finished yet"
    text = f"{what}: {difference.text} points from {difference.pairs} pairs of runs"
    if not np.isfinite(difference.error):
        return Verdict.UNDECIDED, f"{text}; one seed a task has no spread, so two at least are needed"
    if difference.tasks < tasks:
        return Verdict.UNDECIDED, f"{text}; {difference.tasks} of {tasks} tasks are done"
    low, high = difference.interval
    if low > 0:
        return Verdict.REPRODUCED, text
    if high < 0:
        return Verdict.NOT_REPRODUCED, text
    return Verdict.UNDECIDED, f"{text}; {needed(difference.mean, difference.parts)}"
