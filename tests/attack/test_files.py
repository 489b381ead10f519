"""Folders, locks and flipped bits, in both packages' twins of `_files` and in a run's checkpoints."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import glora
import glora._files
import rmt._files
from glora.runs.config import RunConfig
from glora.runs.folder import Run
from rmt.cli import main

SIZES = "--p 300 --n 250 --N 900 --mu 1.5 --mu-perp 1 --beta .6 --gamma-source 1 --gamma 1".split()
twins = pytest.mark.parametrize("files", [rmt._files, glora._files])


def test_the_twins_are_the_same():
    one, other = (
        Path(files.__file__).read_text().partition("from __future__")[2] for files in (rmt._files, glora._files)
    )
    assert one == other


@twins
def test_one_owner_at_a_time_and_a_dead_one_is_forgotten(files, tmp_path):
    code = f"import time, {files.__name__} as f\nlock = f.Lock({str(tmp_path)!r}).__enter__(); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=rf"is in use by process {process.pid} on "), files.Lock(tmp_path):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    (tmp_path / ".x.json.abcdefgh.tmp").write_text("left by a kill")
    with files.Lock(tmp_path):
        assert files.visible(tmp_path) == []
    assert not list(tmp_path.iterdir())


@twins
def test_a_folder_that_was_removed_meanwhile_is_noticed(files, tmp_path):
    folder = tmp_path / "run"
    with files.Lock(folder) as lock:
        lock.require()
        (folder / ".lock").unlink()
        folder.rmdir()
        files.write_json(folder / "late.json", {})
        with pytest.raises(OSError, match="was removed or replaced"):
            lock.require()


@twins
def test_every_flipped_byte_of_a_sealed_record_is_seen(files, tmp_path, rounds):
    record = {"name": "α", "values": [0.1, 2, None, True], "deep": {"x": 1e-9}}
    path = files.write_json(tmp_path / "x.json", files.sealed(record))
    assert files.unsealed(files.read_json(path), path) == record
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(20 * rounds):
        place, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            found = files.unsealed(files.read_json(path), path)
        except ValueError:
            continue
        # What is left is white space, or the key of the digest itself: the contents are all there.
        assert {key: found[key] for key in record} == record


@twins
def test_json_is_strict(files, tmp_path):
    assert files.to_json({"loss": float("nan"), "x": [float("inf")]}) == '{"loss": "nan", "x": ["inf"]}'
    (tmp_path / "x.json").write_text('{"loss": NaN}')
    with pytest.raises(ValueError, match="x.json' is not valid JSON"):
        files.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="x.json' is not valid JSON"):
        files.read_json(tmp_path / "x.json")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="pipe"):
        files.read_json(tmp_path / "fifo")


@pytest.fixture
def run(tmp_path):
    config = RunConfig(task={"name": "glue"}, method={"name": "lora"}, out=str(tmp_path / "run"))
    return Run.create(config).start()


def test_flipped_bytes_of_a_checkpoint_never_resume(run, rounds):
    tensors = {"model.w": torch.randn(5, 3), "adapter.0.step": torch.tensor(3.0)}
    run.save_checkpoint("last", tensors, {"step": 1})
    run.save_checkpoint("last", {**tensors, "model.w": tensors["model.w"] + 1}, {"step": 2})
    path = run.folder / "last.safetensors"
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(10 * rounds):
        place, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.warns(UserWarning, match="taken is the one before it, of step 1"):
            found, state = run.load_checkpoint("last")
        assert state == {"step": 1}
        assert torch.equal(found["model.w"], tensors["model.w"])
    (run.folder / "last.previous.safetensors").unlink()
    with pytest.raises(ValueError, match="damaged"):
        run.load_checkpoint("last")


def test_a_kill_between_two_checkpoints_keeps_the_older(run):
    run.save_checkpoint("last", {"model.w": torch.ones(2)}, {"step": 1})
    (run.folder / "last.safetensors").rename(run.folder / "last.previous.safetensors")
    assert run.load_checkpoint("last")[1] == {"step": 1}


def test_not_a_number_is_not_resumed_and_old_checkpoints_are_taken(run):
    path = run.folder / "last.safetensors"
    save_file({"model.w": torch.ones(2)}, path, metadata={"state": '{"step": 1}'})
    with pytest.warns(UserWarning, match="without a digest"):
        assert run.load_checkpoint("last")[1] == {"step": 1}
    run.save_checkpoint("best", {"model.w": torch.tensor([1.0, float("nan")])}, {"step": 1})
    with pytest.raises(ValueError, match=r"model.w is not finite"):
        run.load_checkpoint("best")


def test_an_adapter_file_says_what_it_said(tmp_path, rounds):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    glora.attach(model, glora.presets.lora(2, numerator=4))
    path = glora.save(model, tmp_path)
    whole, rng = path.read_bytes(), random.Random(0)
    fresh = torch.nn.Sequential(torch.nn.Linear(4, 3))
    fresh.load_state_dict({"0.weight": model[0].base.weight, "0.bias": model[0].base.bias})
    for _ in range(20 * rounds):
        place, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            glora.load(fresh, tmp_path)
        except ValueError:
            continue
        assert fresh[0].adapters["default"].config == model[0].adapters["default"].config
        glora.detach(fresh)
    path.write_bytes(whole.replace(b'"lora_scale": 2.0', b'"lora_scale": 9.0'))
    with pytest.raises(ValueError, match="changed by hand"):
        glora.load(fresh, tmp_path)
    path.write_bytes(whole)
    stored = next(tmp_path.glob("*.safetensors"))
    tensors = load_file(stored)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_killed_sweeps_end_with_their_workers_and_go_on(tmp_path, rounds):
    command = [
        sys.executable,
        "-m",
        "rmt.cli",
        "sweep",
        *SIZES,
        "--draws",
        "600",
        "--grid",
        "gamma=0.1:9:12",
        "--jobs",
        "2",
    ]
    folder, rng = tmp_path / "killed", random.Random(1)
    end = time.monotonic() + 240.0  # all attacks together end in 20 minutes
    for _ in range(max(1, rounds // 6)):
        if time.monotonic() > end:
            break
        process = subprocess.Popen(
            [*command, "--out", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (folder / "points.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.random())
        children = (
            [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
            if process.poll() is None
            else []
        )
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and any(_alive(child) for child in children):
            time.sleep(0.2)
        assert not any(_alive(child) for child in children)
    assert main(["sweep", *SIZES, "--draws", "600", "--grid", "gamma=0.1:9:12", "--out", str(folder)]) == 0
    assert main(["sweep", *SIZES, "--draws", "600", "--grid", "gamma=0.1:9:12", "--out", str(tmp_path / "whole")]) == 0
    assert (folder / "sweep.csv").read_bytes() == (tmp_path / "whole" / "sweep.csv").read_bytes()


def _alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
