"""Algorithm 1 as a callback of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

import glora
from glora.schedule import alpha_parameters
from glora.settings import AlphaSettings
from glora.tasks.glue import Glue
from glora.trainer import AlphaCallback, split_dataset
from paper_checks.glora.tiny_text import save_model, save_reviews

SETTINGS = AlphaSettings(every=3, lr=1e-2)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Glue:
    folder = tmp_path_factory.mktemp("trainer")
    return Glue(dataset="sst2", model=str(save_model(folder / "model")), folder=str(save_reviews(folder / "data")))


class Examples(torch.utils.data.Dataset[int]):
    """The numbers of the training examples; the collator looks them up, and keeps a diary."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if index >= self.size:
            raise IndexError
        return index


def setup(task: Glue, folder: Path, steps: int, **arguments: Any) -> tuple[Trainer, AlphaCallback, list[list[int]]]:
    diary: list[list[int]] = []

    def collate(indices: Any) -> dict[str, Any]:
        diary.append(list(indices))
        return dict(task.batch("train", indices))

    model = task.build_model(0)
    config = glora.presets.alpha_lora(rank=2, target="query|value", modules_to_save=task.heads)
    glora.attach(model, config, generator=torch.Generator().manual_seed(0))
    adapter_part, alpha_part = split_dataset(Examples(task.size("train")), SETTINGS, seed=0)
    callback = AlphaCallback(model, alpha_part, collate, SETTINGS, batch_size=8)
    args = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=8, learning_rate=1e-2, use_cpu=True,
        report_to="none", remove_unused_columns=False, disable_tqdm=True, seed=1, lr_scheduler_type="constant",
        dataloader_pin_memory=False, **arguments,
    )  # fmt: skip
    trainer = Trainer(model=model, args=args, train_dataset=adapter_part, data_collator=collate, callbacks=[callback])
    return trainer, callback, diary


def numbers(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def test_alpha_and_adapter_move_apart(task: Glue, tmp_path: Path) -> None:
    trainer, callback, diary = setup(task, tmp_path, 7, save_strategy="no")
    before = numbers(trainer)
    scales = set(callback.scales)
    moves: list[set[str]] = []
    real = callback.schedule.step

    def step(fill: Any) -> float:
        start = numbers(trainer)
        loss = real(fill)
        moves.append({name for name, p in numbers(trainer).items() if not torch.equal(p, start[name])})
        return loss

    callback.schedule.step = step  # type: ignore[method-assign]
    trainer.train()
    assert moves == [scales, scales]  # steps 3 and 6; nothing else moved with them
    after = numbers(trainer)
    assert any("B.left" in name and not torch.equal(after[name], before[name]) for name in after)
    assert not alpha_parameters(trainer.model)  # frozen again
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in callback.scales.values()}
    alpha, adapter = set(), set()
    alpha_examples = set(callback.dataset.indices)  # type: ignore[attr-defined]
    for batch in diary:
        (alpha if set(batch) <= alpha_examples else adapter).update(batch)
    assert alpha
    assert not alpha & adapter


def test_resuming_is_exact(task: Glue, tmp_path: Path) -> None:
    whole, _, _ = setup(task, tmp_path / "whole", 10, save_strategy="no")
    whole.train()
    first, _, _ = setup(task, tmp_path / "broken", 10, save_strategy="steps", save_steps=4)
    first.train()
    again, callback, _ = setup(task, tmp_path / "broken", 10, save_strategy="steps", save_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-4"))
    assert [step for step, _ in callback.losses] == [6, 9]
    for name, parameter in numbers(whole).items():
        torch.testing.assert_close(numbers(again)[name], parameter, rtol=0, atol=0)


def test_errors(task: Glue, tmp_path: Path) -> None:
    model = task.build_model(0)
    glora.attach(model, glora.presets.lora(rank=2))
    with pytest.raises(ValueError, match=r"attach glora.presets.alpha_lora first"):
        AlphaCallback(model, Examples(3), list)
    glora.detach(model)
    glora.attach(model, glora.presets.alpha_lora(rank=2))
    with pytest.raises(ValueError, match="needs alpha.mode='scheduled', got 'joint'"):
        AlphaCallback(model, Examples(3), list, AlphaSettings(mode="joint"))
    with pytest.raises(ValueError, match="no examples for α"):
        AlphaCallback(model, Examples(0), list)
    trainer, _, _ = setup(task, tmp_path, 6, save_strategy="steps", save_steps=4)
    trainer.train()
    (tmp_path / "checkpoint-4" / "alpha.safetensors").unlink()
    again, _, _ = setup(task, tmp_path, 6, save_strategy="no")
    with pytest.raises(ValueError, match="cannot resume"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
