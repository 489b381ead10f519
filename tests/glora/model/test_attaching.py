"""Adapters on a model: which layers, several adapters, heads, and leaving no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import glora
from glora import GLoRAConfig, LayerConfig, presets
from glora.layer.wrappers import AdaptedLayer
from tests.glora.models import TimmLikeViT, images, perturb, tiny_vit

QKV_PROJ = [f"blocks.{n}.attn.{layer}" for n in range(2) for layer in ("qkv", "proj")]
ALL_LINEAR = [f"blocks.{n}.{layer}" for n in range(2) for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]


def names(report: glora.Report) -> list[str]:
    return list(report.by_layer)


def test_attach_keeps_the_output_and_freezes_the_rest():
    model, x = tiny_vit(), images()
    before = model(x)
    report = glora.attach(model, presets.glora(rank=2))
    assert torch.equal(model(x), before)
    assert names(report) == ALL_LINEAR
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(".adapters.default." in name for name in trainable)
    assert report.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert report.heads == ("head",)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("all-linear", ALL_LINEAR),
        (r"attn\.(qkv|proj)$", QKV_PROJ),
        (["qkv", "proj"], [*QKV_PROJ, "patch_embed.proj"]),
        (["blocks.1.mlp.fc1"], ["blocks.1.mlp.fc1"]),
        (["head"], ["head"]),
        (lambda name, module: isinstance(module, nn.Conv2d), ["patch_embed.proj"]),
        ("patch_embed", ["patch_embed.proj"]),
    ],
)
def test_targets(target, expected):
    report = glora.attach(tiny_vit(), presets.lora(2, target=target))
    assert sorted(names(report)) == sorted(expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (presets.lora(target="q_proj"), r"target='q_proj' matches no layer; near misses: .*proj"),
        (presets.lora(target=["qvk"]), r"target: no module is called 'qvk'; near misses: qkv"),
        (presets.lora(target="norm1"), "none a layer with a weight matrix"),
        (presets.lora(target=["norm"]), "layer 'norm': cannot adapt LayerNorm; supported are"),
        (presets.lora(target="head$"), r"output layers left alone \['head'\] \(exclude_heads=False includes them\)"),
        (presets.lora(target=lambda name, module: False), "returned False for every layer"),
        (presets.lora(modules_to_save=["heads"]), "modules_to_save: no module is called 'heads'; near misses: head"),
        (
            presets.lora(overrides={"fc3": LayerConfig()}),
            r"overrides\['fc3'\] matches none of the 9 targeted layers; near misses: fc",
        ),
        (GLoRAConfig(), "nothing would be trained"),
        (presets.lora(target=["head"], modules_to_save=["head"]), "matches no layer outside modules_to_save"),
    ],
)
def test_what_cannot_be_adapted_is_said_and_nothing_happens(config, message):
    model = tiny_vit()
    before = copy.deepcopy(model).state_dict()
    with pytest.raises(ValueError, match=message):
        glora.attach(model, config)
    assert model.state_dict().keys() == before.keys()
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="no adapter is attached"):
        glora.merge(model)


def test_a_model_without_linear_layers():
    with pytest.raises(ValueError, match="finds no linear layer"):
        glora.attach(nn.Sequential(nn.ReLU()), presets.lora())


def test_attention_that_reads_weights_directly_is_not_silently_ignored():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    report = glora.attach(model, presets.lora(2))
    assert names(report) == ["linear1", "linear2"]
    assert report.unsupported == ("self_attn.out_proj",)
    with pytest.raises(ValueError, match=r"'self_attn.out_proj' belongs to nn.MultiheadAttention"):
        glora.attach(nn.TransformerEncoderLayer(8, 2, 16), presets.lora(target=["out_proj"]))


def test_overrides_give_layers_their_own_structure():
    model = tiny_vit()
    report = glora.attach(
        model,
        GLoRAConfig(
            B="lora",
            rank=2,
            overrides={r"blocks\.0\.": LayerConfig(A="vector"), "fc2": LayerConfig(), "fc1": LayerConfig(E="vector")},
        ),
    )
    configs = {layer.name: layer.config.summary for layer in report.layers}
    assert configs == {
        "blocks.0.attn.qkv": "A=vector",
        "blocks.0.attn.proj": "A=vector",
        "blocks.0.mlp.fc1": "A=vector",
        "blocks.0.mlp.fc2": "A=vector",
        "blocks.1.attn.qkv": "B=lora(2)",
        "blocks.1.attn.proj": "B=lora(2)",
        "blocks.1.mlp.fc1": "E=vector",
    }


def test_a_layer_without_a_bias_gets_one_or_a_warning():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3))
    with pytest.warns(UserWarning, match="D scales the bias, which 1 of 2 adapted layers do not have"):
        report = glora.attach(model, GLoRAConfig(D="vector", E="vector"))
    assert report.by_layer == {"0": 3, "1": 6}
    perturb(model)
    x = torch.randn(4, 3)
    merged = glora.merged_copy(model)
    assert merged[0].bias is not None
    torch.testing.assert_close(merged(x), model(x))


def test_detach_leaves_no_trace():
    model, x = tiny_vit(), images()
    model.norm.requires_grad_(False)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    structure, before = str(model), model(x)
    glora.attach(model, presets.alpha_lora(2, modules_to_save=["head"]))
    perturb(model)
    glora.merge(model)
    assert not torch.equal(model(x), before)
    glora.detach(model)
    assert torch.equal(model(x), before)
    assert str(model) == structure
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert glora.attach(model, presets.lora(2)).trainable


def test_several_adapters():
    model, x = tiny_vit(), images()
    outputs = {None: model(x)}
    for name, config in (("one", presets.alpha_lora(2, modules_to_save=["head"])), ("two", presets.bitfit("mlp"))):
        glora.attach(model, config, name)
        perturb(model)
        outputs[name] = model(x)
    assert len({tuple(y.flatten().tolist()) for y in outputs.values()}) == 3
    for name in ("one", "two", None, "one"):
        glora.switch(model, name)
        assert torch.equal(model(x), outputs[name])
        trainable = [key for key, p in model.named_parameters() if p.requires_grad]
        assert all(f".adapters.{name}." in key for key in trainable)
        assert bool(trainable) == (name is not None)
    with glora.disabled(model):
        assert torch.equal(model(x), outputs[None])
    assert torch.equal(model(x), outputs["one"])
    glora.merge(model, "two")
    torch.testing.assert_close(model(x), outputs["two"])
    with pytest.raises(ValueError, match="'two' is merged"):
        glora.switch(model, "one")
    with glora.disabled(model):
        assert torch.equal(model(x), outputs[None])
    torch.testing.assert_close(model(x), outputs["two"])
    glora.unmerge(model)
    glora.detach(model, "two")
    assert torch.equal(model(x), outputs["one"])
    assert not any(".two." in key for key in model.state_dict())
    glora.detach(model, "one")
    assert torch.equal(model(x), outputs[None])


@pytest.mark.parametrize("first", ["adapted", "saved"])
def test_a_module_cannot_be_adapted_by_one_adapter_and_trained_in_full_by_another(first):
    configs = {
        "adapted": presets.lora(2, target="fc1"),
        "saved": presets.linear_probe(["mlp"]),
    }
    model, second = tiny_vit(), {"adapted": "saved", "saved": "adapted"}[first]
    glora.attach(model, configs[first], first)
    before = model.state_dict().keys()
    with pytest.raises(ValueError, match="overlap: another adapter"):
        glora.attach(model, configs[second], second)
    assert model.state_dict().keys() == before


def test_disabled_restores_what_trains():
    model = tiny_vit()
    glora.attach(model, presets.lora(2))
    glora.switch(model, "default", trainable=False)
    with glora.disabled(model):
        pass
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["a.b", "", "keys", "a b", "forward"])
def test_names_that_cannot_name_an_adapter(name):
    with pytest.raises(ValueError, match="cannot name an adapter"):
        glora.attach(tiny_vit(), presets.lora(2), name)


def test_wrong_calls():
    model = tiny_vit()
    with pytest.raises(ValueError, match="config must be a GLoRAConfig, got str"):
        glora.attach(model, "lora")
    glora.attach(model, presets.lora(2))
    with pytest.raises(ValueError, match="'default' is attached already"):
        glora.attach(model, presets.lora(2))
    with pytest.raises(ValueError, match=r"no adapter is called 'x'; attached are \['default'\]"):
        glora.switch(model, "x")
    glora.merge(model)
    with pytest.raises(ValueError, match="unmerge it first"):
        glora.attach(model, presets.lora(2), "two")


def test_heads_are_trained_saved_and_switched():
    model, x = tiny_vit(), images()
    report = glora.attach(model, presets.linear_probe(["head"]))
    assert report.saved == {"head": 16 * 3 + 3}
    assert report.trainable == 51
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 51
    before = model(x)
    perturb(model)
    after = model(x)
    assert not torch.equal(before, after)
    with glora.disabled(model):
        assert torch.equal(model(x), before)
    assert torch.equal(glora.merged_copy(model)(x), after)
    assert isinstance(glora.merged_copy(model).head, nn.Linear)


def test_a_layer_used_twice_is_adapted_once():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    report = glora.attach(model, presets.bitfit())
    assert report.by_layer == {"0": 4}
    assert model[0] is model[2]
    assert isinstance(model[0], AdaptedLayer)
    glora.detach(model)
    assert model[0] is shared
    assert model[2] is shared


def test_alphas_are_listed_by_layer():
    model = tiny_vit()
    glora.attach(model, presets.alpha_lora(2, target="attn", alpha=0.5))
    assert {name: tuple(a.shape) for name, a in glora.alphas(model).items()} == {
        name: (48,) if "qkv" in name else (16,) for name in QKV_PROJ
    }
    model.get_submodule("blocks.0.attn.qkv").alpha = 2.0
    assert glora.alphas(model)["blocks.0.attn.qkv"].unique().tolist() == [2.0]


def test_the_same_generator_gives_the_same_adapter():
    draws = []
    for _ in range(2):
        model = tiny_vit()
        glora.attach(model, presets.lora(2), generator=torch.Generator().manual_seed(7))
        draws.append(model.state_dict())
    assert all(torch.equal(draws[0][key], draws[1][key]) for key in draws[0])


def test_float64_and_meta_models():
    model = tiny_vit().double()
    glora.attach(model, presets.glora(2))
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    with torch.device("meta"):
        sketch = TimmLikeViT()
    assert glora.attach(sketch, presets.glora(2)).trainable == glora.count_parameters(model).trainable


def test_training_lowers_the_loss_and_leaves_the_base_alone():
    model, x = tiny_vit(), images(16)
    labels = torch.arange(16) % 3
    glora.attach(model, presets.glora(2, modules_to_save=["head"]))
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)


def test_the_report_is_a_table():
    table = str(glora.attach(tiny_vit(), presets.alpha_lora(2, modules_to_save=["head"])))
    lines = table.splitlines()
    assert lines[0].split() == ["layer", "number", "shape", "tensors", "parameters"]
    assert "blocks.*.attn.qkv 2 48×16 A=vector B=lora(2) D=vector tied 352" in [" ".join(s.split()) for s in lines]
    assert lines[-1].startswith("trainable ")


def test_compiled_and_wrapped_models_are_looked_into():
    model = tiny_vit()
    wrapped = nn.DataParallel(model)
    glora.attach(wrapped, presets.lora(2))
    assert glora.count_parameters(wrapped).trainable == glora.count_parameters(model).trainable
    compiled = torch.compile(model, backend="eager")
    glora.merge(compiled)
    assert isinstance(model.blocks[0].attn.qkv, AdaptedLayer)
    assert model.blocks[0].attn.qkv.merged == "default"
