"""Adapters on disk: exactly the trained numbers, whole or absent, refused with a reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import glora
from glora import GLoRAConfig, LayerConfig, presets
from tests.glora.models import images, perturb, tiny_vit

CONFIG = GLoRAConfig(
    A="lora", B="lora", C="vector", D="scalar", E="vector", rank=2, lora_scale=0.5,
    overrides={"fc1": presets.alpha_lora(3).layer}, modules_to_save=["head"],
)  # fmt: skip


def trained(config: GLoRAConfig = CONFIG, **model) -> nn.Module:
    model = tiny_vit(**model)
    glora.attach(model, config)
    perturb(model)
    return model


@pytest.fixture
def folder(tmp_path) -> Path:
    glora.save(trained(), tmp_path)
    return tmp_path


def tensor_file(folder: Path) -> Path:
    return folder / json.loads((folder / "adapter.json").read_text())["tensors"]


def assert_untouched(model: nn.Module) -> None:
    fresh = tiny_vit()
    assert str(model) == str(fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True))
    assert all(p.requires_grad for p in model.parameters())


def test_a_bare_base_model_gets_the_same_adapter(folder):
    model = tiny_vit()
    report = glora.load(model, folder)
    x = images()
    assert torch.equal(model(x), trained()(x))
    assert report.by_layer == glora.count_parameters(trained()).by_layer
    assert str(model) == str(trained())


def test_the_file_holds_exactly_the_trained_numbers(folder):
    stored = load_file(tensor_file(folder))
    model = trained()
    assert sum(t.numel() for t in stored.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sorted(path.name for path in folder.iterdir()) == sorted(["adapter.json", tensor_file(folder).name])


def test_a_frozen_alpha_that_was_set_by_hand_survives(tmp_path):
    model = tiny_vit()
    glora.attach(model, presets.alpha_lora(2, target="qkv", train_alpha=False))
    model.blocks[0].attn.qkv.alpha = 0.25
    glora.save(model, tmp_path)
    other = tiny_vit()
    glora.load(other, tmp_path)
    assert other.blocks[0].attn.qkv.alpha.unique().tolist() == [0.25]
    assert not other.blocks[0].attn.qkv.adapters["default"].A.value.requires_grad


def test_loading_draws_no_random_numbers(folder):
    state = torch.get_rng_state()
    model = tiny_vit()
    state = torch.get_rng_state()
    glora.load(model, folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_saving_again_replaces_and_leaves_no_rubbish(folder):
    model = trained()
    perturb(model, seed=5)
    glora.save(model, folder)
    other = tiny_vit()
    glora.load(other, folder)
    assert torch.equal(other(images()), model(images()))
    assert len(list(folder.iterdir())) == 2


def test_several_adapters_and_other_names(folder, tmp_path):
    model, x = tiny_vit(), images()
    glora.attach(model, presets.lora(2), "other")
    glora.load(model, folder, name="mine")
    assert torch.equal(model(x), trained()(x))
    glora.switch(model, "other")
    perturb(model, seed=8)
    output = model(x)
    glora.save(model, tmp_path / "b")
    fresh = tiny_vit()
    glora.load(fresh, tmp_path / "b")
    assert glora.model.state.require_state(fresh).active == "other"
    assert torch.equal(fresh(x), output)
    with pytest.raises(ValueError, match="'mine' is attached already"):
        glora.load(model, tmp_path / "b", name="mine")


def test_loading_into_an_attached_adapter_of_the_same_structure_replaces_its_numbers(folder):
    model = tiny_vit()
    glora.attach(model, CONFIG)
    glora.load(model, folder)
    assert torch.equal(model(images()), trained()(images()))


def test_a_merged_adapter_is_saved_as_itself(tmp_path):
    model, x = trained(), images()
    output = model(x)
    glora.merge(model)
    glora.save(model, tmp_path)
    assert glora.model.state.require_state(model).merged == "default"
    other = tiny_vit()
    glora.load(other, tmp_path)
    assert torch.equal(other(x), output)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_base_may_have_another_dtype(folder, dtype):
    glora.load(tiny_vit().to(dtype), folder)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
def test_damaged_tensors_are_refused(folder, damage):
    path = tensor_file(folder)
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        flipped = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
        path.write_bytes({"truncate": data[: len(data) // 2], "flip": flipped, "empty": b""}[damage])
    model = tiny_vit()
    with pytest.raises(ValueError, match="missing; " if damage == "remove" else "is damaged or truncated"):
        glora.load(model, folder)
    assert_untouched(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: None, "is damaged"),
        (lambda index: {**index, "format": "other"}, "is not an adapter of this package"),
        (lambda index: {**index, "version": 99}, "has version 99, this package reads up to 2"),
        (lambda index: {k: v for k, v in index.items() if k != "layers"}, "is damaged: KeyError"),
        (lambda index: {**index, "configs": [{"rank": 0}] * 2}, "rank must be a positive integer"),
        (lambda index: {**index, "configs": [{**c, "rank": 5} for c in index["configs"]]}, r"shape \(48, 2\), the model needs \(48, 5\)"),
        (lambda index: {**index, "configs": [{**c, "E": "none"} for c in index["configs"]]}, "E.value: in the file, but the model has no place"),
        (lambda index: {**index, "layers": {**index["layers"], "blocks.7.attn.qkv": 0}}, "layer blocks.7.attn.qkv: missing"),
        (lambda index: {**index, "tensors": "../../etc/passwd"}, "passwd is missing"),
    ],
)  # fmt: skip
def test_a_wrong_index_is_refused(folder, change, message):
    path = folder / "adapter.json"
    changed = change(json.loads(path.read_text()))
    path.write_text(path.read_text()[:200] if changed is None else json.dumps(changed))
    model = tiny_vit()
    with pytest.raises(ValueError, match=message):
        glora.load(model, folder)
    assert_untouched(model)


def test_another_model_is_refused_with_what_differs(folder):
    with pytest.raises(
        ValueError, match=r"trained on another base model:(.|\n)*blocks.0.attn.qkv.weight: other values"
    ):
        glora.load(tiny_vit(seed=1), folder)
    model = tiny_vit(seed=1)
    glora.load(model, folder, check_base=False)
    with pytest.raises(ValueError, match=r"does not fit this model:(.|\n)*shape \(48, 2\), the model needs \(96, 2\)"):
        glora.load(tiny_vit(dim=32), folder)
    with pytest.raises(ValueError, match=r"layer blocks.1.attn.proj: missing"):
        glora.load(tiny_vit(depth=1), folder)
    with pytest.raises(ValueError, match=r"blocks.2.attn.proj.bias: only in the model"):
        glora.load(tiny_vit(depth=3), folder)


def test_a_head_of_another_size_is_refused(folder):
    with pytest.raises(ValueError, match=r"head.bias: shape \(3,\), the model needs \(7,\)"):
        glora.load(tiny_vit(classes=7), folder)


def test_a_freshly_drawn_head_is_no_difference(folder):
    model = tiny_vit()
    nn.init.normal_(model.head.weight)
    glora.load(model, folder)
    assert torch.equal(model(images()), trained()(images()))


def test_an_empty_folder_and_a_peft_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no adapter.json in"):
        glora.load(tiny_vit(), tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="it holds a PEFT checkpoint"):
        glora.load(tiny_vit(), tmp_path)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_interrupted_save_leaves_the_old_adapter(folder, monkeypatch, fails_at):
    """The disk fills up while the first or the second file is put in place."""
    calls = 0
    replace = os.replace

    def failing(source, target):
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(28, "No space left on device")
        replace(source, target)

    model = trained()
    perturb(model, seed=5)
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="No space left"):
        glora.save(model, folder)
    monkeypatch.undo()
    other = tiny_vit()
    glora.load(other, folder)
    assert torch.equal(other(images()), trained()(images()))
    assert not list(folder.glob("*.tmp"))


def test_others_may_read_an_adapter(folder, tmp_path):
    glora.model.merging.export(trained(), tmp_path / "merged")
    files = [*folder.glob("adapter*"), tmp_path / "merged" / "model.safetensors"]
    assert [oct(path.stat().st_mode & 0o777) for path in files] == ["0o644"] * 3


def test_tensors_of_another_adapter_are_refused(folder):
    """Valid safetensors under the right name are not enough."""
    save_file({"a": torch.zeros(2)}, tensor_file(folder))
    with pytest.raises(ValueError, match="is damaged or truncated"):
        glora.load(tiny_vit(), folder)


def test_a_linear_probe_is_saved_too(tmp_path):
    model = tiny_vit()
    glora.attach(model, presets.linear_probe(["head"]))
    perturb(model)
    glora.save(model, tmp_path)
    other = tiny_vit()
    glora.load(other, tmp_path)
    assert torch.equal(other(images()), model(images()))
    assert LayerConfig().is_empty


def test_a_base_with_more_numbers_than_a_float32_can_count(tmp_path):
    """The embedding of a language model: 2²⁴ + 4 numbers, whose last position rounds to one beyond the end."""

    def model():
        table = nn.Embedding.from_pretrained(torch.zeros(2**22 + 1, 4, dtype=torch.bfloat16))
        return nn.Sequential(table, nn.Linear(4, 3, dtype=torch.bfloat16))

    first = model()
    glora.attach(first, presets.lora(rank=1, target=["1"]))
    perturb(first)
    glora.save(first, tmp_path)
    before = first(torch.tensor([5]))
    glora.detach(first)
    glora.load(first, tmp_path)
    assert torch.equal(first(torch.tensor([5])), before)
