"""The knapsack engine: its solution is the best of all, its gains are recovered."""

from __future__ import annotations

import itertools

import numpy as np

from glora.engines.candidates import Scored
from glora.engines.knapsack import Knapsack, best_sum, estimate_gains, one_hot
from glora.engines.space import Budget, SearchLayer, SearchSpace
from glora.search.log import genome_text
from glora.search.loop import search
from tests.glora.toy import BUDGET, Points, toy_supernet


class TestKnapsack:
    def space(self):
        return SearchSpace((SearchLayer("a", 5, 4), SearchLayer("b", 3, 6, bias=False)), 2, {"C": ["none"]})

    def test_solution_is_the_best_of_all(self):
        space, budget = self.space(), Budget(30, 15)
        genomes = [
            np.array(genes, dtype=np.int8).reshape(2, 5)
            for genes in itertools.product(*(np.flatnonzero(mask) for mask in space.allowed.reshape(10, -1)))
        ]
        for seed in range(3):
            gains = np.where(space.allowed, np.random.default_rng(seed).normal(size=space.allowed.shape), 0.0)
            worth = [
                float((one_hot(space, g) * gains[space.allowed]).sum()) if budget.holds(space.count(g)) else -np.inf
                for g in genomes
            ]
            order = np.argsort(worth)[::-1]
            best = best_sum(space, gains, budget)
            assert np.array_equal(best, genomes[order[0]])
            assert np.array_equal(best_sum(space, gains, budget, exclude=[best]), genomes[order[1]])

    def test_gains_are_recovered_from_additive_scores(self):
        space, rng = self.space(), np.random.default_rng(1)
        truth = np.where(space.allowed, rng.normal(size=space.allowed.shape), 0.0)
        scored = []
        for number in range(400):
            genome = space.sample(rng)
            score = float((one_hot(space, genome) * truth[space.allowed]).sum())
            scored.append(Scored(genome, 0, -score, True, number))
        gains = estimate_gains(space, scored, ridge=1e-6)
        for place in itertools.product(range(2), range(5)):
            mask = space.allowed[place]
            found, wanted = (values[place][mask] for values in (gains, truth))
            np.testing.assert_allclose(found - found.mean(), wanted - wanted.mean(), atol=1e-4)

    def test_engine_runs_and_selects_inside_the_budget(self):
        supernet = toy_supernet()
        engine = Knapsack(supernet.space, BUDGET, design=60, rounds=3)
        found = search(supernet, Points(), engine)
        assert len(found.candidates) == engine.total == 63
        assert found.stopped == 0
        assert BUDGET.holds(found.best.parameters)
        assert len({genome_text(c.genome) for c in found.candidates[-3:]}) == 3

    def test_nothing_left(self):
        space = SearchSpace((SearchLayer("a", 5, 4),), 1, {t: ["none"] for t in "ABCD"})
        only = best_sum(space, np.zeros(space.allowed.shape), Budget(5, 5))
        assert only is not None
        assert best_sum(space, np.zeros(space.allowed.shape), Budget(5, 5), exclude=[only]) is None

    def test_more_rounds_than_subnets_end_the_search(self):
        """Every subnet inside the budget is asked, none twice after the design, and nothing is lost."""
        supernet = toy_supernet()
        structures = {"A": ["none", "vector"], "E": ["none", "vector"]}
        space = SearchSpace(supernet.space.layers, 3, structures | {t: ["none"] for t in "BCD"})
        engine = Knapsack(space, Budget(60, 1), design=6, rounds=50)
        found = search(supernet, Points(), engine)
        assert len(found.candidates) < engine.total
        genomes = [genome_text(c.genome) for c in found.candidates if engine.budget.holds(c.parameters)]
        assert len(set(genomes)) == 15  # all but the empty one; the largest has 56 parameters
        rounds = [genome_text(c.genome) for c in found.candidates[6:]]
        assert len(set(rounds)) == len(rounds)
        assert not set(rounds) & {genome_text(c.genome) for c in found.candidates[:6]}
