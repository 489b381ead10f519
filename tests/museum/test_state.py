"""What training changes besides the adapter, and what must not be done while merged."""

from __future__ import annotations

import copy
import tempfile

import pytest
import torch
from torch import nn

import glora
from glora import presets
from tests.glora.models import perturb
from tests.museum import models
from tests.museum.case import Case, named, parametrize


def normed() -> nn.Sequential:
    models.seeded()
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    for _ in range(3):
        model(torch.randn(16, 6))
    return model.eval()


def train_forwards(model: nn.Module, batch=None) -> None:
    """What a training loop does to running statistics."""
    model.train()
    generator = torch.Generator().manual_seed(6)
    for _ in range(4):
        model(3 * torch.randn(16, 6, generator=generator) + 1 if batch is None else batch)
    model.eval()


def detach_restores_statistics() -> None:
    model, x = normed(), models.points()
    state, output = copy.deepcopy(model.state_dict()), model(x)
    models.trained(model)
    train_forwards(model)
    glora.detach(model)
    assert torch.equal(model(x), output)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def disabled_is_the_base() -> None:
    model = models.resnet()
    output = model(models.images(16)).last_hidden_state
    models.trained(model, r"convolution$")
    train_forwards(model, models.images(16))
    adapted = model(models.images(16)).last_hidden_state
    with glora.disabled(model):
        assert torch.equal(model(models.images(16)).last_hidden_state, output)
    assert torch.equal(model(models.images(16)).last_hidden_state, adapted)


def saved_and_loaded() -> None:
    model, x = models.trained(normed()), models.points()
    train_forwards(model)
    with tempfile.TemporaryDirectory() as folder:
        glora.save(model, folder)
        other = normed()
        glora.load(other, folder)
    assert torch.equal(other.eval()(x), model(x))


def frozen_norms_stay() -> None:
    model, x = normed(), models.points()
    glora.attach(model, presets.lora(2, norms="frozen"))
    perturb(model)
    output = model(x)
    train_forwards(model)
    assert torch.equal(model(x), output)
    assert torch.equal(model.train()(x), output)
    assert model[1].training


def each_adapter_has_its_own() -> None:
    model, x = models.trained(normed()), models.points()
    train_forwards(model)
    first = model(x)
    glora.attach(model, presets.lora(2), "second")
    train_forwards(model, 5 * torch.ones(16, 6) + torch.arange(16.0)[:, None])
    glora.switch(model, "default")
    assert torch.equal(model.eval()(x), first)


def merged_scaled() -> nn.Module:
    models.seeded()
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    glora.attach(model, presets.alpha_lora(2, target=["0"], modules_to_save=["1"]))
    perturb(model)
    glora.merge(model)
    return model


def training_while_merged_is_named() -> None:
    with named("cannot train", "'default' is merged", "unmerge it first"):
        merged_scaled().train()(models.points()).sum().backward()


def state_while_merged_is_named() -> None:
    model = merged_scaled()
    with named("'default' is merged", "unmerge it first"):
        model.state_dict()


def loading_while_merged_is_named() -> None:
    with named("'default' is merged", "unmerge it first"):
        merged_scaled().load_state_dict({}, strict=False)


def disabling_leaves_flags() -> None:
    model = models.trained(models.plain()).requires_grad_(False)
    with glora.disabled(model):
        model(models.points())
    assert not any(parameter.requires_grad for parameter in model.parameters())


CASES = [
    Case(
        "Lightning-AI/pytorch-lightning#15063",
        "freezing a BatchNorm leaves its running mean and variance moving",
        detach_restores_statistics,
        "own statistics",
    ),
    Case(
        "open-mmlab/mmsegmentation#362",
        "a frozen pretrained model changes between training steps through its norms",
        disabled_is_the_base,
        "own statistics",
        "ResNet",
    ),
    Case(
        "chemprop/chemprop#952",
        "norms frozen by their gradients alone still update running statistics",
        frozen_norms_stay,
        "own statistics",
    ),
    Case(
        "isht7/pytorch-deeplab-resnet#39",
        "running means go on changing although the norms are called frozen",
        saved_and_loaded,
        "own statistics",
    ),
    Case(
        "learnables/learn2learn#207",
        "statistics of one task's adaptation are used for the next",
        each_adapter_has_its_own,
        "own statistics",
    ),
    Case(
        "huggingface/peft#3756",
        "with two active adapters of which one is merged, the other is not applied, and still called active",
        training_while_merged_is_named,
        "guard while merged",
    ),
    Case(
        "huggingface/trl#2873",
        "a state dict taken while merged shares memory with what unmerging rolls back",
        state_while_merged_is_named,
        "guard while merged",
    ),
    Case(
        "Baijiong-Lin/LoRA-Torch#10",
        "weights saved while merged hold the difference, and merging after loading adds it once more",
        loading_while_merged_is_named,
        "guard while merged",
    ),
    Case(
        "huggingface/peft#3447",
        "an adapter that was frozen trains after it was disabled and enabled",
        disabling_leaves_flags,
        "flags come back",
    ),
]


@parametrize(CASES)
def test_state_belongs_to_the_adapter_or_is_refused(case, switched_off):
    case.check(switched_off)


def test_setting_alpha_while_merged_says_so():
    with named("'default' is merged", "unmerge it first"):
        merged_scaled()[0].alpha = 2.0


def test_loading_onto_a_merged_model_says_so(tmp_path):
    model = merged_scaled()
    glora.save(model, tmp_path)
    with named("'default' is merged", "unmerge it first"):
        glora.load(model, tmp_path)


def test_a_merged_model_computes_in_training_mode_too():
    model = merged_scaled()
    output = model.eval()(models.points())
    assert torch.equal(model.train()(models.points()), output)


def test_older_adapters_load(tmp_path):
    import json

    model = models.trained(normed())
    glora.save(model, tmp_path)
    index = json.loads((tmp_path / "adapter.json").read_text())
    index = {key: value for key, value in index.items() if key not in ("digest", "steps", "buffers", "norms")}
    index["base"].pop("statistics")
    (tmp_path / "adapter.json").write_text(json.dumps({**index, "version": 1}))
    glora.load(normed(), tmp_path)


def test_another_base_is_told_by_its_statistics(tmp_path):
    model = models.trained(normed())
    glora.save(model, tmp_path)
    other = normed()
    train_forwards(other)
    with pytest.raises(ValueError, match=r"1\.running_mean: other values"):
        glora.load(other, tmp_path)
