"""Algorithm 1 as a callback of transformers' Trainer."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

import glora
from glora.integrations.hf_trainer import AlphaCallback, split_dataset
from glora.runs.settings import AlphaSettings
from glora.tasks.text.glue import Glue
from glora.training.alpha import SHARES, alpha_parameters
from glora.tuning.methods import apply
from paper_checks.demo.tiny_text import save_model, save_reviews

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


def setup(
    task: Glue,
    folder: Path,
    steps: int,
    *,
    batch_size: int = 8,
    dropout: bool = True,
    share: str = "row",
    **arguments: Any,
) -> tuple[Trainer, AlphaCallback, list[list[int]]]:
    diary: list[list[int]] = []

    def collate(indices: Any) -> dict[str, Any]:
        diary.append(list(indices))
        return dict(task.batch("train", indices))

    model = task.build_model(0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and not dropout:
            module.p = 0.0
    apply(model, "alpha_lora", {"rank": 2, "target": "query|value", "share": share}, task.heads)
    adapter_part, alpha_part = split_dataset(Examples(task.size("train")), SETTINGS, seed=0)
    callback = AlphaCallback(model, alpha_part, collate, SETTINGS, batch_size=8)
    args = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=batch_size, learning_rate=1e-2, use_cpu=True,
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


@pytest.mark.parametrize("share", SHARES)
def test_resuming_is_exact(task: Glue, tmp_path: Path, share: str) -> None:
    whole, _, _ = setup(task, tmp_path, 7, share=share, save_strategy="steps", save_steps=4)
    whole.train()
    again, callback, _ = setup(task, tmp_path, 7, share=share, save_strategy="no")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert [step for step, _ in callback.losses] == [6]
    assert len(callback.scales) == {"row": 4, "qkv": 2, "matrix": 4, "layer": 2, "global": 1}[share]
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


def worker(rank: int, port: int, folder: str, resume: bool) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    task = Glue(dataset="sst2", model=f"{folder}/model", folder=f"{folder}/data")
    trainer, callback, _ = setup(
        task,
        Path(folder) / "out",
        6,  # all within the first epoch, whose last batch two processes fill up
        batch_size=4,
        dropout=False,
        optim="sgd",
        average_tokens_across_devices=False,  # the Trainer would double the loss of a model that counts examples
        ddp_find_unused_parameters=False,
        save_strategy="steps",
        save_steps=4,
        ddp_backend="gloo",
    )
    checkpoint = f"{folder}/out/checkpoint-4"
    trainer.train(resume_from_checkpoint=checkpoint if resume else None)
    assert [step for step, _ in callback.losses] == ([6] if resume else [3, 6])
    torch.save([dict(numbers(trainer)), callback.losses], f"{folder}/{'resumed' if resume else 'whole'}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.whole
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """Global batches of 8 by two processes of 4: the same α in both to the last bit, and that of one process. The
    adapter's optimizer is SGD, since Adam makes large steps of what rounding leaves of a gradient."""
    save_model(tmp_path / "model")
    save_reviews(tmp_path / "data")
    for resume in (False, True):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        torch.multiprocessing.spawn(worker, (port, str(tmp_path), resume), nprocs=2)
    (one, losses), (other, _), (resumed, _) = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole-0", "whole-1", "resumed-0")
    )
    for name, parameter in one.items():
        torch.testing.assert_close(parameter, other[name], rtol=0, atol=0)
        torch.testing.assert_close(parameter, resumed[name], rtol=0, atol=0)
    task = Glue(dataset="sst2", model=str(tmp_path / "model"), folder=str(tmp_path / "data"))
    alone, callback, _ = setup(task, tmp_path / "alone", 6, dropout=False, optim="sgd", save_strategy="no")
    alone.train()
    for (step, loss), (same, expected) in zip(losses, callback.losses, strict=True):
        assert step == same
        assert loss == pytest.approx(expected, rel=1e-4)
    for name, parameter in numbers(alone).items():
        torch.testing.assert_close(one[name], parameter, rtol=1e-3, atol=1e-4)


def test_sharded_models_are_refused(task: Glue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, callback, _ = setup(task, tmp_path, 3, save_strategy="no")
    monkeypatch.setattr(
        "glora.integrations.hf_trainer.AcceleratorState",
        lambda: SimpleNamespace(distributed_type=SimpleNamespace(value="FSDP")),
    )
    with pytest.raises(ValueError, match="needs the whole model in each process, got distribution FSDP; use DDP"):
        callback.on_train_begin(None, None, None)  # type: ignore[arg-type]
