"""Fitness, engines and the search: what may be saved, what may be seen, what a kill costs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import glora
from glora.engines.candidates import Best, Scored
from glora.engines.evolution import Evolution
from glora.engines.knapsack import Knapsack, best_sum, estimate_gains, one_hot
from glora.engines.random import Random
from glora.engines.space import Budget, SearchLayer, SearchSpace
from glora.search.costs import Costs, Sealed
from glora.search.fitness import Fitness
from glora.search.log import genome_text
from glora.search.loop import Found, save_found, search
from tests.glora.toy import Points, bare, toy_supernet

BUDGET = Budget(150, 60)


def evolution(supernet, seed=0, **options):
    settings = {"generations": 5, "population": 12, "parents": 4, "mutations": 6, "crossovers": 6, **options}
    return Evolution(supernet.space, BUDGET, seed=seed, **settings)


def parents(found: Found, population: int, keep: int):
    """The ranks of the best after each generation but the last, whose order decides what comes next."""
    ends = range(population, len(found.candidates), population)
    inside = [c for c in found.candidates if c.exact and BUDGET.holds(c.parameters)]
    return [sorted(c.rank for c in inside if c.number < end)[:keep] for end in ends]


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

    def test_hopeless_is_exactly_not_entering(self):
        """`hopeless` says True if and only if a candidate with that score would not enter, ties included."""
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
            said = best.hopeless(cost, parameters, new.number, 3)
            assert best.hopeless(cost, parameters, new.number, 1) >= said
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
                lambda split=split: Sealed(task).batch(split, [0]),
                lambda split=split: Sealed(task).by_length(split),
                lambda split=split: Sealed(task).size(split),
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


class TestResume:
    def test_a_log_cut_anywhere_ends_the_same(self, tmp_path):
        supernet, task = toy_supernet(), Points()
        whole = search(supernet, task, evolution(supernet), folder=tmp_path / "whole")
        log = (tmp_path / "whole" / "candidates.jsonl").read_text()
        for number, cut in enumerate(np.random.default_rng(0).integers(0, len(log), 6)):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "search.json").write_text((tmp_path / "whole" / "search.json").read_text())
            (folder / "candidates.jsonl").write_text(log[:cut])  # mostly in the middle of a line
            again = search(supernet, task, evolution(supernet), folder=folder, resume=True)
            assert genome_text(again.best.genome) == genome_text(whole.best.genome)
            assert again.images == whole.images
            assert (folder / "candidates.jsonl").read_text() == log

    def test_another_search_is_refused(self, tmp_path):
        supernet, task = toy_supernet(), Points()
        search(supernet, task, evolution(supernet), folder=tmp_path)
        with pytest.raises(ValueError, match="holds a search already"):
            search(supernet, task, evolution(supernet), folder=tmp_path)
        with pytest.raises(ValueError, match="differs in seed"):
            search(supernet, task, evolution(supernet, seed=1), folder=tmp_path, resume=True)
        other = toy_supernet(seed=1)
        with pytest.raises(ValueError, match="differs in supernet"):
            search(other, task, evolution(other), folder=tmp_path, resume=True)

    def test_other_examples_and_structures_are_refused(self, tmp_path):
        """A log of as many examples with other labels or inputs was once continued."""

        def engine(space):
            return Random(space, BUDGET, total=3)

        supernet, task = toy_supernet(), Points()
        search(supernet, task, engine(supernet.space), folder=tmp_path)
        x, labels = task.data["validation"]
        for changed in ((x, (labels + 1) % 3), (x.flip(0), labels)):
            task.data["validation"] = changed
            with pytest.raises(ValueError, match="differs in validation;"):
                search(supernet, task, engine(supernet.space), folder=tmp_path, resume=True)
        task.data["validation"] = (x, labels)
        search(supernet, task, engine(supernet.space), folder=tmp_path, resume=True)
        supernet.space = SearchSpace(supernet.space.layers, 3, {"A": ["none", "vector"]})
        with pytest.raises(ValueError, match="differs in structures;"):
            search(supernet, task, engine(supernet.space), folder=tmp_path, resume=True)

    def test_a_full_disk_loses_nothing(self, tmp_path, monkeypatch):
        supernet, task = toy_supernet(), Points()
        whole = search(supernet, task, evolution(supernet), folder=tmp_path / "whole")
        calls, fsync = itertools.count(), os.fsync

        def full(handle):
            if next(calls) == 20:
                raise OSError(28, "No space left on device")
            return fsync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                search(supernet, task, evolution(supernet), folder=tmp_path / "full")
        again = search(supernet, task, evolution(supernet), folder=tmp_path / "full", resume=True)
        assert genome_text(again.best.genome) == genome_text(whole.best.genome)
        logs = [(tmp_path / name / "candidates.jsonl").read_text() for name in ("full", "whole")]
        assert logs[0] == logs[1]

    def test_sigkill(self, tmp_path):
        """Killed at random points again and again, a search ends with the log of an unbroken one."""
        root = Path(glora.__file__).parent.parent
        script = (
            "import sys; from tests.glora.toy import *; from tests.glora.test_search import evolution;"
            "from glora.search import search; import time, torch; torch.set_num_threads(1);"
            "task = Points(); plain = task.correct;"
            "task.correct = lambda m, b: (time.sleep(0.004), plain(m, b))[1];"
            "print('ready', flush=True);"
            "s = toy_supernet(); search(s, task, evolution(s), folder=sys.argv[1], resume=True)"
        )
        rng, folder, kills = np.random.default_rng(0), tmp_path / "broken", 0
        environment = {**os.environ, "PYTHONPATH": str(root)}
        for _ in range(12):
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(folder)], cwd=root, env=environment, stdout=subprocess.PIPE
            )
            process.stdout.readline()
            try:
                process.wait(timeout=0.15 + 0.3 * rng.random() if kills < 2 else 60)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            finally:
                process.stdout.close()
        assert process.returncode == 0
        assert kills == 2
        supernet = toy_supernet()
        search(supernet, Points(), evolution(supernet), folder=tmp_path / "whole")
        logs = [(tmp_path / name / "candidates.jsonl").read_text() for name in ("broken", "whole")]
        assert logs[0] == logs[1]


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
