"""What a subnet costs on validation, each example asked in the order that settles matters soonest.

The cost of an example is a number ≥ 0: 1 for a wrong answer, or the summed loss of its target tokens. A candidate's
rank is (total cost, parameters, found earlier), least first. Only the best few matter to an engine, so a candidate
whose cost so far, with nothing for the open examples, ranks below those few already cannot change what is selected
and is not asked further (`glora.search.race`). The examples expected to be dear are asked first: the total does not
depend on the order, but a hopeless candidate shows itself early. With answers that saves much of the work; with losses,
which no candidate escapes, only the end of it (2 to 8 % in tests/glora/search/test_loss.py).

The total must not depend on the order, to the last bit:

- Answers are whole numbers, so they are asked in any company, a batch of the hardest first. This needs answers that
  do not depend on what is asked together, which holds for models in evaluation mode (up to rounding in the last bit
  of a logit, which may depend on the size of a batch: what is compared is asked in batches of one size).
- Losses do change their last bits with the padding and the size of a batch. They are asked in batches fixed once
  for all candidates, and it is whole batches that come sooner or later. Sums are rounded once (`math.fsum`), so
  that leaving costs out never makes a sum greater: the bound holds for the numbers as computed.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glora.engines.space import Genome
from glora.search.supernet import SuperNet
from glora.tasks.base import Batch, Task, UnequalExamples, chunks, device_of, to_device

#: The only split a search sees.
SPLIT = "validation"
#: What an example costs at most; not-a-number costs as much. Keeps sums finite where a subnet is broken.
MOST = 1e6
#: How many candidates, the newest, tell what is hard for the next; more tell little more and take time.
NEWEST = 256


class Answered(Task, Protocol):
    """A task whose answers are right or wrong, one by one: a search compares accuracies."""

    def correct(self, model: nn.Module, batch: Batch) -> Tensor:
        """Which examples of a batch the model answers correctly: bool (n,)."""


class Measured(Task, Protocol):
    """A task whose loss is a sum over examples: a search compares losses."""

    def costs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of each example, ≥ 0, shape (n,); their sum is the task's ``loss`` times its ``weight``."""


Judged = Answered | Measured


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


class Sealed:
    """A task of which only the validation split can be reached: what a search is given.

    The published code of GLoRA once searched on the test list by default; here that is a ValueError.

    Args:
        task: see `Judged`.

    Attributes:
        metric: see `metric_of`.

    Raises:
        ValueError: see `metric_of`.
    """

    def __init__(self, task: Judged) -> None:
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
class Scored:
    """A candidate and what is known about it.

    Attributes:
        genome: the subnet.
        parameters: its size, heads not counted.
        cost: total cost on validation (wrong answers, or summed loss); if not `exact`, the least it could be.
        exact: whether every example was asked.
        number: position among all candidates, from 0.
    """

    genome: Genome
    parameters: int
    cost: float
    exact: bool
    number: int

    @property
    def rank(self) -> tuple[float, int, int]:
        """Sort key, best first."""
        return self.cost, self.parameters, self.number


class Best:
    """The `keep` best exact candidates so far (all of them if None)."""

    def __init__(self, keep: int | None) -> None:
        self.keep = keep
        self.candidates: list[Scored] = []

    def add(self, candidate: Scored) -> None:
        """Take note of a candidate; one that was not asked to the end is known not to belong here.

        The order in which candidates are added does not matter; of equal subnets the one proposed first counts.
        """
        if not candidate.exact:
            return
        others = [c for c in self.candidates if not np.array_equal(candidate.genome, c.genome)]
        equal = [c for c in self.candidates if np.array_equal(candidate.genome, c.genome)]
        first = min([candidate, *equal], key=lambda c: c.rank)
        self.candidates = sorted([*others, first], key=lambda c: c.rank)[: self.keep]

    def hopeless(self, least: float, parameters: int, number: int, keep: int) -> bool:
        """True if a candidate with a total cost of at least `least` cannot be among the `keep` best."""
        return len(self.candidates) >= keep and (least, parameters, number) > self.candidates[keep - 1].rank


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


class Fitness:
    """Asks a supernet's subnets the validation examples; no other split can be reached from here.

    Args:
        supernet: the trained supernet.
        task: where the validation examples come from.
        batch_size: examples asked at once.
        merged: put each candidate into the weights first (base speed) instead of computing with its terms.
        hard_first: ask the examples first that are expected to cost most.

    Attributes:
        task: the task, sealed.
        metric: "accuracy" or "loss".
        size: number of validation examples.
        weight: what turns a total cost into the metric's mean: examples for an accuracy, target tokens (or what else
            the task's loss averages over) for a loss.

    Raises:
        ValueError: the task cannot be judged (see `metric_of`), or `batch_size` < 1.
    """

    def __init__(
        self,
        supernet: SuperNet,
        task: Judged,
        *,
        batch_size: int = 25,
        merged: bool = True,
        hard_first: bool = True,
    ) -> None:
        self.supernet, self.task = supernet, Sealed(task)
        self.metric = self.task.metric
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size, self.merged, self.hard_first = batch_size, merged, hard_first
        self.size = self.task.size(SPLIT)
        self._fixed: list[Sequence[int]] | None = None
        self.weight = float(self.size)
        if self.metric == "loss":
            self._fixed = list(chunks(self.task.by_length(SPLIT), batch_size))
            self.weight = math.fsum(self.task.weight(self.task.batch(SPLIT, part)) for part in self._fixed)
        self._noted: deque[Costs] = deque(maxlen=NEWEST)

    def nothing(self) -> Costs:
        """The costs of a candidate that was asked nothing yet."""
        return Costs(np.full(self.size, np.nan))

    def note(self, costs: Costs) -> None:
        """Let a candidate's costs, and those it is still to get, count for the order of all."""
        self._noted.append(costs)

    def expected(self, costs: Costs) -> NDArray[np.float64]:
        """What a candidate with these costs so far is expected to pay for each example.

        The mean over other candidates; with answers, those count most that answered like this one. A guess, on which
        the order rests and nothing else.
        """
        others = np.array([one.values for one in self._noted if one is not costs]).reshape(-1, self.size)
        known = ~np.isnan(others)
        paid, mean = np.where(known, others, 0.0), (np.nansum(others, axis=0) + 1) / (known.sum(axis=0) + 2)
        if self.metric == "loss":
            return mean
        both = known & costs.asked
        # As if each pair had agreed on 7 of 10 earlier answers; 20 and 40 serve as well as 30.
        likeness = ((both & (others == costs.values)).sum(axis=1) + 3.5) / (both.sum(axis=1) + 5)
        weight = np.exp(30 * (likeness - likeness.max(initial=0)))
        return (weight @ paid + 2 * mean) / (weight @ known + 2)

    def batches(self, costs: Costs) -> list[Sequence[int]]:
        """The batches that a candidate with these costs is still to be asked, in order."""
        dear = self.expected(costs) if self.hard_first else np.zeros(self.size)
        if self._fixed is None:
            order = np.argsort(-dear, kind="stable")
            return list(chunks(order[~costs.asked[order]].tolist(), self.batch_size))
        left = [part for part in self._fixed if not costs.asked[part[0]]]
        return [left[i] for i in np.argsort([-dear[list(part)].mean() for part in left], kind="stable")]

    @contextmanager
    def asking(self, genome: Genome) -> Iterator[Callable[[Sequence[int]], NDArray[np.float64]]]:
        """Inside the ``with`` block, a function from examples to what they cost this candidate.

        The candidate is put into the weights when the function is first called.

        Raises:
            ValueError: (the function) the task gives a negative cost, which no bound could rest on.
        """
        with ExitStack() as stack:
            ready = False

            def ask(indices: Sequence[int]) -> NDArray[np.float64]:
                nonlocal ready
                if not ready:
                    stack.enter_context(self._computing(genome))
                    ready = True
                return self._costs(indices)

            yield ask

    def ask(self, genome: Genome) -> Costs:
        """Ask a candidate everything."""
        costs = self.nothing()
        with self.asking(genome) as ask:
            for indices in self.batches(costs):
                costs.values[list(indices)] = ask(indices)
        return costs

    @contextmanager
    def _computing(self, genome: Genome) -> Iterator[None]:
        """The model computes with this candidate, in evaluation mode."""
        model = self.supernet.model
        was_training = model.training
        model.eval()
        chosen: Any = self.supernet.merged(genome) if self.merged else nullcontext()
        if not self.merged:
            self.supernet.select(genome)
        try:
            with torch.no_grad(), chosen:
                yield
        finally:
            model.train(was_training)

    def _costs(self, indices: Sequence[int]) -> NDArray[np.float64]:
        batch = to_device(self.task.batch(SPLIT, indices), device_of(self.supernet.model))
        found = self.task.costs(self.supernet.model, batch).cpu().double().numpy()
        if (found < 0).any():
            raise ValueError(f"the task gives a cost of {found.min():g}; costs must be ≥ 0 for a search")
        return np.where(found <= MOST, found, MOST) + 0.0  # -0.0 would come back from the log as 0.0
