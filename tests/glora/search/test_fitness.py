"""Fitness: costs are those of plain evaluation, and out_of_reach is exactly not entering."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from glora.engines.candidates import Best, Scored
from glora.search.costs import Costs
from glora.search.fitness import Fitness
from tests.glora.toy import Points, toy_supernet


class TestFitness:
    def test_counts_are_those_of_plain_evaluation(self):
        supernet, task = toy_supernet(), Points()
        fitness = Fitness(supernet, task, batch_size=7)
        rng = np.random.default_rng(0)
        for _ in range(10):
            genome = supernet.space.sample(rng)
            costs = fitness.ask(genome)
            fitness.note(costs)  # so that the next order is another one
            supernet.select(genome)
            assert costs.exact
            assert 1 - costs.least / 60 == pytest.approx(task.metrics(supernet.model, "validation")["accuracy"])

    @pytest.mark.parametrize("whole", [True, False])
    def test_costs_survive_the_log(self, whole):
        rng = np.random.default_rng(0)
        values = rng.integers(0, 2, 61).astype(float) if whole else np.exp(20 * rng.normal(size=61))
        values[rng.random(61) < 0.3] = np.nan
        costs = Costs(values)
        line = json.dumps(costs.to_json(), allow_nan=False)
        again = Costs.from_json(json.loads(line))
        assert again.values.tobytes() == values.tobytes()
        assert (again.least, again.exact) == (costs.least, False)

    def test_out_of_reach_is_exactly_not_entering(self):
        """`out_of_reach` says True if and only if a candidate with that score would not enter, ties included."""
        genome = iter(range(10**6))

        def candidate(cost, parameters):
            number = next(genome)
            return Scored(np.array([[number]]), parameters, cost, True, number)

        rng = np.random.default_rng(0)
        for _ in range(300):
            best = Best(3)
            for _ in range(rng.integers(0, 6)):
                best.add(candidate(int(rng.integers(5)), int(rng.integers(3))))
            cost, parameters = int(rng.integers(5)), int(rng.integers(3))
            new = candidate(cost, parameters)
            if rng.random() < 0.5:  # proposed before the others, judged after them
                new = dataclasses.replace(new, number=-1)
            said = best.out_of_reach(cost, parameters, new.number, 3)
            assert best.out_of_reach(cost, parameters, new.number, 1) >= said
            best.add(new)
            assert said == all(c is not new for c in best.candidates)

    def test_the_order_of_judging_does_not_matter(self):
        """The best are the same in whatever order they are added, equal subnets included."""
        rng = np.random.default_rng(0)
        for _ in range(100):
            costs, sizes, genomes = (rng.integers(4, size=12) for _ in range(3))
            candidates = [Scored(np.array([[g]]), int(sizes[g]), int(costs[g]), True, n) for n, g in enumerate(genomes)]
            outcomes = []
            for order in (range(12), rng.permutation(12)):
                best = Best(3)
                for place in order:
                    best.add(candidates[place])
                outcomes.append([c.rank for c in best.candidates])
            assert outcomes[0] == outcomes[1]

    def test_what_it_needs(self):
        supernet = toy_supernet()
        with pytest.raises(ValueError, match=r"task object cannot be searched: .*correct\(model, batch\)"):
            Fitness(supernet, object())
        with pytest.raises(ValueError, match="batch_size"):
            Fitness(supernet, Points(), batch_size=0)
