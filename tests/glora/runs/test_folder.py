"""The folder of a run: not overwritten, and damage is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.glora.blobs import SETTINGS, make_run

# -------------------------------------------------------------------------------------------------------- run folder


def test_a_run_folder_is_not_overwritten(tmp_path: Path) -> None:
    make_run(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="--resume"):
        make_run(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match=r"other values of training\.lr"):
        make_run(tmp_path, replace(SETTINGS, lr=0.5), resume=True)
    assert make_run(tmp_path, SETTINGS, resume=True).config.training == SETTINGS


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, SETTINGS)
    run.save_checkpoint("last", {"a": torch.ones(3)}, {"step": 1})
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"last.safetensors.*damaged"):
        run.load_checkpoint("last")


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    run = make_run(tmp_path, SETTINGS)
    run.log({"step": 1})
    run.log({"step": 2})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert [line["step"] for line in run.metrics] == [1, 2]
    run.rewind(1)
    assert run.metrics == [{"step": 1}]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
