"""The candidates of one proposal judged together: the promising first, so that the hopeless are told apart sooner.

An engine learns nothing before all candidates of a proposal are judged, so the order among them is free. Each is
asked one batch; then, from the most promising on, each is asked until all is known or until it is hopeless: until its
cost so far, with nothing for the open examples, ranks below as many known candidates as count. What is known only
grows, so a hopeless candidate stays hopeless, and what is selected is what asking everything would select.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glora.engines.candidates import Best, Scored
from glora.engines.space import Genome
from glora.search.costs import Costs
from glora.search.fitness import Fitness

#: From a candidate and examples to what they cost it, by asking `ask` or by knowing better (a log).
Answer = Callable[[Genome, Sequence[int], Callable[[Sequence[int]], NDArray[np.float64]]], NDArray[np.float64]]


@dataclass(frozen=True)
class Runner:
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


def race(runners: Sequence[Runner], fitness: Fitness, best: Best, keep: int | None, answer: Answer) -> None:
    """Ask candidates until each is known in full, or hopeless.

    Args:
        runners: the candidates, all inside the budget if `keep` is not None.
        fitness: what asks them, and where they are noted.
        best: the best so far, to which those known in full are added.
        keep: how many of the best count; None asks everything, in the order of proposal, and leaves `best` alone.
        answer: how a batch is answered.
    """
    for runner in runners:
        fitness.note(runner.costs)
    order = list(runners)
    if keep is not None:
        for runner in runners:
            _ask(runner, fitness, best, keep, answer, most=1)
        order.sort(key=lambda r: r.costs.least + float(fitness.expected(r.costs)[~r.costs.asked].sum()))
    for runner in order:
        _ask(runner, fitness, best, keep, answer)
        if keep is not None:
            best.add(runner.scored)


def _ask(
    runner: Runner, fitness: Fitness, best: Best, keep: int | None, answer: Answer, most: int | None = None
) -> None:
    """Ask a candidate, at most `most` batches."""
    costs = runner.costs
    with fitness.asking(runner.genome) as ask:
        while not costs.exact and most != 0:
            if keep is not None and best.hopeless(costs.least, runner.parameters, runner.number, keep):
                return
            # The order is found anew: every answer tells more about which examples are hard for this candidate.
            indices = fitness.batches(costs)[0]
            costs.values[list(indices)] = answer(runner.genome, indices, ask)
            most = None if most is None else most - 1
