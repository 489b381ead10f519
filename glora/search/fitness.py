"""What a subnet costs on validation, each example asked in the order that settles matters soonest.

The cost of an example is a number ≥ 0: 1 for a wrong answer, or the summed loss of its target tokens. A candidate's
rank is (total cost, parameters, found earlier), least first. Only the best few matter to an engine, so a candidate
whose cost so far, with nothing for the open examples, ranks below those few already cannot change what is selected
and is not asked further (`glora.search.race`). The examples expected to be costly are asked first: the total does not
depend on the order, but who cannot win shows it early. With answers that saves much of the work; with losses,
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

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glora.engines.space import Genome
from glora.search.costs import MOST, SPLIT, Costs, SearchableTask, ValidationOnly
from glora.search.supernet import SuperNet
from glora.tasks.base import chunks, device_of, to_device

#: How many candidates, the newest, tell what is hard for the next; more tell little more and take time.
NEWEST = 256


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
        task: SearchableTask,
        *,
        batch_size: int = 25,
        merged: bool = True,
        hard_first: bool = True,
    ) -> None:
        self.supernet, self.task = supernet, ValidationOnly(task)
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
        costly = self.expected(costs) if self.hard_first else np.zeros(self.size)
        if self._fixed is None:
            order = np.argsort(-costly, kind="stable")
            return list(chunks(order[~costs.asked[order]].tolist(), self.batch_size))
        left = [part for part in self._fixed if not costs.asked[part[0]]]
        return [left[i] for i in np.argsort([-costly[list(part)].mean() for part in left], kind="stable")]

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
