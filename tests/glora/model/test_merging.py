"""Merging: exact, idempotent, all or nothing, and undone bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import glora
from glora import GLoRAConfig, LayerConfig, presets
from tests.glora.models import images, perturb, tiny_vit
from tests.glora.oracle import effective, numbers

CONFIGS = {
    "alpha_lora": presets.alpha_lora(2),
    "glora": presets.glora(2),
    "product": presets.glora(2, a_product="matmul"),
    "scales": GLoRAConfig(A="scalar", B="scalar", C="vector", D="scalar", E="scalar"),
    "convolution": presets.glora(2, target=["patch_embed.proj"]),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in model.named_parameters(remove_duplicate=False)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@every_config
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_merged_weights_are_exact(config, dtype, bound):
    model = tiny_vit().to(dtype)
    glora.attach(model, config)
    perturb(model)
    glora.merge(model)
    for _, layer in glora.model.state.adapted_modules(model):
        adapter = layer.adapters["default"]
        parameters = numbers(adapter)
        weight, bias = layer._originals
        weight, bias = effective(adapter.config, parameters, weight.flatten(1).double(), bias.double())
        for merged, exact in ((layer.base.weight.flatten(1), weight), (layer.base.bias, bias)):
            assert merged.dtype == dtype
            assert (merged.double() - exact).abs().max() <= bound * exact.abs().max()


@every_config
def test_merging_is_idempotent_and_unmerging_restores_every_bit(config):
    model, x = tiny_vit(), images()
    glora.attach(model, config)
    perturb(model)
    before, output = weights(model), model(x)
    glora.merge(model)
    once = weights(model)
    torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-5)
    glora.merge(model)
    assert same(weights(model), once)
    glora.unmerge(model)
    assert same(weights(model), before)
    assert torch.equal(model(x), output)
    glora.unmerge(model)
    assert same(weights(model), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_restores_where_one_plus_a_is_zero(dtype):
    model = tiny_vit().to(dtype)
    glora.attach(model, presets.alpha_lora(2, alpha=0.0))
    before = weights(model)
    glora.merge(model)
    assert not model.blocks[0].attn.qkv.weight.any()
    glora.unmerge(model)
    assert same(weights(model), before)


def test_a_failure_leaves_the_base_as_it_was():
    model, x = tiny_vit(), images()
    glora.attach(model, presets.lora(2))
    perturb(model)
    with torch.no_grad():
        model.blocks[1].mlp.fc2.adapters["default"].B.left[0, 0] = float("inf")
    before = weights(model)
    with pytest.raises(ValueError, match=r"layer 'blocks.1.mlp.fc2': the merged weight has values that are not finite"):
        glora.merge(model)
    assert same(weights(model), before)
    assert glora.model.state.require_state(model).merged is None
    assert model.blocks[0].attn.qkv.merged is None
    assert model(x).shape == (5, 3)


def test_overflow_of_a_half_precision_base_is_refused():
    model = tiny_vit().half()
    glora.attach(model, presets.alpha_lora(2, alpha=1e6))
    with pytest.raises(ValueError, match=r"not finite in torch\.float16"):
        glora.merge(model)


def test_merged_is_a_context():
    model, x = tiny_vit(), images()
    glora.attach(model, presets.glora(2))
    perturb(model)
    before, output = weights(model), model(x)
    with glora.merged(model):
        assert model.blocks[0].attn.qkv.merged == "default"
        torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-5)
    assert same(weights(model), before)
    glora.merge(model)
    with glora.merged(model):
        pass
    assert model.blocks[0].attn.qkv.merged == "default"


def test_unmerging_follows_the_model_to_another_dtype():
    model = tiny_vit()
    glora.attach(model, presets.lora(2, target="qkv"))
    original = model.blocks[0].attn.qkv.weight
    glora.merge(model)
    model.double()
    glora.unmerge(model)
    assert torch.equal(model.blocks[0].attn.qkv.weight, original.double())


@every_config
def test_a_merged_copy_is_a_plain_model(config):
    model, x = tiny_vit(), images()
    structure = str(model)
    glora.attach(model, config)
    perturb(model)
    before, output = weights(model), model(x)
    plain = glora.merged_copy(model)
    assert str(plain) == structure
    assert all(p.requires_grad for p in plain.parameters())
    torch.testing.assert_close(plain(x), output, rtol=1e-4, atol=1e-5)
    assert same(weights(model), before)
    glora.merge(model)
    torch.testing.assert_close(glora.merged_copy(model)(x), output, rtol=1e-4, atol=1e-5)


def test_export_loads_without_us(tmp_path):
    from safetensors.torch import load_file

    model, x = tiny_vit(), images()
    glora.attach(model, presets.glora(2, modules_to_save=["head"]))
    perturb(model)
    assert glora.export(model, tmp_path) == []
    plain = tiny_vit(seed=9)
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_export_names_the_layers_that_gained_a_bias(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3))
    glora.attach(model, GLoRAConfig(E="vector"))
    with pytest.warns(UserWarning, match="1 layers have a bias in this checkpoint"):
        assert glora.export(model, tmp_path) == ["0"]


def test_merging_a_tied_weight_leaves_the_other_user_alone():
    model = nn.Module()
    model.embedding, model.out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    model.out.weight = model.embedding.weight
    glora.attach(model, GLoRAConfig(target=["out"], B="lora", rank=2))
    perturb(model)
    embedding = model.embedding.weight.clone()
    glora.merge(model)
    assert torch.equal(model.embedding.weight, embedding)
    glora.unmerge(model)
    assert model.out.base.weight is model.embedding.weight


def test_copies_of_adapted_models_are_independent():
    model, x = tiny_vit(), images()
    glora.attach(model, presets.alpha_lora(2))
    clone = copy.deepcopy(model)
    perturb(clone)
    glora.merge(clone)
    assert not torch.equal(clone(x), model(x))
    glora.detach(clone)
    assert torch.equal(clone(x), model(x))


def test_a_layer_of_its_own_structure_merges(tmp_path):
    model, x = tiny_vit(), images()
    config = GLoRAConfig(B="lora", rank=2, overrides={"fc1": LayerConfig(A="lora", rank=3), "fc2": LayerConfig()})
    glora.attach(model, config)
    perturb(model)
    output = model(x)
    glora.merge(model)
    torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-5)
