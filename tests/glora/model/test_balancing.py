"""Steps on a whole model: estimated, measured, kept; and nothing changes for those who did not ask."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import glora
from glora import GLoRAConfig, LayerConfig, presets
from glora._files import sealed
from glora.layer.wrappers import AdaptedLayer
from glora.model.balancing import restore_steps, steps_of
from glora.model.checkpoint import adapter_tensors
from glora.model.state import adapted_modules
from glora.training.alpha import share_alpha
from tests.glora.models import images, perturb, tiny_vit

ALL = {"A": "lora", "B": "vector", "C": "lora", "D": "vector", "E": "scalar", "rank": 2, "init": "xavier"}


def attached(config: GLoRAConfig, *, zero_bias: bool = False) -> nn.Module:
    model = tiny_vit()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and not zero_bias:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    glora.attach(model, config, generator=torch.Generator().manual_seed(0))
    return model


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("preset", [presets.lora(2, numerator=4), presets.alpha_lora(2, alpha=0.8)])
def test_lora_and_alpha_lora_stay_raw(preset: GLoRAConfig) -> None:
    assert preset.steps == "raw"
    assert steps_of(attached(preset)) == {}


def test_custom_lora_of_rank_4_is_lora_bit_for_bit() -> None:
    models = [attached(presets.lora(4)), attached(GLoRAConfig(B="lora", rank=4))]
    glora.balance(models[1], images())
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert {step for steps in steps_of(models[1]).values() for step in steps.values()} == {1.0}


def test_attach_estimates_and_balance_measures() -> None:
    model = attached(GLoRAConfig(**ALL))
    x, before = images(), steps_of(model)
    output = model(x)
    assert torch.equal(output, attached(GLoRAConfig(**ALL, steps="raw"))(x))  # a fresh adapter does nothing
    found = glora.balance(model, x)
    assert found == steps_of(model) != before
    assert found.keys() == before.keys() == {name for name, m in adapted_modules(model)}
    assert torch.equal(model(x), output)
    # What is measured is the same however it is fed, and again.
    assert glora.balance(model, (x,)) == found
    for key, steps in glora.balance(model, [x[:2], x[2:]]).items():
        assert steps == pytest.approx(found[key], rel=1e-4)
    assert glora.balance(model, x, forward=lambda model, batch: model(batch[:2])) != found


def test_balance_leaves_modes_and_random_numbers_alone() -> None:
    model = attached(GLoRAConfig(**ALL)).train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    glora.balance(model, images(), forward=lambda model, batch: (torch.rand(5), model(batch)))
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_pre_hooks) for module in model.modules()] == hooks


def test_one_warning_says_what_could_not_be_measured() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = attached(GLoRAConfig(D="vector", E="vector"), zero_bias=True)  # attach is silent
    nn.init.zeros_(model.blocks[1].attn.qkv.base.bias)
    with pytest.warns(UserWarning, match=r"1 tensors move nothing \(blocks.1.attn.qkv.D\)") as seen:
        steps = glora.balance(model, images())
    assert len(seen) == 1
    assert steps["blocks.1.attn.qkv"]["D"] == 1.0
    with pytest.warns(UserWarning, match="layers got no input, or inputs that are zero or not finite"):
        steps = glora.balance(model, images(), forward=lambda model, batch: model.blocks[0].mlp.fc1(torch.zeros(2, 16)))
    assert {step for layer in steps.values() for step in layer.values()} == {1.0}
    with pytest.raises(ValueError, match="balance got no batch"):
        glora.balance(model, [])


def test_meta_models_have_steps_of_1() -> None:
    with torch.device("meta"):
        model = tiny_vit()
    glora.attach(model, GLoRAConfig(**ALL))
    assert {step for steps in steps_of(model).values() for step in steps.values()} == {1.0}


@pytest.mark.parametrize(
    "config",
    [
        GLoRAConfig(**ALL, overrides={"proj": LayerConfig(A="vector", B="lora", rank=1)}, modules_to_save=["head"]),
        presets.ssf(modules_to_save=["head"]),
        presets.glora(2, a_product="matmul"),
    ],
)
def test_a_saved_adapter_keeps_its_steps(tmp_path: Any, config: GLoRAConfig) -> None:
    model, x = attached(config), images()
    found = glora.balance(model, x)
    perturb(model)
    glora.save(model, tmp_path)
    index = json.loads((tmp_path / "adapter.json").read_text())
    assert index["version"] == 2
    assert index["steps"] == found
    stored = adapter_tensors(model, "default")
    again = attached(presets.lora(1))
    glora.detach(again)
    glora.load(again, tmp_path)
    assert steps_of(again) == found
    assert all(torch.equal(tensor, stored[key]) for key, tensor in adapter_tensors(again, "default").items())
    assert torch.equal(again(x), model(x))
    torch.testing.assert_close(glora.merged_copy(again)(x), model(x), rtol=1e-4, atol=1e-5)
    # Into an adapter of the same structure whose steps differ.
    other = attached(config)
    glora.load(other, tmp_path)
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.mlp.fc1": {"E": 0.0}}, "the step of blocks.0.mlp.fc1.E is 0.0, not a positive number"),
        ({"blocks.0.mlp.fc1": {"B": 1.0}}, "a step for blocks.0.mlp.fc1.B, which the adapter does not have"),
        ({"blocks.7": {"E": 1.0}}, "steps for layer 'blocks.7', which the adapter does not adapt"),
    ],
)
def test_damaged_steps_are_refused_before_the_model_changes(tmp_path: Any, change: Any, message: str) -> None:
    model = attached(presets.bitfit())
    glora.save(model, tmp_path)
    path = tmp_path / "adapter.json"
    index = {key: value for key, value in json.loads(path.read_text()).items() if key != "digest"}
    path.write_text(json.dumps(sealed({**index, "steps": change})))
    glora.detach(model)
    with pytest.raises(ValueError, match=message):
        glora.load(model, tmp_path)
    assert not list(adapted_modules(model))


def test_layers_that_share_a_scale_share_its_step() -> None:
    model = attached(GLoRAConfig(A="scalar", D="scalar", tie_a_d=True, alpha=0.9))
    alone = glora.balance(model, images())
    output = model(images())
    share_alpha(model, "layer")
    torch.testing.assert_close(model(images()), output, rtol=1e-4, atol=1e-5)
    together = steps_of(model)
    for block in ("blocks.0.", "blocks.1."):
        steps = {key: together[key]["A"] for key in together if key.startswith(block)}
        assert len(set(steps.values())) == 1
        expected = sum(alone[key]["A"] ** -2 for key in steps) / len(steps)
        assert next(iter(steps.values())) == pytest.approx(expected**-0.5)
    assert glora.balance(model, images()) == {key: pytest.approx(steps) for key, steps in together.items()}
    assert all(torch.allclose(alpha, torch.tensor(0.9)) for alpha in glora.alphas(model).values())


def test_restored_steps_say_which_layers_are_raw() -> None:
    model = attached(GLoRAConfig(**ALL))
    found = steps_of(model)
    restore_steps(model, {})
    assert steps_of(model) == {}
    restore_steps(model, found)
    assert steps_of(model) == found


def test_configurations_write_steps_and_read_their_absence_as_raw() -> None:
    for config in (GLoRAConfig(E="vector"), GLoRAConfig(E="vector", steps="raw"), presets.lora()):
        assert config.to_dict()["steps"] == config.steps
        assert GLoRAConfig.from_dict(config.to_dict()) == config
    assert GLoRAConfig(E="vector").steps == "balanced"
    assert GLoRAConfig.from_dict({"E": "vector"}).steps == "raw"
    with pytest.raises(ValueError, match="steps must be one of balanced, data-free, raw; got 'adam'"):
        GLoRAConfig(E="vector", steps="adam")


def test_every_choice_of_a_supernet_has_its_step() -> None:
    model = tiny_vit()
    nn.init.normal_(model.blocks[0].attn.qkv.bias, std=0.2)
    supernet = glora.SuperNet(model, 2, modules_to_save=["head"], generator=generator())
    found = glora.balance(model, images(), forward=lambda model, batch: model(batch))["blocks.0.attn.qkv"]
    assert found.keys() == {
        "A", "B", "C", "D", "E", "A.scalar", "A.vector", "B.scalar", "B.vector", "C.vector", "D.scalar", "E.scalar",
    }  # fmt: skip
    plain = {
        structure: attached_like(model, A=structure, B=structure, C="lora" if structure == "scalar" else structure)
        for structure in ("scalar", "vector", "lora")
    }
    for structure, steps in plain.items():
        for tensor in "AB":
            key = tensor if structure == "lora" else f"{tensor}.{structure}"
            assert steps[tensor] == pytest.approx(found[key]), key
    perturb(model)
    for seed in range(3):
        genome = supernet.draws(seed, 0)[0]
        supernet.select(genome)
        with torch.no_grad():
            expected = model(images())
            with supernet.merged(genome):
                torch.testing.assert_close(model(images()), expected, rtol=1e-4, atol=1e-5)
    assert supernet.config(supernet.genome).steps == "balanced"


def attached_like(model: nn.Module, **structures: str) -> dict[str, float]:
    """The measured steps of one layer of a plain adapter on the same base model."""
    with glora.disabled(model):
        plain = tiny_vit()
        bases = {name: m.base for name, m in adapted_modules(model) if isinstance(m, AdaptedLayer)}
        for name, base in bases.items():
            plain.get_submodule(name).load_state_dict(base.state_dict())
    glora.attach(plain, GLoRAConfig(rank=2, init="xavier", **structures), generator=generator())  # type: ignore[arg-type]
    return glora.balance(plain, images())["blocks.0.attn.qkv"]


def test_an_extracted_subnet_computes_what_it_did_in_the_supernet() -> None:
    torch.manual_seed(0)
    model = tiny_vit()
    supernet = glora.SuperNet(model, 2, modules_to_save=["head"], generator=generator())
    perturb(model)
    genome = supernet.draws(3, 0)[0]
    supernet.select(genome)
    with torch.no_grad():
        expected = model(images())
        supernet.extract(genome, name="found")
        assert torch.equal(model(images()), expected)
    assert steps_of(model, "found").keys() <= steps_of(model, "supernet").keys()


def test_a_raw_supernet_is_the_papers() -> None:
    model = tiny_vit()
    supernet = glora.SuperNet(model, 2, generator=generator(), steps="raw")
    assert steps_of(model) == {}
    assert supernet.config(supernet.space.largest).steps == "raw"
    layer = dict(adapted_modules(model))["blocks.0.mlp.fc1"].adapters["supernet"]
    assert float(layer.A.right.detach().abs().max()) > 0.3  # Xavier's, not LoRA's
    with pytest.raises(ValueError, match="steps must be one of balanced, data-free, raw; got 'none'"):
        glora.SuperNet(tiny_vit(), 2, steps="none")
