"""Runs and searches measure their steps once, on their first batch, and keep them."""

# ruff: noqa: E402

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

for module in ("accelerate", "safetensors"):
    pytest.importorskip(module)

from glora.runs.config import RunConfig
from glora.runs.folder import Run
from glora.searching import SearchRun
from glora.tuning.inspect import inspect
from glora.tuning.tune import tune
from tests.glora.fixtures.v1.scenes import Killed, Task, at, config


def run_of(name: str, **method: Any) -> RunConfig:
    values = config(name)
    return RunConfig.from_dict({**values, "method": {**values["method"], **method}})


def adapter(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter" / "adapter.json").read_text())


def test_a_killed_run_ends_as_an_unbroken_one_and_never_measures_again(tmp_path: Path) -> None:
    with at(tmp_path, Task()):
        whole = tune(run_of("run_custom"))
        assert whole["steps"] == 16
    steps = json.loads((tmp_path / "run_custom" / "steps.json").read_text())
    assert adapter(tmp_path / "run_custom")["steps"] == steps["layers"]
    shutil.move(tmp_path / "run_custom", tmp_path / "whole")
    with at(tmp_path, Task("train", 9)), pytest.raises(Killed):
        tune(run_of("run_custom"))
    noted = tmp_path / "run_custom" / "steps.json"
    assert json.loads(noted.read_text()) == steps
    noted.write_text(json.dumps({**steps, "batch": "not measured again"}))
    with at(tmp_path, Task()):
        tune(run_of("run_custom"), resume=True)
    assert "not measured again" in noted.read_text()
    one, other = adapter(tmp_path / "whole"), adapter(tmp_path / "run_custom")
    assert (one["sha256"], one["steps"]) == (other["sha256"], other["steps"])
    shown = inspect(str(tmp_path / "run_custom"))
    assert shown["steps"]["batch"] == "not measured again"
    assert "first A" in shown["steps"]
    assert shown["adapter"]["steps"]["first B"] == f"{steps['layers']['first']['B']:.3g}"


@pytest.mark.parametrize(("method", "measured", "stepped"), [
    ({"steps": "raw"}, False, False), ({"steps": "data-free"}, False, True), ({}, True, True),
])  # fmt: skip
def test_what_a_run_asks_for(tmp_path: Path, method: dict[str, str], measured: bool, stepped: bool) -> None:
    with at(tmp_path, Task()):
        tune(run_of("run_custom", **method))
    folder = tmp_path / "run_custom"
    assert (folder / "steps.json").is_file() == measured
    assert bool(adapter(folder)["steps"]) == stepped
    assert json.loads((folder / "run.json").read_text())["version"] == 2


def test_alpha_lora_has_no_steps(tmp_path: Path) -> None:
    with at(tmp_path, Task()):
        tune(run_of("run_alpha"))
    assert adapter(tmp_path / "run_alpha")["steps"] == {}


def test_a_search_measures_for_its_supernet_and_again_for_the_subnet(tmp_path: Path) -> None:
    with at(tmp_path, Task()):
        whole = SearchRun(run_of("search_supernet")).all()
    folder = tmp_path / "search_supernet"
    assert json.loads((folder / "found.json").read_text())["steps"] == "balanced"
    supernet = json.loads((folder / "supernet" / "steps.json").read_text())
    assert "A.vector" in supernet["layers"]["first"]
    assert (folder / "retrained" / "steps.json").is_file()
    shutil.move(folder, tmp_path / "whole")
    with at(tmp_path, Task("train", 9)), pytest.raises(Killed):
        SearchRun(run_of("search_supernet")).all()
    with at(tmp_path, Task()):
        broken = SearchRun(run_of("search_supernet"), resume=True).all()
    for figures in (whole, broken):
        figures["search"].pop("seconds")
    assert broken == whole
    assert adapter(folder / "retrained")["sha256"] == adapter(tmp_path / "whole" / "retrained")["sha256"]


def test_a_run_of_version_1_is_read_as_raw(tmp_path: Path) -> None:
    run = Run(tmp_path, run_of("run_custom")).start()
    path = tmp_path / "run.json"
    stored = json.loads(path.read_text())
    del stored["digest"]  # version 1 had none
    assert run.version == stored.pop("version")
    path.write_text(json.dumps(stored))
    assert Run.open(tmp_path).config.method["steps"] == "raw"
    path.write_text(json.dumps({**stored, "version": 9}))
    with pytest.raises(ValueError, match="has version 9, this package reads up to 2"):
        Run.open(tmp_path)
