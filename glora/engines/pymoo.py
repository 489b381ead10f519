"""pymoo's genetic algorithm as a search engine (extra ``pymoo``): a library's search beside the paper's evolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from glora._checks import whole
from glora.engines.candidates import MOST, Scored
from glora.engines.random import random_subnet
from glora.engines.space import Budget, Genome, SearchSpace


class Pymoo:
    """pymoo's GA over whole numbers: uniform crossover and polynomial mutation, repaired to the budget.

    A gene is the place of its structure among those allowed there. Of two candidates with as many correct answers the
    one with fewer parameters is better.

    Args:
        space, budget: what may be proposed.
        seed: source of randomness.
        generations: number of generations after the random one.
        population: candidates of each.

    Raises:
        ValueError: pymoo is not installed, the budget fits nothing, or a number is out of its range.
    """

    keep: int | None = None  # selection compares scores of the whole population

    def __init__(
        self,
        space: SearchSpace,
        budget: Budget,
        *,
        seed: int = 0,
        generations: int = 20,
        population: int = 50,
    ) -> None:
        space.fits(budget)
        whole("seed", seed, 0)
        whole("generations", generations, 1, MOST)
        whole("population", population, 1, MOST)
        self.space, self.budget, self.seed = space, budget, seed
        self.population, self.generations = population, generations
        self.total = population * (generations + 1)
        self._rng = np.random.default_rng(seed)
        # pymoo sees the genes that have a choice, each as 0 … choices − 1.
        self._free = space.allowed.sum(axis=2) > 1
        self._structures = [np.flatnonzero(allowed) for allowed in space.allowed[self._free]]
        self._algorithm = self._make()
        self._asked: Any = None

    def ask(self) -> list[Genome]:
        """One generation."""
        if not self._algorithm.has_next():
            return []
        asked = self._algorithm.ask()
        if asked is None or len(asked) == 0:  # no new candidate could be made
            return []
        genomes = [self.space.repair(self._genome(row), self.budget, self._rng) for row in asked.get("X")]
        asked.set("X", np.array([self._row(genome) for genome in genomes]))
        self._asked = asked
        return genomes

    def tell(self, scored: Sequence[Scored]) -> None:
        """The scores of a generation."""
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        # Sizes count for less than a millionth of an answer, so they decide between equal costs only.
        cost = [[one.cost + 1e-6 * one.parameters / (self.budget.high + 1)] for one in scored]
        Evaluator().eval(StaticProblem(self._algorithm.problem, F=np.array(cost)), self._asked)
        self._algorithm.tell(infills=self._asked)

    def _make(self) -> Any:
        try:
            from pymoo.algorithms.soo.nonconvex.ga import GA
            from pymoo.core.problem import Problem
            from pymoo.operators.crossover.ux import UniformCrossover
            from pymoo.operators.mutation.pm import PM
            from pymoo.operators.repair.rounding import RoundingRepair
        except ImportError as error:
            raise ValueError(
                f"engine 'pymoo' needs pymoo ({error}); pip install 'rescale-and-adapt[pymoo]', or take "
                "engine 'evolution'"
            ) from None
        first = [random_subnet(self.space, self.budget, self._rng) for _ in range(self.population)]
        algorithm = GA(
            pop_size=self.population,
            sampling=np.array([self._row(genome) for genome in first]),
            crossover=UniformCrossover(),
            mutation=PM(eta=3.0, vtype=float, repair=RoundingRepair()),  # pymoo's own choice for whole numbers
        )
        highest = np.array([len(structures) - 1 for structures in self._structures])
        problem = Problem(n_var=len(highest), n_obj=1, xl=np.zeros_like(highest), xu=highest, vtype=int)
        algorithm.setup(problem, termination=("n_gen", self.generations + 1), seed=self.seed, verbose=False)
        return algorithm

    def _genome(self, row: Any) -> Genome:
        genome = self.space.smallest.copy()
        genome[self._free] = [choices[int(gene)] for choices, gene in zip(self._structures, row, strict=True)]
        return genome

    def _row(self, genome: Genome) -> Any:
        genes = zip(self._structures, genome[self._free], strict=True)
        return np.array([np.searchsorted(choices, gene) for choices, gene in genes])
