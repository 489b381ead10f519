"""Parents that compute with a child's weight, or keep the child where no replacement reaches it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import glora
from glora import GLoRAConfig, presets
from tests.glora.models import perturb
from tests.museum import models
from tests.museum.case import Case, parametrize


def agree(model: nn.Module, batch) -> None:
    """The adapted model is the merged one, acts, and every layer's tensors get a gradient."""
    certificate = glora.certify(model, batch, quick=True)
    assert certificate.holds, str(certificate)


def mamba() -> None:
    agree(models.trained(models.mamba(), ["x_proj", "dt_proj"]), {"input_ids": models.ids()})


def falcon_mamba() -> None:
    agree(models.trained(models.falcon_mamba(), ["in_proj", "dt_proj"]), {"input_ids": models.ids()})


def mamba_merged() -> None:
    model = models.trained(models.mamba(), ["in_proj", "x_proj", "dt_proj", "out_proj"])
    for parameter in model.layers[0].mixer.dt_proj.adapters.parameters():
        parameter.data.mul_(20)
    output = model(models.ids()).last_hidden_state
    with glora.merged(model):
        torch.testing.assert_close(model(models.ids()).last_hidden_state, output, rtol=1e-4, atol=1e-5)


def wavlm() -> None:
    agree(models.trained(models.wavlm(), r"attention\.(q|k|v|out)_proj$"), models.wave())


def bloom() -> None:
    agree(models.trained(models.bloom(), r"dense"), {"input_ids": models.ids()})


def fast_path() -> None:
    model, x = models.trained(models.encoder()), torch.randn(3, 5, 8)
    with torch.no_grad():
        evaluated = model(x)
        trained = model.train()(x)
    torch.testing.assert_close(evaluated, trained, rtol=1e-4, atol=1e-5)


class Functional(nn.Module):
    """A parent that never calls its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.qkv.weight.dtype != x.dtype or self.qkv.weight.shape[0] != 9:
            raise AssertionError
        q, k, v = (F.linear(x, w) for w in self.qkv.weight.chunk(3))
        return q * k + v + self.qkv.bias[:3]


def functional() -> None:
    models.seeded()
    model = Functional()
    glora.attach(model, presets.glora(2), generator=torch.Generator().manual_seed(0))
    perturb(model)
    agree(model.eval(), models.points())


class Listed(nn.Module):
    """A parent that calls its layers through a plain list and a bound method."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)
        self.steps = [self.first]
        self.last = self.second.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(x)
        return self.last(x)


def listed() -> None:
    models.seeded()
    model, x = Listed().eval(), models.points()
    before = model(x)
    models.trained(model)
    agree(model, x)
    glora.detach(model)
    assert torch.equal(model(x), before)


CASES = [
    Case(
        "huggingface/peft#1612",
        "gradients of LoRA on Mamba's x_proj and dt_proj stay None after a backward pass",
        mamba,
        "effective weight",
        "Mamba",
    ),
    Case(
        "state-spaces/mamba#279",
        "the fused Mamba forward takes only the .weight of its linear layers, so a wrapper never acts",
        falcon_mamba,
        "effective weight",
        "FalconMamba",
    ),
    Case(
        "huggingface/transformers#30316",
        "Mamba trained with LoRA (dt_proj among the targets) answers differently after merge_and_unload",
        mamba_merged,
        "effective weight",
        "Mamba",
    ),
    Case(
        "pytorch/pytorch#128413",
        "in evaluation TransformerEncoderLayer takes its fused path and never calls its submodules",
        fast_path,
        "effective weight",
    ),
    Case(
        "microsoft/LoRA#61",
        "eval() of the model never reaches the layers' own eval(), so evaluation is not what was trained",
        wavlm,
        "effective weight",
        "WavLM",
    ),
    Case(
        "hiyouga/LlamaFactory#4913",
        "answers before and after merging differ visibly",
        bloom,
        "effective weight",
        "Bloom",
    ),
    Case(
        "huggingface/peft#1035",
        "with the same inputs the logits before and after merge_and_unload differ far beyond rounding",
        functional,
        "effective weight",
    ),
    Case(
        "ikawrakow/ik_llama.cpp#1986",
        "with a fused up-gate the LoRA option does nothing and the console says nothing",
        listed,
        "references follow",
    ),
]


@parametrize(CASES)
def test_a_parent_computes_with_the_adapter(case, switched_off):
    case.check(switched_off)


def test_metadata_is_free_and_writing_is_refused():
    model = models.plain()
    glora.attach(model, GLoRAConfig(B="lora", C="vector", E="vector", rank=2))
    weight = model[0].weight
    weight.make = lambda: pytest.fail("formed")
    assert (weight.dtype, weight.shape, weight.device.type, weight.ndim) == (torch.float32, (8, 6), "cpu", 2)
    assert weight.requires_grad
    assert len(weight) == 8
    assert weight.data.dtype == torch.float32
    for write in (weight.mul_, weight.data.copy_, lambda x: nn.init.constant_(weight, x)):
        with pytest.raises(ValueError, match=r"write to layer\.base\.weight"):
            write(torch.tensor(2.0))
    assert models.plain()[0].bias.shape == model[0].bias.shape


def test_a_custom_function_that_would_lose_the_gradient_warns():
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            return x @ weight.t()

        @staticmethod
        def backward(ctx, grad):
            return None, None

    model = models.plain()
    glora.attach(model, presets.lora(2))
    with pytest.warns(UserWarning, match="adapted layer '0' was read .* adapter gets no gradient there"):
        Product.apply(models.points(), model[0].weight)


class Alias(nn.Module):
    """A parent with a second name for its layer's weight, which it computes with or only looks at."""

    def __init__(self, computes: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.table, self.computes = self.layer.weight, computes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.table) if self.computes else self.layer(x.to(self.table.dtype))


@pytest.mark.parametrize("training", [False, True])
def test_a_bypassed_layer_is_named_at_the_first_call_and_by_certify(training):
    model = models.trained(Alias(computes=True)).train(training)
    with pytest.warns(UserWarning, match=r"past their adapters: 'layer' \(by aten"):
        model(models.points())
    model(models.points())  # once a mode
    certificate = glora.certify(model, models.points(), quick=True)
    assert certificate.named("bypassed") == ["layer"]
    assert certificate.exit_code == 1
    assert "layer is bypassed by aten" in str(certificate)


def test_the_first_calls_of_healthy_models_are_silent_and_leave_nothing():
    for model, batch in (
        (Alias(computes=False), models.points()),
        (models.qwen2(), models.ids()),
        (models.mamba(), models.ids()),
        (models.encoder(), torch.randn(3, 5, 8)),
    ):
        models.trained(model)
        hooks = [len(model._forward_pre_hooks), len(model._forward_hooks)]
        for training in (True, False, True):
            model.train(training)(batch)
        assert hooks == [1, 1]
        assert not model._forward_pre_hooks
        assert not model._forward_hooks
        glora.detach(model)


def test_a_first_call_that_fails_is_watched_again():
    model = models.trained(models.plain())
    with pytest.raises(RuntimeError):
        model(torch.ones(2, 5))
    assert "forward" not in vars(model[0].adapters["default"])
    copied = glora.model.merging.merged_copy(model)
    assert not copied._forward_pre_hooks
    glora.detach(model)
    assert not model._forward_pre_hooks
