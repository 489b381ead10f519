"""Statistics of the vision study: paired differences with intervals, and the verdict that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import Figures, Verdict
from paper_checks.statistics.answers import unpack


@dataclass(frozen=True)
class Difference:
    """A paired difference in points of accuracy with its standard error and 95 % interval.

    Attributes:
        mean: one method minus the other, averaged over seeds and then over tasks.
        error: standard error: spread over seeds within tasks, and the sampling of test images.
        low, high: the interval, by Student's t with the seeds' degrees of freedom; infinite with one seed.
        pairs: number of (task, seed) pairs.
        tasks: number of tasks.
    """

    mean: float
    error: float
    low: float
    high: float
    pairs: int
    tasks: int

    @property
    def text(self) -> str:
        """The difference with its interval, where more than one seed gives it one."""
        if not np.isfinite(self.low):
            return f"{self.mean:+.2f} (one seed a task)"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


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
    from scipy.stats import t as student

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
    pooled = float(np.mean(within)) if within else float("nan")
    variance = 0.0
    for seeds in by_task.values():
        images = np.mean(seeds, axis=0)
        variance += pooled / len(seeds) + float(images.var(ddof=1)) / len(images)
    error = float(np.sqrt(variance)) / len(by_task)
    mean = float(np.mean(means))
    width = float(student.ppf(0.975, freedom)) * error if freedom else float("inf")
    pairs = sum(map(len, by_task.values()))
    return Difference(mean, error, mean - width, mean + width, pairs, len(by_task))


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
    text = f"{what}: {difference.mean:+.2f} points from {difference.pairs} pairs of runs"
    if not np.isfinite(difference.low):
        return Verdict.UNDECIDED, f"{text}; one seed a task has no spread, so two at least are needed"
    text += f", 95 % interval {difference.low:+.2f} to {difference.high:+.2f}"
    if difference.tasks < tasks:
        return Verdict.UNDECIDED, f"{text}; {difference.tasks} of {tasks} tasks are done"
    if difference.low > 0:
        return Verdict.REPRODUCED, text
    if difference.high < 0:
        return Verdict.NOT_REPRODUCED, text
    seeds = int(np.ceil(difference.pairs * (1.96 * difference.error / max(abs(difference.mean), 1e-3)) ** 2))
    # By the normal law this may come out below what there is: few seeds have a wider interval.
    seeds = max(seeds, difference.pairs + 1)
    return Verdict.UNDECIDED, f"{text}; about {min(seeds, 9999)} pairs would decide a difference of this size"
