"""To the code around it an adapted module looks like the module it stands for: attributes, properties, tracing."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
from torch import nn

import glora
from glora import GLoRAConfig, presets
from tests.glora.models import perturb
from tests.museum import models
from tests.museum.case import Case, named, parametrize


def saved(model: nn.Module, name: str, target: str) -> nn.Module:
    """The model with a module trained in full, as if trained."""
    glora.attach(model, presets.lora(2, target=target, modules_to_save=[name]))
    perturb(model)
    return model.eval()


def t5_reads_its_layer() -> None:
    model = saved(models.t5(), "wo", r"\.(q|v)$")
    assert model(models.ids()).last_hidden_state.isfinite().all()
    assert model.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.float32


def dinov2_reads_its_patches() -> None:
    model = saved(models.dinov2(), "patch_embeddings", r"(q|v)_proj$")
    assert model(models.images()).last_hidden_state.isfinite().all()
    assert model.embeddings.patch_embeddings.patch_size == (4, 4)


def layers_show_their_shape() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Flatten(), nn.Linear(36, 5))
    glora.attach(model, presets.lora(2, target=["0", "2"]))
    assert model[0].stride == (2, 2)
    assert model[2].in_features == 36
    assert model[2].out_features == 5


def saved_embedding_is_found() -> None:
    model = saved(models.llama(), "embed_tokens", r"q_proj$")
    embedding = model.get_input_embeddings()
    assert embedding.num_embeddings == 40
    assert embedding.embedding_dim == 16
    assert torch.equal(embedding.weight, embedding.adapters["default"].weight)


def properties_do_not_raise() -> None:
    model = models.trained(models.plain())
    layer = model[0]
    assert not hasattr(layer, "alpha")
    assert getattr(layer, "alpha", None) is None
    assert dict(inspect.getmembers(layer))
    assert not hasattr(layer.adapters["default"], "alpha")
    with pytest.raises(AttributeError, match="alpha = 1 \\+ A exists for a scalar or vector A"):
        _ = layer.alpha


def traces() -> None:
    model, x = models.trained(models.plain()), models.points()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(model, x)
    more = models.points(40)
    torch.testing.assert_close(traced(more), model(more), rtol=1e-4, atol=1e-5)


def exports_with_a_dynamic_batch() -> None:
    models.seeded()
    model = nn.Sequential(nn.Linear(6, 4)).eval()
    glora.attach(model, presets.glora(2, target=["0"]))
    perturb(model)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            rows = torch.export.Dim("rows", min=1, max=1000)
            program = torch.export.export(model, (models.points(),), dynamic_shapes=({0: rows},))
            for count in (3, 40):
                x = models.points(count)
                torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


def llama_exports() -> None:
    model = models.llama()
    glora.attach(model, presets.glora(2, D="none", target=r"(q|v)_proj$"))
    perturb(model)
    model.config.use_cache = False

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids):
            return self.model.model.layers[0].self_attn.q_proj(self.model.model.embed_tokens(ids))

    module = Logits().eval()
    length = torch.export.Dim("length", min=2, max=500)
    program = torch.export.export(module, (models.ids(),), dynamic_shapes=({1: length},))
    torch.testing.assert_close(program.module()(models.ids(2, 30)), module(models.ids(2, 30)), rtol=1e-4, atol=1e-5)


CASES = [
    Case(
        "artidoro/qlora#54",
        "resize_token_embeddings fails on a wrapped layer: no attribute 'weight'",
        t5_reads_its_layer,
        "attributes pass through",
        "T5",
    ),
    Case(
        "huggingface/peft#2117",
        "a module trained in full shows its weight and its bias, and none of its other attributes",
        dinov2_reads_its_patches,
        "attributes pass through",
        "Dinov2",
    ),
    Case(
        "hpcaitech/ColossalAI#3389",
        "a LoRA module around a model has no resize_token_embeddings",
        saved_embedding_is_found,
        "attributes pass through",
        "Llama",
    ),
    Case(
        "huggingface/peft#2784",
        "layers of some methods lack in_features and out_features, which other packages ask for",
        layers_show_their_shape,
        "attributes pass through",
    ),
    Case(
        "Lightning-AI/pytorch-lightning#14036",
        "torch.jit.trace asks for every attribute, and a property raises something else than AttributeError",
        properties_do_not_raise,
        "AttributeError",
    ),
    Case(
        "huggingface/transformers#25163",
        "a traced model differs from call to call: a value of this call went into the graph as a constant",
        traces,
        "AttributeError",
    ),
    Case("pytorch/pytorch#128394", "exporting Llama fails while it is traced", llama_exports, "tracing", "Llama"),
    Case(
        "huggingface/transformers#29190",
        "torch.export of a model ends in 'Unsupported'",
        exports_with_a_dynamic_batch,
        "tracing",
    ),
]


@parametrize(CASES)
def test_a_wrapper_looks_like_its_module(case, switched_off):
    case.check(switched_off)


@pytest.mark.parametrize("autocast", [False, True])
def test_named_inputs(autocast):
    model = models.trained(models.plain())
    x = models.points()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.equal(model[0](input=x), model[0](x))
    with named("takes one input", "['bogus']"):
        model[0](bogus=x)


def test_a_saved_sequence_can_be_indexed():
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)))
    glora.attach(model, GLoRAConfig(target=["0"], B="lora", rank=2, modules_to_save=["1"]))
    assert model[1][1] is model[1].adapters["default"][1]
    assert len(list(model[1])) == 2
