"""Evolution as in the paper: the best candidates of all generations are the parents of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from glora._checks import positive, whole
from glora.engines.candidates import MOST, Best, Scored
from glora.engines.space import Budget, Genome, SearchSpace


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
            whole(name, value, 0, MOST)
        whole("seed", seed, 0)
        whole("population", population, 1, MOST)
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
