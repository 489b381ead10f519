"""Algorithm 1's schedule: who moves when, and what shares a scale."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import glora
from glora.runs.settings import AlphaSettings
from glora.training.alpha import AlphaSchedule, alpha_parameters, share_alpha
from glora.training.loop import train
from tests.glora.blobs import SETTINGS, Blobs, prepared, weights


def watch(monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> list[tuple[str, set[str], set[str]]]:
    """Which parameters move, and which have a gradient, in every optimizer step of each kind."""
    seen: list[tuple[str, set[str], set[str]]] = []
    plain = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, closure: Any = None) -> Any:
        before = weights(model)
        with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
        result = plain(self, closure)
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        kind = "alpha" if len(self.param_groups) == 1 and "peak" not in self.param_groups[0] else "adapter"
        seen.append((kind, moved, with_gradient))
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return seen


def test_alpha_and_adapter_never_move_in_each_others_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Blobs()
    model = prepared(task)
    scales = set(alpha_parameters(model))
    seen = watch(monkeypatch, model)
    train(model, task, SETTINGS)
    assert {kind for kind, _, _ in seen} == {"alpha", "adapter"}
    for kind, moved, with_gradient in seen:
        if kind == "alpha":
            assert moved == scales
            assert with_gradient == scales  # nothing of the adapter's is computed on α's batch
        else:
            assert not moved & scales
            assert not with_gradient & scales
            assert moved  # and the adapter did move
    base = {name for name in weights(model) if ".base." in name}
    assert not any(moved & base for _, moved, _ in seen)


def batches_of(diary: Sequence[tuple[str, tuple[int, ...]]], every: int) -> tuple[list[int], list[int]]:
    """The training examples of adapter steps and of α steps."""
    adapter: list[int] = []
    alpha: list[int] = []
    for number, (_, indices) in enumerate(entry for entry in diary if entry[0] == "train"):
        (alpha if number % (every + 1) == every else adapter).extend(indices)
    return adapter, alpha


def test_held_out_alpha_batches_are_never_the_adapters() -> None:
    task = Blobs()
    train(prepared(task), task, SETTINGS)
    adapter, alpha = batches_of(task.diary, 3)
    assert alpha
    assert not set(alpha) & set(adapter)
    assert len(set(alpha)) == 12  # a fifth of 60
    assert len(set(adapter)) == 48


def test_overlap_reproduces_the_official_code() -> None:
    task = Blobs()
    settings = replace(SETTINGS, alpha=replace(SETTINGS.alpha, source="overlap"))
    train(prepared(task), task, settings)
    adapter, alpha = batches_of(task.diary, 3)
    assert len(set(adapter)) == 60
    assert set(alpha) <= set(adapter)


def test_alpha_passes_are_taken_off_the_adapters() -> None:
    task = Blobs()
    scheduled = train(prepared(task), task, SETTINGS)
    joint = train(prepared(task), task, replace(SETTINGS, alpha=AlphaSettings(mode="joint")))
    assert joint.passes == 24 * 8
    assert scheduled.passes <= joint.passes
    assert joint.passes - scheduled.passes < 2 * 8
    assert scheduled.alpha_steps == scheduled.steps // 3


@pytest.mark.parametrize("mode", ["fixed", "joint", "scheduled"])
def test_modes(mode: str) -> None:
    task = Blobs()
    model = prepared(task)
    before = weights(model)
    train(model, task, replace(SETTINGS, alpha=replace(SETTINGS.alpha, mode=mode)))
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.endswith("A.value") for name in moved) == (mode != "fixed")
    assert bool(alpha_parameters(model)) == (mode != "fixed")  # frozen for good, as the docstring says
    assert any(name.endswith("B.left") for name in moved)


def test_fixed_alpha_is_lora() -> None:
    task = Blobs()
    fixed = prepared(task)
    train(fixed, task, replace(SETTINGS, alpha=AlphaSettings(mode="fixed")))
    lora = task.build_model(0)
    config = glora.presets.lora(rank=2, target="body", modules_to_save=("head",))
    glora.attach(lora, config, generator=torch.Generator().manual_seed(0))
    train(lora, task, SETTINGS)  # the schedule has nothing to do without a scale
    x = torch.randn(5, 4)
    torch.testing.assert_close(fixed.eval()(x), lora.eval()(x), rtol=0, atol=1e-6)


def test_decay_pulls_alpha_towards_one() -> None:
    parameter = nn.Parameter(torch.tensor([0.5, -0.25]))
    schedule = AlphaSchedule([parameter], AlphaSettings(lr=0.1, decay=1.0))

    def no_gradient(parameters: Sequence[nn.Parameter]) -> float:
        for p in parameters:
            p.grad = torch.zeros_like(p)
        return 0.0

    for _ in range(50):
        schedule.step(no_gradient)
    torch.testing.assert_close(1 + parameter.detach(), torch.ones(2), rtol=0, atol=0.01)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.dense = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.query(x) + self.key(x) + self.value(x))


@pytest.mark.parametrize(
    ("share", "number", "numbers"),
    [("row", 8, 32), ("qkv", 4, 16), ("matrix", 8, 8), ("layer", 2, 2), ("global", 1, 1)],
)
def test_sharing(share: str, number: int, numbers: int, tmp_path: Path) -> None:
    model = nn.Sequential(_Block(), _Block())
    config = glora.presets.alpha_lora(rank=1, per_row=share in ("row", "qkv"))
    glora.attach(model, config)
    assert share_alpha(model, share) == number
    scales = alpha_parameters(model)
    assert len(scales) == number
    assert sum(p.numel() for p in scales.values()) == numbers
    with torch.no_grad():
        for i, parameter in enumerate(scales.values()):
            parameter.fill_(0.1 * (i + 1))
    x = torch.randn(3, 4)
    expected = model(x)
    save_file(model.state_dict(), tmp_path / "plain.safetensors")  # which refuses tensors that share memory
    stored = load_file(tmp_path / "plain.safetensors")
    assert stored.keys() == {name for name, _ in model.named_parameters(remove_duplicate=False)}
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(stored)
    torch.testing.assert_close(other(x), expected)
    glora.save(model, tmp_path)
    fresh = nn.Sequential(_Block(), _Block())
    fresh.load_state_dict(glora.merged_copy(model).state_dict())
    torch.testing.assert_close(fresh(x), expected)
    glora.detach(model)
    glora.load(model, tmp_path)
    torch.testing.assert_close(model(x), expected)


class _Encoder(nn.Module):
    def __init__(self, blocks: type[nn.ModuleList] | type[nn.Sequential]) -> None:
        super().__init__()
        make = [_Block(), _Block()]
        self.layer = nn.ModuleList(make) if blocks is nn.ModuleList else nn.Sequential(*make)


@pytest.mark.parametrize(
    ("model", "number"),
    [
        (nn.Sequential(_Encoder(nn.ModuleList)), 2),
        (nn.Sequential(_Encoder(nn.Sequential)), 2),
        (nn.Sequential(_Encoder(nn.ModuleList), nn.Linear(4, 4)), 3),  # a layer after the encoder is its own
        (nn.Sequential(_Block()), 1),
        (_Encoder(nn.ModuleList), 2),
        (_Block(), 4),  # no number, no block
        (nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 4)]), 2),
    ],
)
def test_a_block_is_an_entry_of_a_list(model: nn.Module, number: int) -> None:
    glora.attach(model, glora.presets.alpha_lora(rank=1, per_row=False))
    assert share_alpha(model, "layer") == number


def test_sharing_needs_the_right_structure() -> None:
    model = nn.Sequential(_Block())
    glora.attach(model, glora.presets.alpha_lora(rank=1))
    with pytest.raises(ValueError, match=r"share='layer' needs A='scalar'; layer '0.query' has A='vector'"):
        share_alpha(model, "layer")
    with pytest.raises(ValueError, match="share must be one of"):
        share_alpha(model, "rows")


# ----------------------------------------------------------------------------------------------- stopping, resuming
