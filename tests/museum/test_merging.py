"""Merging and exporting: the merged model is the trained one, or the base is untouched and the reason said."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import glora
from glora.layer.wrappers import AdaptedLayer
from glora.model.merging import merged_copy
from tests.museum import models
from tests.museum.case import Case, named, parametrize


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The base's tensors by name, wherever they stand now."""
    return {
        f"{key}.{part}": tensor.detach().clone()
        for key, module in glora.model.targets.base_modules(model)
        for part, tensor in module._parameters.items()
        if tensor is not None
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def exported_acts(folder) -> None:
    model = models.trained(models.llama(), r"(q|v)_proj$")
    output = model(models.ids()).logits
    glora.export(model, folder)
    loaded = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    torch.testing.assert_close(loaded(models.ids()).logits, output, rtol=1e-4, atol=1e-5)
    assert not torch.equal(
        loaded.model.layers[0].self_attn.q_proj.weight, models.llama().model.layers[0].self_attn.q_proj.weight
    )


def merged_file_is_not_the_base() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        exported_acts(folder)


def copy_holds_the_adapter() -> None:
    model, x = models.trained(models.plain()), models.points()
    plain = merged_copy(model)
    assert not any(isinstance(module, AdaptedLayer) for module in plain.modules())
    torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-5)


def gpt2_holds_the_adapter() -> None:
    model = models.trained(models.gpt2(), r"c_attn$")
    plain = merged_copy(model)
    torch.testing.assert_close(plain(models.ids()).logits, model(models.ids()).logits, rtol=1e-4, atol=1e-5)


def bfloat16_is_rounded_once() -> None:
    model = models.trained(models.plain().bfloat16())
    exact = {}
    for key, layer in _layers(model):
        adapter = layer.adapters["default"]
        change = adapter.config.lora_scale * adapter.B.dense(torch.float64)
        exact[key] = (layer.base.weight.double() + change).bfloat16()
    glora.merge(model)
    assert all(torch.equal(layer.base.weight, exact[key]) for key, layer in _layers(model))


def _layers(model: nn.Module) -> list[tuple[str, AdaptedLayer]]:
    return list(glora.model.state.adapted_modules(model))  # type: ignore[arg-type]


def twice_is_once() -> None:
    model = models.trained(models.plain())
    glora.merge(model)
    once = weights(model)
    glora.merge(model)
    assert same(weights(model), once)


def unmerging_restores() -> None:
    model = models.trained(models.plain())
    before = weights(model)
    glora.merge(model)
    assert not same(weights(model), before)
    glora.unmerge(model)
    assert same(weights(model), before)


def detaching_while_merged_restores() -> None:
    model = models.plain()
    before = weights(model)
    glora.merge(models.trained(model))
    glora.detach(model)
    assert same(weights(model), before)


def infinite_numbers_are_named() -> None:
    model = models.trained(models.plain().half())
    model[2].adapters["default"].B.left.data.fill_(3e5)
    before = weights(model)
    with named("layer '2'", "not finite"):
        glora.merge(model)
    assert same(weights(model), before)


def nan_is_named_in_bert() -> None:
    model = models.trained(models.bert(), r"query$")
    next(layer for _, layer in _layers(model)).adapters["default"].B.right.data[0, 0] = float("nan")
    with named("query", "not finite"):
        merged_copy(model)


class Interrupt(BaseException):
    """Stands for Ctrl-C."""


def interrupted_merge_leaves_no_trace() -> None:
    model = models.trained(models.plain())
    before = weights(model)
    swaps = []
    original = glora.layer.wrappers.swap

    def swap(base, parameters):
        original(base, parameters)
        swaps.append(base)
        if len(swaps) == 2:
            raise Interrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(glora.layer.wrappers, "swap", swap)
        glora.merge(model)
    assert same(weights(model), before)
    assert not any(layer.merged for _, layer in _layers(model))
    glora.merge(model)
    glora.unmerge(model)
    assert same(weights(model), before)


def computed_weights_are_refused() -> None:
    models.seeded()
    model = nn.Sequential(nn.Linear(6, 6), parametrizations.weight_norm(nn.Linear(6, 6)))
    with named("layer '1'", "its weight is not a parameter", "remove_parametrizations"):
        models.trained(model)
    models.trained(model, overrides={"^1$": glora.LayerConfig()})
    glora.merge(model)


def ties_are_told_in_qwen2() -> None:
    model = models.trained(models.qwen2(), ["lm_head"])
    output = model(models.ids()).logits
    with pytest.warns(UserWarning, match="are one parameter in the base and differ"):
        plain = merged_copy(model)
    assert plain.config.tie_word_embeddings is False
    assert model.config.tie_word_embeddings is True
    torch.testing.assert_close(plain(models.ids()).logits, output, rtol=1e-4, atol=1e-5)


def ties_of_saved_modules_are_told() -> None:
    model = models.qwen2()
    glora.attach(model, glora.presets.lora(2, target=r"q_proj$", modules_to_save=["lm_head"]))
    model.lm_head.weight.data.add_(1.0)
    with pytest.warns(UserWarning, match="are one parameter in the base and differ"):
        plain = merged_copy(model)
    assert plain.config.tie_word_embeddings is False


def ties_of_plain_models_are_told() -> None:
    models.seeded()
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight
    with pytest.warns(UserWarning, match=r"0\.weight and 1\.weight are one parameter"):
        merged_copy(models.trained(model))


def gpt2_reloads_untied() -> None:
    import tempfile

    model = models.trained(models.gpt2(), ["lm_head"])
    with tempfile.TemporaryDirectory() as folder:
        with pytest.warns(UserWarning, match="are one parameter in the base"):
            glora.export(model, folder)
        loaded = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    assert not loaded.config.tie_word_embeddings
    torch.testing.assert_close(loaded(models.ids()).logits, model(models.ids()).logits, rtol=1e-4, atol=1e-5)


CASES = [
    Case(
        "verl-project/verl#7285",
        "the merger writes a 'merged' folder that is byte for byte the base model",
        merged_file_is_not_the_base,
        "merging",
        "Llama",
    ),
    Case(
        "huggingface/trl#386",
        "the merge script writes base weights: it unloads without merging",
        copy_holds_the_adapter,
        "merging",
    ),
    Case(
        "unslothai/unsloth#2142",
        "the adapter acts when loaded, but the merged model answers as if nothing had been trained",
        gpt2_holds_the_adapter,
        "merging",
        "GPT2",
    ),
    Case(
        "OpenBMB/MiniCPM-V#502",
        "merged in bfloat16 the model answers wrongly, unmerged in bfloat16 it does not",
        bfloat16_is_rounded_once,
        "merging in float64",
    ),
    Case("huggingface/peft#1355", "calling merge again adds the difference again", twice_is_once, "exact merging"),
    Case(
        "huggingface/peft#3482",
        "unmerging after merges in a row gives other base weights than there were before",
        unmerging_restores,
        "exact merging",
    ),
    Case(
        "huggingface/peft#3498",
        "deleting an adapter while it is merged leaves its difference in the base for good",
        detaching_while_merged_restores,
        "unmerging at detach",
    ),
    Case(
        "huggingface/peft#1001",
        "a merge with NaNs goes through; only NaN is looked for, not infinity",
        infinite_numbers_are_named,
        "finite numbers",
    ),
    Case(
        "unslothai/unsloth#3690",
        "one layer's infinite elements make the merged model useless",
        nan_is_named_in_bert,
        "finite numbers",
        "Bert",
    ),
    Case(
        "LibreYOLO/libreyolo#636",
        "an export that fails after the merge has destroyed the adapters and changed the live model",
        interrupted_merge_leaves_no_trace,
        "rollback",
    ),
    Case(
        "huggingface/peft#2213",
        "loading an adapter for a merged export ends in a bare KeyError with a layer's name",
        computed_weights_are_refused,
        "refusal at attach",
    ),
    Case(
        "huggingface/transformers#45127",
        "a merged Qwen with tied embeddings keeps tie_word_embeddings=True and is overwritten when loaded",
        ties_are_told_in_qwen2,
        "report of ties",
        "Qwen2",
    ),
    Case(
        "unslothai/unsloth#9331",
        "on a tied model the two copies of modules_to_save drift apart, and the trained output layer is lost in the merge",
        ties_of_saved_modules_are_told,
        "report of ties",
        "Qwen2",
    ),
    Case(
        "thinking-machines-lab/tinker-cookbook#593",
        "an adapter of the output layer of a tied model has no place in the exported checkpoint",
        ties_of_plain_models_are_told,
        "report of ties",
    ),
    Case(
        "unslothai/unsloth#3454",
        "the merged model collapses: what was trained in lm_head and embed_tokens is dropped by the merge",
        gpt2_reloads_untied,
        "report of ties",
        "GPT2",
    ),
]


@pytest.mark.filterwarnings("ignore:.*bos_token_id|.*eos_token_id")
@parametrize(CASES)
def test_the_merged_model_is_the_trained_one(case, switched_off):
    case.check(switched_off)


@pytest.mark.parametrize("kind", ["spectral_norm", "orthogonal", "prune", "old weight_norm", "float8", "lazy"])
def test_what_cannot_be_merged_is_refused_at_attach(kind):
    layer = nn.Linear(6, 6)
    if kind == "spectral_norm":
        layer = parametrizations.spectral_norm(layer)
    elif kind == "orthogonal":
        layer = parametrizations.orthogonal(layer)
    elif kind == "prune":
        prune.l1_unstructured(layer, "weight", 3)
    elif kind == "old weight_norm":
        with pytest.warns(FutureWarning):
            layer = nn.utils.weight_norm(layer)
    elif kind == "float8":
        layer = layer.to(torch.float8_e4m3fn)
    else:
        layer = nn.LazyLinear(6)
    model = nn.Sequential(nn.Linear(6, 6), layer)
    before = copy.deepcopy(list(model._modules))
    for target in (["0", "1"], "all-linear"):
        with named("layer '1'", "cannot adapt"):
            glora.attach(model, glora.presets.lora(2, target=target))
    assert list(model._modules) == before
    assert not any(isinstance(m, AdaptedLayer) for m in model.modules())


def test_an_interrupted_merge_of_a_subnet_leaves_no_trace():
    from glora.search.supernet import SuperNet

    model, x = models.plain(), models.points()
    output, before = model(x), weights(model)
    net = SuperNet(model, rank=2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1)
    swaps = []
    original = glora.layer.wrappers.swap

    def swap(base, parameters):
        original(base, parameters)
        swaps.append(base)
        if len(swaps) == 2:
            raise Interrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(glora.layer.wrappers, "swap", swap)
        with net.merged(net.space.largest):
            pass
    assert same(weights(model), before)
    with pytest.raises(Interrupt), net.merged(net.space.largest):
        assert not same(weights(model), before)
        raise Interrupt
    assert same(weights(model), before)
    net.detach()
    assert torch.equal(model(x), output)


def test_an_interrupted_attach_leaves_no_trace(monkeypatch):
    model = models.plain()
    output, x = model(models.points()), models.points()
    flags = [parameter.requires_grad for parameter in model.parameters()]
    original, calls = glora.model.attaching.replace, []

    def replace(model, new):
        calls.append(new)
        if len(calls) > 1:  # rolling back
            return original(model, new)
        original(model, dict(list(new.items())[:2]))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(glora.model.attaching, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            glora.attach(model, glora.presets.lora(2))
    assert torch.equal(model(x), output)
    assert glora.model.state.get_state(model) is None
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
