"""A whole search in a folder, on scikit-learn's digits: from a tiny pretrained ViT to a reloaded adapter."""

# ruff: noqa: E402
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

for module in ("sklearn", "transformers", "accelerate", "PIL"):
    pytest.importorskip(module)

import glora
from glora.cli.commands import main
from glora.runs.config import RunConfig, read
from glora.runs.settings import TrainingSettings
from glora.searching import SearchRun
from glora.tasks.vision.images import DataProblems
from paper_checks.demo.vision import BUDGET, digits_config, digits_story, pretrain, write_digits

ROOT = Path(glora.__file__).parent.parent


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, digits_story(folder)


@pytest.fixture
def tiny(story):
    """The same data and model, with as few steps and candidates as can be."""
    folder, _ = story

    def config(out: Path, **changes) -> RunConfig:
        method = {
            "name": "supernet", "rank": 2, "parameters": 1000,
            "engine": {"name": "evolution", "generations": 2, "population": 6, "parents": 2, "mutations": 3,
                       "crossovers": 3},
            "retrain": {"steps": 4},
        }  # fmt: skip
        training = TrainingSettings(steps=6, batch_size=16, lr=1e-2, save_every=2, device="cpu")
        task = digits_config(out, folder / "5-9", folder / "vit").task
        return RunConfig(**{"task": task, "method": method, "training": training, "out": str(out), **changes})

    return config


class TestStory:
    def test_searched_glora_beats_the_linear_probe(self, story):
        _, figures = story
        assert figures["source"] > 90
        assert figures["retrained"] > figures["linear probe"] + 10

    def test_merged_and_reloaded_are_the_same_model(self, story):
        _, figures = story
        assert figures["reloaded"] == figures["retrained"] == figures["merged"]

    def test_budget_and_files(self, story):
        folder, figures = story
        assert 0.95 * BUDGET <= figures["report"].adapter_parameters <= BUDGET
        assert figures["search"]["parameters"] == figures["report"].adapter_parameters
        config = glora.GLoRAConfig.from_dict(json.loads((folder / "run" / "found.json").read_text()))
        assert config.modules_to_save == ("head",)
        assert sorted(p.name for p in (folder / "run").iterdir()) == [
            "found.json", "result.json", "retrained", "run.json", "search", "supernet",
        ]  # fmt: skip

    def test_retrained_folder_is_a_run(self, story, capsys):
        folder, figures = story
        assert main(["evaluate", str(folder / "run" / "retrained"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["accuracy"] == figures["retrained"]


def test_demo_section(story, monkeypatch):
    from paper_checks.demo import vision

    monkeypatch.setattr(vision, "digits_story", lambda folder: story[1])
    section = vision.section()
    assert section.anchor == "vision"
    assert section.body.count("<img") == 1
    assert f"{story[1]['search']['candidates']} subnets" in section.body


class TestRun:
    def test_deterministic_and_done_once(self, tiny, tmp_path):
        one, two = (SearchRun(tiny(tmp_path / name)).all() for name in ("one", "two"))
        for result in (one, two):
            result["search"].pop("seconds")
        assert one == two
        found = [(tmp_path / name / "found.json").read_bytes() for name in ("one", "two")]
        assert found[0] == found[1]
        again = SearchRun(tiny(tmp_path / "one"), resume=True).all()
        again["search"].pop("seconds")
        assert again == one
        with pytest.raises(ValueError, match="holds a run already"):
            SearchRun(tiny(tmp_path / "one"))

    def test_the_search_reads_no_test_image(self, tiny, tmp_path, story):
        """Supernet and search finish on a copy of the data that has no test split."""
        import shutil

        folder, _ = story
        copy = tmp_path / "data"
        shutil.copytree(folder / "5-9", copy)
        shutil.rmtree(copy / "images" / "test")
        (copy / "test.txt").unlink()
        config = tiny(tmp_path / "run", task={**tiny(tmp_path).task, "folder": str(copy)})
        run = SearchRun(config)
        whole = SearchRun(tiny(tmp_path / "whole"))
        found, same = (one.search(one.supernet()) for one in (run, whole))
        assert np.array_equal(found.best.genome, same.best.genome)
        with pytest.raises(DataProblems, match="test"):
            run.all()

    @pytest.mark.whole
    def test_sigkill_anywhere(self, tiny, tmp_path):
        """Killed in training and in searching, the run ends with the figures of an unbroken one."""
        config = tiny(tmp_path / "broken")
        (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
        script = (
            "import sys, json, torch; torch.set_num_threads(1); from glora.runs.config import RunConfig;"
            "from glora.searching import SearchRun;"
            "SearchRun(RunConfig.from_dict(json.load(open(sys.argv[1]))), resume=True).all()"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        milestones = ["supernet/last.safetensors", "search/candidates.jsonl"]
        for milestone in [*milestones, None]:
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path / "config.json")], cwd=ROOT, env=environment
            )
            deadline = time.monotonic() + 120
            while milestone and not (tmp_path / "broken" / milestone).is_file():
                assert process.poll() is None or (tmp_path / "broken" / milestone).is_file()
                assert time.monotonic() < deadline
                time.sleep(0.002)
            if milestone:
                process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=120) in (0, -signal.SIGKILL)
        broken = json.loads((tmp_path / "broken" / "result.json").read_text())
        del broken["digest"]
        whole = SearchRun(tiny(tmp_path / "whole")).all()
        for result in (broken, whole):
            result["search"].pop("seconds")
        assert broken == whole

    @pytest.mark.parametrize("engine", [{"name": "random", "total": 5}, {"name": "knapsack", "design": 6, "rounds": 1}])
    def test_other_engines(self, tiny, tmp_path, engine):
        method = {**tiny(tmp_path).method, "engine": engine, "sampling": "sandwich"}
        result = SearchRun(tiny(tmp_path / "run", method=method, test=False)).all()
        assert result["inherited"] is result["retrained"] is None
        assert 950 <= result["search"]["parameters"] <= 1000

    def test_nan_loss_stops_with_a_diagnosis(self, tiny, tmp_path):
        training = TrainingSettings(steps=6, batch_size=16, lr=1e30, clip=0.0, save_every=1, device="cpu")
        with pytest.raises(RuntimeError, match=r"Try a smaller lr"):
            SearchRun(tiny(tmp_path / "run", training=training)).all()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"parameters": 10**7}, "fits no subnet"),
            ({"engine": {"name": "annealing"}}, "engine.name"),
            ({"engine": {"name": "random", "speed": 3}}, "speed"),
            ({"sampling": "greedy"}, "sampling"),
            ({"tolerance": 2}, "tolerance"),
            ({"budget": 3}, "no option budget"),
            ({"retrain": {"learning": 1}}, "learning"),
            ({"name": "lora"}, "glora tune"),
        ],
    )
    def test_bad_settings(self, tiny, tmp_path, changes, message):
        config = tiny(tmp_path / "run", method={**tiny(tmp_path).method, **changes})
        with pytest.raises(ValueError, match=message):
            SearchRun(config).all()
        assert not (tmp_path / "run").exists()


class TestCommand:
    @pytest.mark.parametrize("name", ["glora_vtab", "glora_vtab_cpu"])
    def test_shipped_files(self, story, tmp_path, capsys, name):
        folder, _ = story
        path = ROOT / "configs" / f"{name}.toml"
        assert SearchRun(read(path)).method.rank == 4
        changes = {
            "task.folder": f'"{folder / "5-9"}"', "task.model": f'"{folder / "vit"}"', "task.side": 16,
            "method.rank": 2, "method.parameters": 1000, "training.epochs": 1, "method.retrain.epochs": 1,
            "training.device": '"cpu"', "training.precision": '"float32"', "out": f'"{tmp_path / name}"',
            "method.engine.generations": 1, "method.engine.population": 4, "method.engine.mutations": 2,
            "method.engine.crossovers": 2, "method.engine.parents": 2,
        }  # fmt: skip
        arguments = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
        assert main(["search", str(path), *arguments]) == 0
        text = capsys.readouterr().out
        assert "8 candidates" in text
        assert "retrained: accuracy" in text

    def test_errors_are_sentences(self, tmp_path, capsys):
        path = tmp_path / "bad.toml"
        path.write_text('[task]\nname = "vtab"\nfolder = "nowhere"\nmodel = "x"\n[method]\nname = "supernet"\n')
        assert main(["search", str(path)]) == 2
        assert "needs parameters" in capsys.readouterr().err


def test_a_scale_of_the_found_subnet_trains_with_the_rest_unless_asked(tiny, tmp_path):
    def alpha(**retrain):
        found = SearchRun(tiny(tmp_path, method={**tiny(tmp_path).method, "retrain": retrain})).retraining.alpha
        return found.mode, found.lr

    assert alpha() == alpha(alpha={"decay": 0.1}) == ("joint", 1e-2)
    assert alpha(lr=0.5, alpha={"lr": 0.1}) == ("joint", 0.1)
    assert alpha(alpha={"mode": "scheduled"}) == ("scheduled", 5e-3)


def test_pretraining_is_reproducible(tmp_path):
    data = write_digits(tmp_path / "data", classes=range(5))
    state = torch.get_rng_state()
    accuracies = [pretrain(tmp_path / name, data, epochs=1) for name in ("one", "two")]
    assert accuracies[0] == accuracies[1]
    assert torch.equal(state, torch.get_rng_state())
