"""Searching by loss: language models, costs that are numbers, and what stays exact about them."""

# ruff: noqa: E402
from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

for module in ("transformers", "accelerate"):
    pytest.importorskip(module)

import torch.nn.functional as F

import glora
from glora import plot
from glora.cli.commands import main
from glora.engines.evolution import Evolution
from glora.engines.knapsack import Knapsack
from glora.engines.random import Random
from glora.engines.space import Budget
from glora.runs.config import RunConfig, read
from glora.search.costs import MOST, Costs, Sealed
from glora.search.fitness import Fitness
from glora.search.log import genome_text
from glora.search.loop import Found, search
from glora.search.supernet import SuperNet
from glora.searching import SearchRun
from glora.tasks.text.instruct import Instruct
from glora.tasks.text.loading import load_tokenizer
from glora.tasks.text.multiple_choice import MultipleChoice
from paper_checks.demo.tiny_text import save_model, write_jsonl
from tests.glora.toy import Points, toy_supernet

ROOT = Path(glora.__file__).parent.parent
BUDGET = Budget(150, 60)


class Losses(Points):
    """The toy points, judged by their cross-entropy."""

    def costs(self, model, batch):
        return F.cross_entropy(model(batch["x"]), batch["labels"], reduction="none")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=128)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.bos_token, tokenizer.eos_token = "[CLS]", "[SEP]"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Instructions of unequal lengths."""
    draw = random.Random(0)
    words = ("good", "bad", "film", "plot", "very", "not", "the", "was")
    rows = [
        {"instruction": " ".join(draw.choices(words, k=draw.randrange(1, 9))), "input": "",
         "output": " ".join(draw.choices(words[:4], k=draw.randrange(1, 12)))}
        for _ in range(60)
    ]  # fmt: skip
    return write_jsonl(tmp_path_factory.mktemp("data") / "instruct.jsonl", rows)


def instruct(llama: Path, file: Path, **options: Any) -> Instruct:
    return Instruct(model=str(llama), file=str(file), validation_fraction=0.4, **options)


def supernet_of(task: Any, seed: int = 0) -> SuperNet:
    """A supernet with random numbers in every support tensor, as if trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = task.build_model(0)
        supernet = SuperNet(model, 2, "(q|v|o)_proj$", generator=torch.Generator().manual_seed(seed))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.2 * torch.randn_like(parameter)
    return supernet


def evolution(supernet: SuperNet, budget: Budget, seed: int = 0) -> Evolution:
    return Evolution(
        supernet.space, budget, seed=seed, generations=2, population=8, parents=3, mutations=4, crossovers=4
    )


def selected(found: Found, keep: int, budget: Budget) -> list[tuple[float, int, int]]:
    """The best of all generations, and the parents of the last one."""
    inside = sorted(c.rank for c in found.candidates if c.exact and budget.holds(c.parameters))
    return [inside[0], *[rank for rank in inside if rank[2] < 16][:keep]]


class TestCosts:
    @pytest.mark.parametrize("packing", [False, True])
    def test_the_total_is_the_loss_on_validation(self, llama: Path, file: Path, packing: bool) -> None:
        task = instruct(llama, file, packing=packing)
        supernet = supernet_of(task)
        fitness = Fitness(supernet, task, batch_size=5)
        rng = np.random.default_rng(0)
        for _ in range(3):
            costs = fitness.ask(genome := supernet.space.sample(rng))
            with supernet.merged(genome):
                loss = task.metrics(supernet.model, "validation")["loss"]
            assert costs.least / fitness.weight == pytest.approx(loss, rel=1e-6)

    def test_costs_do_not_depend_on_the_order_to_the_last_bit(self, llama: Path, file: Path) -> None:
        task = instruct(llama, file)
        supernet = supernet_of(task)
        rng = np.random.default_rng(0)
        genome = supernet.space.sample(rng)
        fitness = Fitness(supernet, task, batch_size=5)
        first, orders = fitness.ask(genome), set()
        for _ in range(4):
            fitness.note(Costs(100 * rng.random(fitness.size)))
            orders.add(str(fitness.batches(fitness.nothing())))
            assert fitness.ask(genome).values.tobytes() == first.values.tobytes()
        assert len(orders) > 1
        assert sorted(i for part in fitness.batches(fitness.nothing()) for i in part) == list(
            range(task.size("validation"))
        )
        fresh = Fitness(supernet, task)
        lengths = [[task.length("validation", i) for i in part] for part in fresh.batches(fresh.nothing())]
        assert lengths == [sorted(part) for part in lengths]

    def test_a_part_never_sums_to_more_than_the_whole(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(200):
            values = np.exp(30 * rng.normal(size=30))
            part = np.where(rng.random(30) < 0.9, values, np.nan)
            assert Costs(part).least <= Costs(values).least

    def test_broken_subnets_come_last_and_negative_costs_are_refused(self) -> None:
        class Broken(Losses):
            def costs(self, model, batch):
                return torch.tensor([float("nan"), float("inf"), 2.0]).repeat(20)[: len(batch["labels"])]

        class Negative(Losses):
            def costs(self, model, batch):
                return -super().costs(model, batch)

        supernet = toy_supernet()
        genome = supernet.space.largest
        assert Fitness(supernet, Broken(), batch_size=60).ask(genome).least == 20 * (2 * MOST + 2)
        with pytest.raises(ValueError, match="costs must be ≥ 0"):
            Fitness(supernet, Negative()).ask(genome)


class TestSearch:
    @pytest.mark.parametrize("merged", [True, False])
    def test_stopping_and_caching_do_not_change_the_selection(self, llama: Path, file: Path, merged: bool) -> None:
        task = instruct(llama, file)
        for seed in range(2):
            supernet = supernet_of(task, seed)
            budget = Budget(500, 400)
            outcomes, images = [], []
            for caching, stopping in [(False, False), (True, True)]:
                engine = evolution(supernet, budget, seed)
                found = search(
                    supernet, task, engine, batch_size=2, merged=merged, caching=caching, early_stopping=stopping
                )
                proposed = [genome_text(c.genome) for c in found.candidates]
                outcomes.append((proposed, selected(found, 3, budget), found.summary()["validation_loss"]))
                images.append(found.images)
            assert outcomes[0] == outcomes[1]
            assert images[1] < images[0] == 24 * task.size("validation")

    @pytest.mark.parametrize("engine", ["random", "knapsack"])
    def test_other_engines(self, engine: str) -> None:
        supernet, task = toy_supernet(), Losses()
        made: Any = (
            Random(supernet.space, BUDGET, total=30)
            if engine == "random"
            else Knapsack(supernet.space, BUDGET, design=30, rounds=3)
        )
        found = search(supernet, task, made, batch_size=4)
        inside = [c for c in found.candidates if BUDGET.holds(c.parameters)]
        assert found.best.cost == min(c.cost for c in inside if c.exact)
        assert found.value(found.best) == pytest.approx(found.best.cost / 60)
        assert set(task.reads) == {"validation"}

    def test_what_it_says(self) -> None:
        pytest.importorskip("matplotlib")
        supernet = toy_supernet()
        found = search(supernet, Losses(), evolution(supernet, BUDGET))
        summary = found.summary()
        assert "validation_accuracy" not in summary
        assert next(iter(summary)) == "validation_loss"
        with pytest.raises(ValueError, match="compared by loss"):
            _ = found.accuracy
        axis = plot.progress(found).axes[0]
        curve = list(axis.lines[1].get_ydata())
        assert curve == sorted(curve, reverse=True)
        assert curve[-1] == pytest.approx(summary["validation_loss"])
        assert axis.get_ylabel() == "validation loss"

    def test_multiple_choice_is_compared_by_the_likelihood_of_right_answers(self, llama: Path, tmp_path: Path) -> None:
        rows = [{"question": f"was good {i % 10}", "choices": ["yes", "no no"], "answer": i % 2} for i in range(20)]
        path = str(write_jsonl(tmp_path / "choice.jsonl", rows))
        other = str(write_jsonl(tmp_path / "test.jsonl", [{"question": "is good", "choices": ["a", "b"], "answer": 0}]))
        task = MultipleChoice(model=str(llama), file=other, train_file=path)
        supernet = supernet_of(task)
        found = search(supernet, task, Random(supernet.space, Budget(500, 400), total=6))
        with supernet.merged(found.best.genome):
            loss = float(task.loss(supernet.model, task.batch("validation", range(4))))
        assert found.value(found.best) == pytest.approx(loss, rel=1e-5)

    def test_only_validation_is_read(self, llama: Path, file: Path) -> None:
        task = instruct(llama, file)
        sealed = Sealed(task)
        for split in ("test", "train", "train+validation"):
            for call in (sealed.size, sealed.by_length, lambda split: sealed.batch(split, [0])):
                with pytest.raises(ValueError, match="select on that data"):
                    call(split)
        assert not hasattr(sealed, "metrics")


class TestLog:
    def test_a_log_cut_anywhere_ends_the_same(self, llama: Path, file: Path, tmp_path: Path) -> None:
        task = instruct(llama, file)
        supernet, budget = supernet_of(task), Budget(500, 400)
        whole = search(supernet, task, evolution(supernet, budget), folder=tmp_path / "whole", batch_size=3)
        assert whole.stopped > 0
        log = (tmp_path / "whole" / "candidates.jsonl").read_text()
        for number, cut in enumerate(np.random.default_rng(0).integers(0, len(log), 4)):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "search.json").write_text((tmp_path / "whole" / "search.json").read_text())
            (folder / "candidates.jsonl").write_text(log[:cut])
            again = search(supernet, task, evolution(supernet, budget), folder=folder, resume=True, batch_size=3)
            assert [c.cost for c in again.candidates] == [c.cost for c in whole.candidates]  # bit for bit
            assert (folder / "candidates.jsonl").read_text() == log

    def test_other_formats_and_settings_are_refused(self, tmp_path: Path) -> None:
        supernet, task = toy_supernet(), Losses()
        search(supernet, task, evolution(supernet, BUDGET), folder=tmp_path)
        for options, name in [({"merged": False}, "merged"), ({"batch_size": 7}, "batch_size")]:
            with pytest.raises(ValueError, match=f"differs in {name}"):
                search(supernet, task, evolution(supernet, BUDGET), folder=tmp_path, resume=True, **options)
        with pytest.raises(ValueError, match="differs in metric;"):
            search(supernet, Points(), evolution(supernet, BUDGET), folder=tmp_path, resume=True)
        header = json.loads((tmp_path / "search.json").read_text())
        del header["format"], header["digest"]
        (tmp_path / "search.json").write_text(json.dumps(header))
        with pytest.raises(ValueError, match=r"another version \(format 1, not 3\); choose another folder"):
            search(supernet, task, evolution(supernet, BUDGET), folder=tmp_path, resume=True)


def changes(llama: Path, file: Path, out: Path) -> list[str]:
    """What makes the shipped file tiny."""
    return [
        f'task.file="{file}"', f'task.model="{llama}"', 'task.template="alpaca"', "task.limit=60",
        "task.max_length=64", "method.rank=2", "method.parameters=500", "method.engine.generations=2",
        "method.batch_size=2", "training.epochs=2", "training.lr=1e-2", "training.save_every=3",
        'training.device="cpu"', f'out="{out}"',
    ]  # fmt: skip


@pytest.fixture
def shipped(llama: Path, file: Path, tmp_path: Path) -> Path:
    """The shipped file without its GGUF file."""
    text = (ROOT / "configs" / "smollm_search.toml").read_text()
    path = tmp_path / "smollm_search.toml"
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("gguf_file")))
    return path


class TestCommand:
    def test_search_find_retrain_evaluate(self, llama, file, shipped, tmp_path, capsys) -> None:
        words = [word for change in changes(llama, file, tmp_path / "run") for word in ("--set", change)]
        assert main(["search", str(shipped), *words]) == 0
        text = capsys.readouterr().out
        assert "found:" in text
        assert ", loss " in text
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert 375 <= result["search"]["parameters"] <= 500
        task = instruct_of(shipped, words[1::2])
        untouched = task.metrics(task.build_model(0), "test")["loss"]
        assert result["retrained"]["loss"] < untouched
        assert result["inherited"]["loss"] < untouched
        assert main(["evaluate", str(tmp_path / "run" / "retrained"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["loss"] == result["retrained"]["loss"]

    @pytest.mark.whole
    def test_sigkill_anywhere(self, llama, file, shipped, tmp_path) -> None:
        """Killed in training and twice in searching, the run ends with the log and the figures of an unbroken one."""
        config = read(shipped, changes(llama, file, tmp_path / "broken"))
        (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
        script = (
            "import sys, json, torch; torch.set_num_threads(1); from glora.runs.config import RunConfig;"
            "from glora.searching import SearchRun;"
            "SearchRun(RunConfig.from_dict(json.load(open(sys.argv[1]))), resume=True).all()"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        log = tmp_path / "broken" / "search" / "candidates.jsonl"
        reached = [
            lambda: (tmp_path / "broken" / "supernet" / "last.safetensors").is_file(),
            lambda: log.is_file() and log.read_text().count("\n") >= 2,
            lambda: log.is_file() and log.read_text().count("\n") >= 9,
            None,
        ]
        for milestone in reached:
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path / "config.json")], cwd=ROOT, env=environment
            )
            deadline = time.monotonic() + 600
            while milestone and process.poll() is None and not milestone() and time.monotonic() < deadline:
                time.sleep(0.005)
            if milestone:
                process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=600) in (0, -signal.SIGKILL)
            assert time.monotonic() < deadline
        broken = json.loads((tmp_path / "broken" / "result.json").read_text())
        del broken["digest"]
        whole = SearchRun(read(shipped, changes(llama, file, tmp_path / "whole"))).all()
        for result in (broken, whole):
            result["search"].pop("seconds")
        assert broken == whole
        assert log.read_text() == (tmp_path / "whole" / "search" / "candidates.jsonl").read_text()

    def test_a_task_that_cannot_be_judged_is_refused_before_any_work(self, tmp_path) -> None:
        config = RunConfig(
            task={"name": "glue", "dataset": "sst2", "model": "nowhere"},
            method={"name": "supernet", "parameters": 100},
            out=str(tmp_path / "run"),
        )
        with pytest.raises(ValueError, match="task Glue cannot be searched"):
            SearchRun(config)
        assert not (tmp_path / "run").exists()


def instruct_of(path: Path, changed: list[str]) -> Instruct:
    return Instruct(**read(path, changed).task_options)
