"""The search: what may be saved, what may be seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

import glora
from glora.engines.evolution import Evolution
from glora.engines.knapsack import Knapsack
from glora.engines.random import Random
from glora.engines.space import Budget, SearchSpace
from glora.search.costs import ValidationOnly
from glora.search.log import genome_text
from glora.search.loop import SearchResult, save_found, search
from tests.glora.toy import BUDGET, Points, bare, evolution, toy_supernet


def parents(found: SearchResult, population: int, keep: int):
    """The ranks of the best after each generation but the last, whose order decides what comes next."""
    ends = range(population, len(found.candidates), population)
    inside = [c for c in found.candidates if c.exact and BUDGET.holds(c.parameters)]
    return [sorted(c.rank for c in inside if c.number < end)[:keep] for end in ends]


class TestSearch:
    @pytest.mark.parametrize("engine", ["evolution", "random"])
    def test_savings_do_not_change_the_selection(self, engine):
        """Merging, caching and early stopping, alone and together, against plain evaluation; over seeds."""
        task = Points()
        for seed in range(2):
            outcomes = []
            keep = 4 if engine == "evolution" else 0  # random candidates have no parents
            for merged, caching, stopping in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]:
                supernet = toy_supernet(seed=seed)
                made = (
                    evolution(supernet, seed, generations=3)
                    if engine == "evolution"
                    else Random(supernet.space, BUDGET, seed=seed, total=30)
                )
                found = search(
                    supernet, task, made, batch_size=5, merged=merged, caching=caching, early_stopping=stopping
                )
                proposed = [genome_text(c.genome) for c in found.candidates]
                outcomes.append((proposed, genome_text(found.best.genome), found.best.rank, *parents(found, 12, keep)))
                plain = len(found.candidates) * found.total
                assert (found.images < plain) == (stopping or found.cached > 0)
            assert all(outcome == outcomes[0] for outcome in outcomes[1:])

    def test_evolution_beats_its_first_generation(self):
        task, gains = Points(), []
        for seed in range(2):
            supernet = toy_supernet(seed=seed)
            found = search(supernet, task, evolution(supernet, generations=6))
            first = min(c.cost for c in found.candidates[:12])
            assert found.best.cost <= first
            gains.append(first - found.best.cost)
        assert max(gains) > 0

    def test_every_candidate_fits_and_no_two_are_equal(self):
        supernet = toy_supernet()
        found = search(supernet, Points(), evolution(supernet))
        assert all(BUDGET.holds(c.parameters) for c in found.candidates)
        assert len({genome_text(c.genome) for c in found.candidates}) == len(found.candidates) == 72

    def test_equal_candidates_are_asked_once(self):
        supernet = toy_supernet()
        small = SearchSpace(
            supernet.space.layers, 3, {t: ["none", "vector"] for t in "AB"} | {t: ["none"] for t in "CDE"}
        )
        engine = Random(small, Budget(10**6), total=60)
        found = search(supernet, Points(), engine, early_stopping=False)
        assert found.cached == 60 - len({genome_text(c.genome) for c in found.candidates}) > 0
        assert found.images == 60 * (60 - found.cached)

    def test_the_supernet_comes_back_as_it_was(self):
        supernet, task = toy_supernet(), Points()
        before = {key: value.clone() for key, value in supernet.model.state_dict().items()}
        genome = supernet.genome
        search(supernet, task, evolution(supernet))
        assert all((before[key] == value).all() for key, value in supernet.model.state_dict().items())
        assert np.array_equal(supernet.genome, genome)

    def test_only_validation_is_read(self):
        supernet, task = toy_supernet(), Points(splits=("train", "validation", "test"))
        search(supernet, task, evolution(supernet))
        assert set(task.reads) == {"validation"}
        for split in ("test", "train", "train+validation", "test:jpeg:3"):
            for call in (
                lambda split=split: ValidationOnly(task).batch(split, [0]),
                lambda split=split: ValidationOnly(task).by_length(split),
                lambda split=split: ValidationOnly(task).size(split),
            ):
                with pytest.raises(ValueError, match="validation"):
                    call()

    def test_found_configuration_is_a_file(self, tmp_path):
        supernet = toy_supernet()
        found = search(supernet, Points(), evolution(supernet))
        path = save_found(tmp_path / "found.json", supernet, found.best.genome)
        config = glora.GLoRAConfig.from_dict(json.loads(path.read_text()))
        report = glora.attach(bare(supernet), config)
        assert report.adapter_parameters == found.best.parameters
        assert path.stat().st_size < 2000

    def test_pictures(self):
        pytest.importorskip("matplotlib")
        from glora import plot

        supernet = toy_supernet()
        found = search(supernet, Points(), evolution(supernet))
        curve = plot.progress(found).axes[0].lines[1].get_ydata()
        assert list(curve) == sorted(curve)
        assert curve[-1] == pytest.approx(found.accuracy)
        wide = search(supernet, Points(), Knapsack(supernet.space, Budget(60, 20), design=60, rounds=3))
        assert max(wide.value(c) for c in wide.candidates) > wide.accuracy  # of a candidate outside the budget
        assert plot.progress(wide).axes[0].lines[1].get_ydata()[-1] == pytest.approx(wide.accuracy)
        report = glora.count_parameters(supernet.config(found.best.genome), bare(supernet))
        map_axis, bars = plot.structures(report).axes
        assert [label.get_text() for label in map_axis.get_yticklabels()] == [layer.name for layer in report.layers]
        assert sum(bar.get_height() for bar in bars.patches) == report.adapter_parameters

    def test_errors(self):
        space = toy_supernet().space
        with pytest.raises(ValueError, match="fits no subnet"):
            Random(space, Budget(10**7, 10**6))
        with pytest.raises(ValueError, match="total"):
            Random(space, BUDGET, total=0)
        with pytest.raises(ValueError, match="at most population"):
            Evolution(space, BUDGET, population=10)
        with pytest.raises(ValueError, match="probability"):
            Evolution(space, BUDGET, probability=0.0)
        with pytest.raises(ValueError, match="ridge"):
            Knapsack(space, BUDGET, ridge=0)

    @pytest.mark.parametrize(
        ("engine", "name", "value"),
        [
            *((Evolution, "generations", value) for value in (2.5, "3", -1, True)),
            (Evolution, "mutations", 1.5),
            (Evolution, "probability", "a"),
            (Evolution, "seed", -1),
            (Random, "seed", 1.5),
            (Random, "total", 10.0),
            (Knapsack, "seed", "a"),
            (Knapsack, "ridge", float("nan")),
        ],
    )
    def test_numbers_of_the_wrong_kind(self, engine, name, value):
        """A search of 2.5 generations once had no end."""
        with pytest.raises(ValueError, match=name):
            engine(toy_supernet().space, BUDGET, **{name: value})
