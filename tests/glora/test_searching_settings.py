"""What is wrong with a search's file is said before any work, in a sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate")

from accelerate import PartialState

import glora.searching
import glora.tuning.restore
import glora.tuning.tune
from glora.cli.commands import main
from glora.runs.config import RunConfig
from glora.runs.folder import Run
from glora.runs.settings import TrainingSettings
from glora.searching import SearchRun
from tests.glora.toy import Points


class Watched(Points):
    """The toy points with all splits; remembers whether it was worked on."""

    def __init__(self) -> None:
        super().__init__(splits=("train", "validation", "train+validation", "test"))
        self.calls: list[str] = []

    def check(self) -> None:
        self.calls.append("check")

    def build_model(self, seed: int) -> Any:
        self.calls.append("build_model")
        return super().build_model(seed)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    task = Watched()
    for module in (glora.searching, glora.tuning.tune, glora.tuning.restore):
        monkeypatch.setattr(module, "make_task", lambda name, options: task)
    return task


def config(out: Path, **changes: Any) -> RunConfig:
    method = {
        "name": "supernet", "rank": 2, "parameters": 100, "tolerance": 0.3, "engine": {"name": "random", "total": 3},
        "retrain": {"steps": 2}, **changes,
    }  # fmt: skip
    training = TrainingSettings(steps=3, batch_size=16, save_every=1, device="cpu")
    return RunConfig(task={"name": "toy"}, method=method, training=training, out=str(out))


def test_it_runs(watched: Watched, tmp_path: Path) -> None:
    result = SearchRun(config(tmp_path / "run")).all()
    assert result["search"]["candidates"] == 3
    assert (tmp_path / "run" / "result.json").is_file()
    # A supernet is judged by its search; evaluated at the end of training was the subnet drawn last.
    assert not any("validation" in line for line in Run.open(tmp_path / "run" / "supernet").metrics)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": {"name": "random", "speed": 3}}, "speed"),
        ({"engine": {"name": "evolution", "population": 10}}, "at most population"),
        ({"engine": {"name": "random", "seed": -1}}, "seed"),
        ({"engine": {"name": "random", "seed": "a"}}, "seed"),
        ({"engine": "evolution"}, "engine must be a table"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "a"}, "batch_size"),
        ({"parameters": "290k"}, "parameters"),
        ({"tolerance": "5%"}, "tolerance"),
        ({"rank": 0}, "rank"),
        ({"draws": "a"}, "draws"),
        ({"structures": 3}, "structures must be a table"),
        ({"structures": {"A": 3}}, "must be a list of"),
        ({"structures": {"A": "none"}}, "must be a list of"),
        ({"retrain": 5}, "retrain must be a table"),
        ({"retrain": {"epochs": 1, "steps": 2}}, "not both"),
        ({"retrain": {"learning": 1}}, "learning"),
    ],
)
def test_options_are_checked_before_data_and_model(
    watched: Watched, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SearchRun(config(tmp_path / "run", **changes))
    assert watched.calls == []
    assert not (tmp_path / "run").exists()


def test_a_missing_library_is_found_before_any_work(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.soo.nonconvex.ga", None)
    with pytest.raises(ValueError, match="needs pymoo"):
        SearchRun(config(tmp_path / "run", engine={"name": "pymoo"}))
    assert watched.calls == []


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": 10**7},
        # Between two sizes of the space, so that its bounds alone do not tell.
        {"parameters": 7, "tolerance": 0.0, "structures": {"A": ["none"], "C": ["none"], "D": ["none"], "E": ["none"]}},
        {"target": 3},
    ],
)
def test_the_budget_and_the_space_are_checked_before_training(
    watched: Watched, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"widen the budget|fits no subnet|structures|target"):
        SearchRun(config(tmp_path / "run", **changes)).all()
    assert not (tmp_path / "run").exists()  # so that the corrected file finds its folder free


def test_several_processes_are_refused_at_once(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two processes once stopped at the other's folder, and the other waited for it forever."""
    monkeypatch.setattr(PartialState(cpu=True), "num_processes", 2)  # the state is shared by all instances
    with pytest.raises(ValueError, match="in one process, not in 2"):
        SearchRun(config(tmp_path / "run"))
    assert watched.calls == []
    assert not (tmp_path / "run").exists()


def test_the_folder_of_a_search_stands_for_its_final_training(watched: Watched, tmp_path: Path) -> None:
    run = SearchRun(config(tmp_path / "run"))
    with pytest.raises(ValueError, match="not retrained its subnet yet"):
        glora.tuning.restore.restore(Run(tmp_path / "run", run.config))
    run.all()
    model, retrained = (
        glora.tuning.restore.restore(Run.open(folder))[0].state_dict()
        for folder in (tmp_path / "run", run.folder / "retrained")
    )
    assert len(model) > 6  # the adapter is there
    assert all(torch.equal(model[name], tensor) for name, tensor in retrained.items())


def test_tune_points_to_search(watched: Watched, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do it with glora search"):
        glora.tuning.tune.tune(config(tmp_path / "run"))
    assert watched.calls == []


BASE = '[task]\nname = "vtab"\nfolder = "nowhere"\nmodel = "x"\n[method]\nname = "supernet"\nparameters = 100\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + 'engine = "evolution"\n', "engine must be a table"),
        (BASE + "retrain = 5\n", "retrain must be a table"),
        (BASE + 'tolerance = "5%"\n', "tolerance"),
        (BASE.replace("100", '"290k"'), "parameters"),
        (BASE + 'draws = "a"\n', "draws"),
        (BASE.replace('"nowhere"', "3"), "folder must be a text"),
        (BASE.replace('model = "x"', 'model = "x"\nshifts = "a"'), "shifts must be a table"),
        (BASE.replace('model = "x"', 'model = "x"\naugment = "no"'), "augment must be true or false"),
        (BASE, "no such folder"),
    ],
)
def test_the_command_says_it_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    assert main(["search", str(path), "--set", f'out="{tmp_path / "run"}"']) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
