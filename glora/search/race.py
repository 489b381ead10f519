"""The candidates of one proposal judged together: the promising first, so that the others are dropped sooner.

An engine learns nothing before all candidates of a proposal are judged, so the order among them is free. Each is
asked one batch; then, from the most promising on, each is asked until all is known or until the best are out of its
reach: until its cost so far, with nothing for the open examples, ranks below as many known candidates as count. What is
known only grows, so they stay out of reach, and what is selected is what asking everything would select.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from glora.engines.candidates import Best, Scored
from glora.engines.space import Genome
from glora.search.costs import Costs


class Judge(Protocol):
    """What a race asks: a `glora.search.fitness.Fitness`, or one with a log around it."""

    def note(self, costs: Costs) -> None:
        """Let a candidate's costs count for the order of all."""

    def expected(self, costs: Costs) -> NDArray[np.float64]:
        """What a candidate with these costs so far is expected to pay for each example."""

    def batches(self, costs: Costs) -> list[Sequence[int]]:
        """The batches that a candidate with these costs is still to be asked, in order."""

    def asking(self, genome: Genome) -> AbstractContextManager[Callable[[Sequence[int]], NDArray[np.float64]]]:
        """Inside the ``with`` block, a function from examples to what they cost this candidate."""


@dataclass(frozen=True)
class RunningCandidate:
    """A candidate that is being judged.

    Attributes:
        genome, parameters, number: see `Scored`.
        costs: what is known so far; filled while it is asked.
    """

    genome: Genome
    parameters: int
    number: int
    costs: Costs

    @property
    def scored(self) -> Scored:
        """As far as it is known."""
        return Scored(self.genome, self.parameters, self.costs.least, self.costs.exact, self.number)


def race(running: Sequence[RunningCandidate], fitness: Judge, best: Best, keep: int | None) -> None:
    """Ask candidates until each is known in full, or cannot be among the best.

    Args:
        running: the candidates, all inside the budget if `keep` is not None.
        fitness: what asks them, and where they are noted.
        best: the best so far, to which those known in full are added.
        keep: how many of the best count; None asks everything, in the order of proposal, and leaves `best` alone.
    """
    for candidate in running:
        fitness.note(candidate.costs)
    order = list(running)
    if keep is not None:
        for candidate in running:
            _ask(candidate, fitness, best, keep, most=1)
        order.sort(key=lambda r: r.costs.least + float(fitness.expected(r.costs)[~r.costs.asked].sum()))
    for candidate in order:
        _ask(candidate, fitness, best, keep)
        if keep is not None:
            best.add(candidate.scored)


def _ask(candidate: RunningCandidate, fitness: Judge, best: Best, keep: int | None, most: int | None = None) -> None:
    """Ask a candidate, at most `most` batches."""
    costs = candidate.costs
    with fitness.asking(candidate.genome) as ask:
        while not costs.exact and most != 0:
            if keep is not None and best.out_of_reach(costs.least, candidate.parameters, candidate.number, keep):
                return
            # The order is found anew: every answer tells more about which examples are hard for this candidate.
            indices = fitness.batches(costs)[0]
            costs.values[list(indices)] = ask(indices)
            most = None if most is None else most - 1
