"""Candidates with what they cost, the best of them, and the ask/tell interface of what proposes them.

An engine proposes subnets that fit its budget and learns how they did; it never sees a model or data, and what it
proposes follows from its seed and from what it was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glora.engines.space import Budget, Genome, SearchSpace

#: Candidates that one search may ask for at most: each takes milliseconds at least, and a place in memory.
MOST = 10**6


class Engine(Protocol):
    """Proposes candidates and is told their scores.

    Attributes:
        space, budget, seed: what may be proposed, and the source of its randomness.
        keep: how many of the best candidates decide what it proposes (and what is selected) later, as it stands after
            each `ask`; the search may stop asking a candidate that cannot be among them. None: every score counts,
            none may be stopped.
        total: number of candidates it will propose, for progress.
    """

    space: SearchSpace
    budget: Budget
    seed: int
    total: int

    @property
    def keep(self) -> int | None:
        """See above."""

    def ask(self) -> list[Genome]:
        """The next candidates, all inside the budget; an empty list ends the search."""

    def tell(self, scored: Sequence[Scored]) -> None:
        """The scores of the candidates of the last `ask`, in their order."""


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
