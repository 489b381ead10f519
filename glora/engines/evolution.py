"""Search engines behind one ask/tell interface: evolution as in the paper, and random search.

An engine proposes subnets that fit its budget and learns how they did; it never sees a model or data, and what it
proposes follows from its seed and from what it was told.  `glora.engines.knapsack` has a third engine,
`glora.engines.pymoo` a library's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from glora._checks import positive, whole
from glora.engines.space import Budget, Genome, SearchSpace
from glora.search.fitness import Best, Scored


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


class Random:
    """Independent candidates, uniform over the space before they are repaired to the budget.

    Args:
        space, budget: what may be proposed.
        seed: source of randomness.
        total: number of candidates.

    Raises:
        ValueError: the budget fits nothing, or `total` < 1.
    """

    keep: int | None = 1

    def __init__(self, space: SearchSpace, budget: Budget, *, seed: int = 0, total: int = 1050) -> None:
        space.fits(budget)
        whole("seed", seed, 0)
        whole("total", total, 1)
        self.space, self.budget, self.seed, self.total = space, budget, seed, total
        self._rng = np.random.default_rng(seed)
        self._asked = False

    def ask(self) -> list[Genome]:
        """All candidates at once."""
        if self._asked:
            return []
        self._asked = True
        return [random_subnet(self.space, self.budget, self._rng) for _ in range(self.total)]

    def tell(self, scored: Sequence[Scored]) -> None:
        """Nothing is learnt."""


class Evolution:
    """The paper's evolution, with candidates repaired to the budget instead of rejected.

    Generation 0 is random. Each later one holds `mutations` of parents (every gene drawn anew with probability
    `probability`), `crossovers` of two parents (every gene from one of them), and random candidates up to
    `population`; parents are the best `parents` candidates of all generations. No candidate is proposed twice
    while new ones can be found.

    Source: the official evolution.py of GLoRA: 20 generations after the first, 50, 10, 25 + 25, .2.

    Args:
        space, budget: what may be proposed.
        seed: source of randomness.
        generations: number of generations after the random one.
        population, parents, mutations, crossovers, probability: see above.

    Raises:
        ValueError: the budget fits nothing, or a number is out of its range.
    """

    def __init__(
        self,
        space: SearchSpace,
        budget: Budget,
        *,
        seed: int = 0,
        generations: int = 20,
        population: int = 50,
        parents: int = 10,
        mutations: int = 25,
        crossovers: int = 25,
        probability: float = 0.2,
    ) -> None:
        space.fits(budget)
        for name, value in (("generations", generations), ("mutations", mutations), ("crossovers", crossovers)):
            whole(name, value, 0)
        whole("seed", seed, 0)
        whole("population", population, 1)
        whole("parents", parents, 1)
        if mutations + crossovers > population:
            raise ValueError(
                f"mutations + crossovers must be at most population, got {mutations} + {crossovers} and {population}"
            )
        positive("probability", probability)
        if probability > 1:
            raise ValueError(f"probability must lie in (0, 1], got {probability!r}")
        self.space, self.budget, self.seed = space, budget, seed
        self.population, self.mutations, self.crossovers = population, mutations, crossovers
        self.probability = probability
        self.parents = parents
        self.total = population * (generations + 1)
        self._left = generations + 1
        self._rng = np.random.default_rng(seed)
        self._best = Best(parents)
        self._seen: set[bytes] = set()

    @property
    def keep(self) -> int | None:
        """The parents; nothing follows on the last generation, so there the best one alone counts."""
        return self.parents if self._left else 1

    def ask(self) -> list[Genome]:
        """One generation."""
        if self._left <= 0:
            return []
        self._left -= 1
        parents = [candidate.genome for candidate in self._best.candidates]
        children: list[Genome] = []
        if parents:
            children += [self._new(lambda: self._mutant(parents)) for _ in range(self.mutations)]
            children += [self._new(lambda: self._cross(parents)) for _ in range(self.crossovers)]
        while len(children) < self.population:
            children.append(self._new(lambda: self.space.sample(self._rng)))
        return children

    def tell(self, scored: Sequence[Scored]) -> None:
        """The best of all generations become parents."""
        for candidate in scored:
            self._best.add(candidate)

    def _new(self, make: Callable[[], Genome], tries: int = 10) -> Genome:
        """A child that fits the budget and is new; a random one where `tries` attempts find only known ones."""
        for attempt in range(2 * tries):
            child = make() if attempt < tries else self.space.sample(self._rng)
            child = self.space.repair(child, self.budget, self._rng)
            if child.tobytes() not in self._seen:
                break
        self._seen.add(child.tobytes())
        return child

    def _mutant(self, parents: list[Genome]) -> Genome:
        parent = parents[self._rng.integers(len(parents))]
        fresh = self.space.sample(self._rng)
        return np.where(self._rng.random(parent.shape) < self.probability, fresh, parent)

    def _cross(self, parents: list[Genome]) -> Genome:
        one, other = (parents[i] for i in self._rng.integers(len(parents), size=2))
        return np.where(self._rng.random(one.shape) < 0.5, one, other)


def random_subnet(space: SearchSpace, budget: Budget, rng: np.random.Generator) -> Genome:
    """A random subnet inside the budget: the baseline that every search has to beat.

    Raises:
        ValueError: the budget fits nothing.
    """
    return space.repair(space.sample(rng), budget, rng)
