"""pymoo's GA behind the engines' interface; skipped where pymoo is not installed, except for what is said then."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from glora.engines.pymoo import Pymoo
from glora.engines.space import Budget, SearchLayer, SearchSpace
from glora.search.log import genome_text
from glora.search.loop import search
from glora.searching import ENGINES
from tests.glora.toy import Points, toy_supernet

BUDGET = Budget(150, 60)
SPACE = SearchSpace((SearchLayer("a", 16, 6), SearchLayer("b", 12, 16, bias=False)), 3, {"E": ("none", "vector")})
needs_pymoo = pytest.mark.skipif(importlib.util.find_spec("pymoo") is None, reason="needs pymoo")


def test_what_is_said_without_pymoo(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.soo.nonconvex.ga", None)
    with pytest.raises(ValueError, match=r"engine 'pymoo' needs pymoo .*pip install 'rescale-and-adapt\[pymoo\]'"):
        Pymoo(SPACE, BUDGET)
    assert ENGINES["pymoo"] is Pymoo


@pytest.mark.parametrize(
    ("options", "message"),
    [({"population": 0}, "population"), ({"generations": 0}, "generations")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Pymoo(SPACE, BUDGET, **options)


@needs_pymoo
class TestPymoo:
    def test_rows_and_genomes_are_the_same_things(self):
        engine, rng = Pymoo(SPACE, BUDGET, population=4), np.random.default_rng(0)
        for _ in range(20):
            genome = SPACE.sample(rng)
            assert np.array_equal(engine._genome(engine._row(genome)), genome)

    def test_deterministic_inside_the_budget_and_better_than_chance(self):
        outcomes = []
        for seed in (0, 0, 1):
            supernet = toy_supernet()
            engine = Pymoo(supernet.space, BUDGET, seed=seed, generations=6, population=12)
            found = search(supernet, Points(), engine)
            assert all(BUDGET.holds(candidate.parameters) for candidate in found.candidates)
            assert len(found.candidates) == engine.total == 84
            assert found.stopped == 0
            first = min(candidate.cost for candidate in found.candidates[:12])
            assert found.best.cost <= first
            outcomes.append((first - found.best.cost, [genome_text(c.genome) for c in found.candidates]))
        assert outcomes[0] == outcomes[1]
        assert outcomes[0][1] != outcomes[2][1]
        assert max(gain for gain, _ in outcomes) > 0

    def test_scores_are_what_it_minimises(self):
        """The cost is the number of layers whose B is not low-rank: 4.5 of 6 in a random subnet."""
        layers = tuple(SearchLayer(str(number), 8, 8) for number in range(6))
        space, budget = SearchSpace(layers, 1), Budget(200)
        engine = Pymoo(space, budget, generations=25, population=20, seed=3)
        from glora.engines.candidates import Scored

        best = 6.0
        while genomes := engine.ask():
            scored = [
                Scored(genome, space.count(genome), float((genome[:, 1] != 3).sum()), True, number)
                for number, genome in enumerate(genomes)
            ]
            engine.tell(scored)
            best = min(best, *(one.cost for one in scored))
        assert best <= 1

    def test_a_killed_search_continues(self, tmp_path):
        """Answered from the log, a new engine goes where the first one went."""
        supernet = toy_supernet()

        def run(folder, **options):
            engine = Pymoo(supernet.space, BUDGET, seed=2, generations=4, population=8)
            return search(supernet, Points(), engine, folder=folder, **options)

        whole = run(tmp_path / "whole")
        run(tmp_path / "broken")
        log = tmp_path / "broken" / "candidates.jsonl"
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:13]))
        again = run(tmp_path / "broken", resume=True)
        assert [genome_text(c.genome) for c in again.candidates] == [genome_text(c.genome) for c in whole.candidates]
