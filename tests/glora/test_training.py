"""The loop and Algorithm 1: above all what they must not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import glora
from glora.runs.config import RunConfig
from glora.runs.folder import Run
from glora.runs.settings import AlphaSettings, TrainingSettings
from glora.training.loop import TrainingDiverged, check, train


@dataclass(frozen=True)
class Blobs:
    """Two Gaussian clouds: a task without files. It keeps a diary of the batches it handed out."""

    size_: int = 60
    noise: float = 0.5
    poison: int | None = None  # the number of the batch whose loss is not finite
    diary: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    main_metric = "accuracy"
    greater_is_better = True
    heads = ("head",)

    def check(self) -> None: ...

    def build_model(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 8), nn.Tanh())
        return _Net(body)

    def size(self, split: str) -> int:
        return self.size_

    def batch(self, split: str, indices: Sequence[int], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        offset = {"train": 0, "validation": 1000, "test": 2000}.get(split, 0)
        self.diary.append((split, tuple(indices)))
        x = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(offset + i)) for i in indices])
        y = torch.tensor([i % 2 for i in indices])
        x = x + 2.0 * y[:, None]
        if generator is not None:
            x = x + self.noise * torch.randn(x.shape, generator=generator)
        return {"x": x, "y": y}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        poisoned = self.poison is not None and len(self.diary) >= self.poison
        return loss * float("nan") if poisoned else loss

    def weight(self, batch: dict[str, Tensor]) -> float:
        return len(batch["y"])

    @torch.no_grad()
    def metrics(self, model: nn.Module, split: str, *, batch_size: int = 64) -> dict[str, float]:
        model.eval()
        batch = self.batch(split, range(self.size(split)))
        correct = model(batch["x"]).argmax(1) == batch["y"]
        model.train()
        return {"accuracy": 100.0 * float(correct.float().mean())}


class _Net(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


SETTINGS = TrainingSettings(steps=24, batch_size=8, lr=1e-2, alpha=AlphaSettings(every=3, lr=1e-2), device="cpu")


def prepared(task: Blobs, **options: Any) -> nn.Module:
    model = task.build_model(0)
    config = glora.presets.alpha_lora(rank=2, target="body", modules_to_save=("head",), **options)
    glora.attach(model, config, generator=torch.Generator().manual_seed(0))
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("micro", [None, 8, 3, 1])
def test_micro_batches_do_not_matter(micro: int | None) -> None:
    task = Blobs(noise=0.0)
    models = []
    for size in (None, micro):
        model = prepared(task)
        model.body[2].p = 0.0
        train(model, task, replace(SETTINGS, steps=6, micro_batch_size=size))
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def make_run(folder: Path, settings: TrainingSettings, *, resume: bool = False) -> Run:
    config = RunConfig(task={"name": "blobs"}, method={"name": "alpha_lora"}, training=settings, out=str(folder))
    return Run.create(config, resume=resume).start()


RESUMABLE = replace(SETTINGS, steps=30, evaluate_every=5, save_every=2, log_every=4)


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


#: Where a fresh process finds this module and the package.
PATHS = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
LONG = replace(SETTINGS, steps=240, evaluate_every=60, save_every=10, log_every=4)

KILLED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
import torch
torch.set_num_threads(1)
import test_training as t
task = t.Blobs()
t.train(t.prepared(task), task, t.LONG, run=t.make_run(Path({folder!r}), t.LONG, resume=True), resume=True)
"""


def test_sigkill_and_resume_give_the_same_weights(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[bytes]:
        code = KILLED.format(paths=PATHS, folder=str(tmp_path / "broken"))
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
sys.path[:0] = {paths!r}
from pathlib import Path
import torch
torch.set_num_threads(1)
import test_training as t
run = t.make_run(Path({folder!r}), t.LONG, resume=True)
t.without_noise(run, killed_at={killed_at})
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
    script.write_text(SHARED_OUT.format(paths=PATHS, folder=str(folder), killed_at=killed_at))
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


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    task = Blobs()
    settings = replace(RESUMABLE, steps=200, patience=3)
    model = prepared(task)
    result = train(model, task, settings, run=make_run(tmp_path, settings))
    assert result.stopped_early
    assert result.steps == result.best_step + 15  # type: ignore[operator]
    assert task.metrics(model, "validation")["accuracy"] == result.best


def test_a_stopped_run_stays_stopped_when_resumed(tmp_path: Path) -> None:
    task = Blobs()
    settings = replace(RESUMABLE, steps=200, patience=3)
    first = train(prepared(task), task, settings, run=make_run(tmp_path, settings))
    second = train(prepared(task), task, settings, run=make_run(tmp_path, settings, resume=True), resume=True)
    assert second.steps == first.steps


def test_a_checkpoint_is_good_only_if_a_finite_loss_followed_it(tmp_path: Path) -> None:
    task = Blobs()
    settings = replace(RESUMABLE, lr=1e30, clip=0.0, save_every=1, evaluate_every=0)
    with pytest.raises(TrainingDiverged, match=r"in step (\d+) of") as caught:
        train(prepared(task), task, settings, run=make_run(tmp_path, settings))
    stored = Run.open(tmp_path).load_checkpoint("last")
    assert stored is not None
    assert f"the checkpoint of step {stored[1]['step']} may be bad: no finite loss" in str(caught.value)


def test_a_loss_that_is_not_finite_stops_with_a_diagnosis(tmp_path: Path) -> None:
    task = Blobs(poison=12)
    model = prepared(task)
    with pytest.raises(TrainingDiverged, match=r"loss is nan in step \d+ of .*the checkpoint of step \d+ is good"):
        settings = replace(RESUMABLE, save_every=0)
        train(model, task, settings, run=make_run(tmp_path, settings))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    stored = Run.open(tmp_path).load_checkpoint("last")
    assert stored is not None
    assert all(torch.isfinite(tensor).all() for tensor in stored[0].values())


def test_the_callers_random_numbers_are_left_alone() -> None:
    task = Blobs()
    model = prepared(task)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(model, task, replace(SETTINGS, steps=3))
    assert torch.equal(torch.rand(2), expected)


def test_bfloat16_autocast_trains_float32_adapters() -> None:
    task = Blobs()
    model = prepared(task)
    result = train(model, task, replace(SETTINGS, precision="bfloat16"))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert result.best is not None
    assert result.best > 65


def test_check_finds_what_training_refuses() -> None:
    task = Blobs()
    check(prepared(task), task, SETTINGS)
    assert not task.diary
    with pytest.raises(ValueError, match=r"training.alpha.every=30, but the run has only 24 adapter steps"):
        check(prepared(task), task, replace(SETTINGS, alpha=AlphaSettings(every=30)))
    with pytest.raises(ValueError, match=r"alpha.fraction=0.001 of 60 training examples"):
        check(prepared(task), task, replace(SETTINGS, alpha=AlphaSettings(fraction=0.001)))


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({"steps": 1}, r"steps=1 leaves no adapter step once α's passes \(alpha.every=1\) are taken off"),
        ({"epochs": 0.2}, r"epochs=0.2 of 60 examples leaves no adapter step once"),
        ({"epochs": 0.1}, r"epochs=0.1 of 60 examples is less than one batch of batch_size=8"),
    ],
)
def test_too_short_for_a_step(length: dict[str, float], message: str) -> None:
    task = Blobs()
    settings = replace(SETTINGS, **{"steps": None, **length}, alpha=AlphaSettings(every=1))
    with pytest.raises(ValueError, match=message):
        check(prepared(task), task, settings)


def test_nothing_to_train() -> None:
    task = Blobs()
    model = task.build_model(0).requires_grad_(False)
    with pytest.raises(ValueError, match="call glora.attach before train"):
        train(model, task, SETTINGS)


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
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1}
