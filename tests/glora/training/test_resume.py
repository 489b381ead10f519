"""A training that is interrupted or killed ends as an unbroken one, in one process or in two."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from glora.runs.folder import Run
from glora.training.loop import train
from tests.glora.blobs import LONG, RESUMABLE, ROOT, Blobs, make_run, prepared


class _Interrupted(Exception):
    pass


@pytest.mark.parametrize(("stop", "save_every"), [(1, 2), (7, 2), (16, 2), (21, 0), (13, 200)])
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path, stop: int, save_every: int) -> None:
    task = Blobs()
    whole = prepared(task)
    # The last case is killed before its first checkpoint and starts anew.
    settings = replace(RESUMABLE, save_every=save_every, evaluate_every=0 if save_every == 200 else 5)
    result = train(whole, task, settings, run=make_run(tmp_path / "whole", settings))

    def interrupt(step: int) -> None:
        if step == stop:
            raise _Interrupted

    with pytest.raises(_Interrupted):
        train(prepared(task), task, settings, run=make_run(tmp_path / "broken", settings), before_step=interrupt)
    again = prepared(task)
    run = make_run(tmp_path / "broken", settings, resume=True)
    resumed = train(again, task, settings, run=run, resume=True)
    for (name, one), other in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert resumed.history == result.history
    assert (resumed.best, resumed.best_step, resumed.passes) == (result.best, result.best_step, result.passes)


KILLED = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import torch
torch.set_num_threads(1)
from glora.training.loop import train
from tests.glora import blobs as t
task = t.Blobs()
train(t.prepared(task), task, t.LONG, run=t.make_run(Path({folder!r}), t.LONG, resume=True), resume=True)
"""


def test_sigkill_and_resume_give_the_same_weights(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[bytes]:
        code = KILLED.format(root=ROOT, folder=str(tmp_path / "broken"))
        return subprocess.Popen([sys.executable, "-c", code])

    broken = start()
    while not (tmp_path / "broken" / "last.safetensors").exists():
        assert broken.poll() is None
        time.sleep(0.01)
    time.sleep(0.03)
    broken.kill()
    broken.wait()
    run = Run.open(tmp_path / "broken")
    killed_at = run.load_checkpoint("last")
    assert killed_at is not None
    assert killed_at[1]["step"] < 180
    assert start().wait() == 0

    task = Blobs()
    whole = make_run(tmp_path / "whole", LONG)
    train(prepared(task), task, LONG, run=whole)
    (one, state), (other, other_state) = (each.load_checkpoint("last") or ({}, {}) for each in (whole, run))
    assert state == other_state
    assert state["step"] == 180  # 240 batches, a quarter of them α's
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert whole.metrics == run.metrics


SHARED_OUT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.glora.blobs import LONG, make_run
from tests.glora.training.test_resume import without_noise
run = make_run(Path({folder!r}), LONG, resume=True)
without_noise(run, killed_at={killed_at})
if {killed_at}:
    raise SystemExit("not killed")
"""


class Killed(RuntimeError):
    pass


def without_noise(run: Run, killed_at: int = 0) -> nn.Module:
    def before_step(step: int) -> None:
        if step == killed_at:
            raise Killed

    task = Blobs(noise=0.0)
    model = prepared(task)
    model.body[2].p = 0.0
    train(model, task, replace(LONG, steps=24), run=run, resume=True, before_step=before_step)
    return model


def in_two_processes(folder: Path, killed_at: int = 0) -> subprocess.CompletedProcess[str]:
    script = folder.with_suffix(".py")
    script.write_text(SHARED_OUT.format(root=ROOT, folder=str(folder), killed_at=killed_at))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    return subprocess.run(launch, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """A run that is killed and continued, too."""
    killed = in_two_processes(tmp_path / "two", killed_at=14)
    assert "Killed" in killed.stderr
    seen = Run.open(tmp_path / "two").load_checkpoint("last")
    assert seen is not None
    assert 0 < seen[1]["step"] < 14
    done = in_two_processes(tmp_path / "two")
    assert done.returncode == 0, done.stderr[-2000:]
    one = without_noise(make_run(tmp_path / "one", LONG))
    stored = Run.open(tmp_path / "two").load_checkpoint("best")
    assert stored is not None
    for name, parameter in one.named_parameters():
        if name in stored[0]:
            torch.testing.assert_close(stored[0][name], parameter.detach(), rtol=1e-4, atol=1e-6)
    assert len(Run.open(tmp_path / "two").metrics) == len(Run.open(tmp_path / "one").metrics)


def test_a_stopped_run_stays_stopped_when_resumed(tmp_path: Path) -> None:
    task = Blobs()
    settings = replace(RESUMABLE, steps=200, patience=3)
    first = train(prepared(task), task, settings, run=make_run(tmp_path, settings))
    second = train(prepared(task), task, settings, run=make_run(tmp_path, settings, resume=True), resume=True)
    assert second.steps == first.steps
