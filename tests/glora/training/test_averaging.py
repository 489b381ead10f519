"""Averaged weights: what is averaged, what is evaluated and kept, and that a resumed run has the same ones."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import glora
from glora.runs.config import RunConfig
from glora.runs.folder import Run
from glora.runs.settings import TrainingSettings
from glora.training.averaging import Average
from glora.training.loop import train
from tests.glora.blobs import LONG, RESUMABLE, ROOT, SETTINGS, Blobs, make_run, prepared, weights

AVERAGED = replace(RESUMABLE, ema=0.9)


@pytest.mark.parametrize("alpha", ["scheduled", "joint"])
def test_closed_form(tmp_path: Path, alpha: str) -> None:
    """e₁ = w₁ and e_t = d e_{t−1} + (1 − d) w_t, for the adapter, the head and α."""
    task, seen = Blobs(), []
    settings = replace(SETTINGS, ema=0.8, keep="last", alpha=replace(SETTINGS.alpha, mode=alpha))
    model = prepared(task)
    run = make_run(tmp_path, settings)
    train(model, task, settings, run=run, before_step=lambda step: seen.append(weights(model)))
    last = run.load_checkpoint("last")
    assert last is not None
    own = {name: last[0].get(f"model.{name}", value) for name, value in weights(model).items()}
    expected = seen[1]
    for after in [*seen[2:], own]:
        expected = {name: 0.8 * value + 0.2 * after[name] for name, value in expected.items()}
    moved = {name for name in own if not torch.equal(own[name], seen[0][name])}
    assert any(name.endswith("A.value") for name in moved)
    assert any(name.startswith("head.") for name in moved)
    for name, value in weights(model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
        assert torch.equal(value, own[name]) == (name not in moved)


def test_zero_is_plain_training_and_averaging_changes_no_step() -> None:
    task = Blobs()
    plain, zero, tiny, averaged = (prepared(task) for _ in range(4))
    settings = replace(SETTINGS, keep="last")
    history = train(plain, task, settings).history
    train(zero, task, replace(settings, ema=0.0))
    train(tiny, task, replace(settings, ema=1e-12))
    losses = [line["loss"] for line in train(averaged, task, replace(settings, ema=0.9)).history if "loss" in line]
    assert losses == [line["loss"] for line in history if "loss" in line]
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(zero)[name])
        torch.testing.assert_close(weights(tiny)[name], value, rtol=1e-6, atol=1e-8)
    assert not torch.equal(
        weights(averaged)["head.adapters.default.weight"], weights(plain)["head.adapters.default.weight"]
    )


def test_evaluated_and_kept_are_the_averages(tmp_path: Path) -> None:
    task = Blobs()
    model = prepared(task)
    result = train(model, task, AVERAGED, run=make_run(tmp_path, AVERAGED))
    assert task.metrics(model, "validation")["accuracy"] == result.best
    stored = Run.open(tmp_path).load_checkpoint("best")
    assert stored is not None
    assert all(torch.equal(value, stored[0][name]) for name, value in weights(model).items() if name in stored[0])


@pytest.mark.parametrize(("stop", "keep"), [(2, "last"), (16, "last"), (21, "best")])
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path, stop: int, keep: str) -> None:
    task, settings = Blobs(), replace(AVERAGED, keep=keep)
    whole, broken, again = (prepared(task) for _ in range(3))
    train(whole, task, settings, run=make_run(tmp_path / "whole", settings))

    def interrupt(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(broken, task, settings, run=make_run(tmp_path / "broken", settings), before_step=interrupt)
    for _ in range(2):  # a run that has ended and is resumed stays what it is
        train(again, task, settings, run=make_run(tmp_path / "broken", settings, resume=True), resume=True)
        assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


KILLED = """
import sys
sys.path.insert(0, {root!r})
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from glora.training.loop import train
from tests.glora import blobs as t
task, settings = t.Blobs(), replace(t.LONG, ema=0.95, keep="last")
train(t.prepared(task), task, settings, run=t.make_run(Path({folder!r}), settings, resume=True), resume=True)
"""


@pytest.mark.whole
def test_sigkill_and_resume_give_the_same_averages(tmp_path: Path) -> None:
    code = KILLED.format(root=ROOT, folder=str(tmp_path / "broken"))
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "broken" / "last.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.03)
    process.kill()
    process.wait()
    task, settings = Blobs(), replace(LONG, ema=0.95, keep="last")
    resumed, whole = prepared(task), prepared(task)
    broken = make_run(tmp_path / "broken", settings, resume=True)
    killed_at = broken.load_checkpoint("last")
    assert killed_at is not None
    assert killed_at[1]["step"] < 180
    train(resumed, task, settings, run=broken, resume=True)
    train(whole, task, settings, run=make_run(tmp_path / "whole", settings))
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_only_trained_parameters_are_copied() -> None:
    model = prepared(Blobs())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    average = Average(trained, 0.9)
    assert list(average.tensors) == list(trained)
    assert sum(tensor.numel() for tensor in average.tensors.values()) < sum(p.numel() for p in model.parameters())
    assert not any(tensor.requires_grad for tensor in average.tensors.values())
    average.update()
    before = weights(model)
    with torch.no_grad():
        trained["head.adapters.default.weight"].add_(1)
    with pytest.raises(RuntimeError, match="stop"), average.applied():
        assert torch.equal(trained["head.adapters.default.weight"], before["head.adapters.default.weight"])
        raise RuntimeError("stop")
    assert torch.equal(trained["head.adapters.default.weight"], before["head.adapters.default.weight"] + 1)


@pytest.mark.parametrize("ema", [-0.1, 1.0, float("nan"), "0.9"])
def test_bad_decays(ema: object) -> None:
    with pytest.raises(ValueError, match="ema"):
        TrainingSettings(ema=ema)  # type: ignore[arg-type]


def test_a_run_of_full_fine_tuning_is_restored_with_its_averages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an adapter's folder the weights come out of the checkpoint, which holds both."""
    from glora.tuning import restore, tune

    task = Blobs()
    for module in (tune, restore):
        monkeypatch.setattr(module, "make_task", lambda name, options: task)
    settings = replace(SETTINGS, ema=0.9, keep="last")
    config = RunConfig(task={"name": "blobs"}, method={"name": "full"}, training=settings, out=str(tmp_path / "run"))
    tune.tune(config)
    restored, _ = restore.restore(Run.open(tmp_path / "run"))
    model = task.build_model(settings.seed)
    model.requires_grad_(True)
    train(model, task, settings)
    assert all(torch.equal(value, weights(restored)[name]) for name, value in weights(model).items())
    assert glora.model.state.get_state(restored) is None
