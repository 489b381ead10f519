"""What a search may see of a task: the validation split alone, and what each of its examples costs.

The cost of an example is a number ≥ 0: 1 for a wrong answer, or the summed loss of its target tokens.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from glora.tasks.base import Batch, Task, UnequalExamples, chunks

#: The only split a search sees.
SPLIT = "validation"
#: What an example costs at most; not-a-number costs as much. Keeps sums finite where a subnet is broken.
MOST = 1e6


class AccuracyTask(Task, Protocol):
    """A task whose answers are right or wrong, one by one: a search compares accuracies."""

    def correct(self, model: nn.Module, batch: Batch) -> Tensor:
        """Which examples of a batch the model answers correctly: bool (n,)."""


class LossTask(Task, Protocol):
    """A task whose loss is a sum over examples: a search compares losses."""

    def costs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of each example, ≥ 0, shape (n,); their sum is the task's ``loss`` times its ``weight``."""


SearchableTask = AccuracyTask | LossTask


def metric_of(task: object) -> str:
    """What a search compares subnets of this task by: "loss" if it has ``costs``, else "accuracy".

    Raises:
        ValueError: the task has neither ``costs`` nor ``correct``.
    """
    for method, metric in (("costs", "loss"), ("correct", "accuracy")):
        if callable(getattr(task, method, None)):
            return metric
    raise ValueError(
        f"task {type(task).__name__} cannot be searched: it has neither correct(model, batch) nor costs(model, batch); "
        "give it one of these methods"
    )


def mean_metric(metric: str, cost: float, weight: float) -> float:
    """A total cost as the metric: mean loss, or accuracy in percent."""
    return cost / weight if metric == "loss" else 100 * (weight - cost) / weight


class ValidationOnly:
    """A task of which only the validation split can be reached: what a search is given.

    The published code of GLoRA once searched on the test list by default; here that is a ValueError.

    Args:
        task: see `SearchableTask`.

    Attributes:
        metric: see `metric_of`.

    Raises:
        ValueError: see `metric_of`.
    """

    def __init__(self, task: SearchableTask) -> None:
        self._task, self.metric = task, metric_of(task)

    def size(self, split: str) -> int:
        """Number of validation examples."""
        return self._task.size(self._only_validation(split))

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Validation examples as they are evaluated."""
        return self._task.batch(self._only_validation(split), indices)

    def weight(self, batch: Batch) -> float:
        """What the task's loss averages over."""
        return self._task.weight(batch)

    def costs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cost of each example: its loss, or 1 for a wrong answer and 0 for a right one; shape (n,)."""
        task: Any = self._task
        return task.costs(model, batch) if self.metric == "loss" else task.correct(model, batch).logical_not()

    def by_length(self, split: str) -> list[int]:
        """All validation examples, like lengths together where the task knows them (see `UnequalExamples`)."""
        task, everything = self._task, range(self.size(split))
        if isinstance(task, UnequalExamples):
            return sorted(everything, key=lambda i: task.length(split, i))
        return list(everything)

    def digest(self, batch_size: int) -> str:
        """A word for the validation examples: what the model sees of them, their labels, their order."""
        found = hashlib.sha256()
        for indices in chunks(range(self.size(SPLIT)), batch_size):
            for name, tensor in sorted(self.batch(SPLIT, indices).items()):
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
                found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()

    @staticmethod
    def _only_validation(split: str) -> str:
        if split != SPLIT:
            raise ValueError(f"a search sees the split {SPLIT!r} alone, not {split!r}: it would select on that data")
        return split


@dataclass(frozen=True)
class Costs:
    """What a candidate's examples cost, float (examples,); not-a-number where it was not asked."""

    values: NDArray[np.float64]

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Which examples were asked, bool (examples,)."""
        return ~np.isnan(self.values)

    @property
    def least(self) -> float:
        """The total if all open examples cost nothing."""
        return math.fsum(self.values[self.asked])

    @property
    def exact(self) -> bool:
        """True if every example was asked."""
        return bool(self.asked.all())

    def to_json(self) -> list[float | int | None]:
        """For the log: numbers that read back to the last bit, None where not asked."""
        return [None if np.isnan(v) else int(v) if v == int(v) else float(v) for v in self.values]

    @classmethod
    def from_json(cls, values: Iterable[float | int | None]) -> Costs:
        """Inverse of `to_json`."""
        return cls(np.array([np.nan if value is None else value for value in values], dtype=np.float64))
