"""The loop and Algorithm 1: above all what they must not do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glora.runs.folder import Run
from glora.runs.settings import AlphaSettings
from glora.training.loop import TrainingDiverged, check, train
from tests.glora.blobs import RESUMABLE, SETTINGS, Blobs, make_run, prepared


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


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    task = Blobs()
    settings = replace(RESUMABLE, steps=200, patience=3)
    model = prepared(task)
    result = train(model, task, settings, run=make_run(tmp_path, settings))
    assert result.stopped_early
    assert result.steps == result.best_step + 15  # type: ignore[operator]
    assert task.metrics(model, "validation")["accuracy"] == result.best


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


def test_nothing_to_train() -> None:
    task = Blobs()
    model = task.build_model(0).requires_grad_(False)
    with pytest.raises(ValueError, match="call glora.attach before train"):
        train(model, task, SETTINGS)
