"""Configurations: what is refused, what is counted, what survives a file."""

from __future__ import annotations

import json

import pytest

import glora
from glora import GLoRAConfig, LayerConfig
from glora.config import all_layer_configs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"A": "low-rank"}, "A must be one of none, scalar, vector, lora; got 'low-rank'"),
        ({"C": "scalar"}, "C must be one of none, vector, lora; got 'scalar'"),
        ({"D": "lora"}, "D must be one of"),
        ({"a_product": "dot"}, "a_product must be one of"),
        ({"init": "zeros"}, "init must be one of"),
        ({"rank": 0}, "rank must be a positive integer, got 0"),
        ({"rank": 2.0}, "rank must be a positive integer"),
        ({"rank": True}, "rank must be a positive integer"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"lora_scale": float("nan")}, "lora_scale must be finite"),
        ({"tie_a_d": True, "A": "vector"}, "tie_a_d=True makes D the same tensor as A"),
        ({"tie_a_d": True, "A": "lora", "D": "vector"}, "tie_a_d=True"),
        ({"tie_a_d": True, "A": "vector", "D": "vector", "a_product": "matmul"}, "a_product='elementwise'"),
        ({"alpha": 2.0}, "describe a scalar or vector A, got A='none'"),
        ({"train_alpha": False, "A": "lora"}, "describe a scalar or vector A"),
    ],
)
def test_a_bad_field_is_named_with_its_remedy(fields, message):
    with pytest.raises(ValueError, match=message):
        LayerConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "(q"}, "is not a regular expression"),
        ({"target": []}, "non-empty list"),
        ({"target": 3}, "target must be"),
        ({"modules_to_save": "head"}, "must be a list of names"),
        ({"overrides": {"qkv": "lora"}}, r"overrides\['qkv'\] must be a LayerConfig"),
        ({"overrides": {"(": LayerConfig()}}, "is not a regular expression"),
    ],
)
def test_a_bad_model_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        GLoRAConfig(**fields)


def test_there_are_432_structures_and_all_are_different():
    assert len(set(all_layer_configs())) == 432


def test_counts_follow_the_table():
    counts = LayerConfig(A="lora", B="vector", C="lora", D="scalar", E="vector", rank=3).count(10, 4)
    assert counts == {"A": 3 * 14, "B": 10, "C": 3 * 5, "D": 1, "E": 10}
    assert LayerConfig(A="vector", a_product="matmul").count(10, 4)["A"] == 4
    assert LayerConfig(A="lora", a_product="matmul", rank=3).count(10, 4)["A"] == 3 * 8
    assert LayerConfig(D="vector").count(10, 4, bias=False)["D"] == 0
    tied = LayerConfig(A="vector", D="vector", tie_a_d=True)
    assert sum(tied.count(10, 4).values()) == 10
    assert sum(LayerConfig(A="vector", train_alpha=False).count(10, 4).values()) == 0


def test_configurations_survive_json():
    config = GLoRAConfig(
        target=["qkv", "proj"],
        A="vector",
        B="lora",
        rank=3,
        lora_scale=0.5,
        overrides={"proj$": LayerConfig(E="vector"), "fc": LayerConfig()},
        modules_to_save=["head"],
        exclude_heads=False,
    )
    assert GLoRAConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match=r"unknown configuration fields \['ranks'\]"):
        GLoRAConfig.from_dict({"ranks": 3})
    with pytest.raises(ValueError, match="target is a function"):
        GLoRAConfig(target=lambda name, module: True, B="lora").to_dict()


def test_an_explicit_configuration_gives_every_layer_its_own():
    layers = {"a.b": LayerConfig(B="lora"), "a.c": LayerConfig(E="vector"), "a.bb": LayerConfig(B="lora")}
    config = GLoRAConfig.explicit(layers, ["head"])
    assert config.target == ("a.b", "a.c", "a.bb")
    assert {name: config.layer_for(name) for name in layers} == layers
    assert config.B == "lora"
    assert len(config.overrides) == 1


@pytest.mark.parametrize(
    ("preset", "summary"),
    [
        (glora.presets.lora(4), "B=lora(4)"),
        (glora.presets.bitfit(), "E=vector"),
        (glora.presets.ssf(), "A=vector D=vector E=vector tied"),
        (glora.presets.output_scale(), "A=vector D=vector tied"),
        (glora.presets.alpha_lora(2), "A=vector B=lora(2) D=vector tied"),
        (glora.presets.alpha_lora(2, per_row=False), "A=scalar B=lora(2) D=scalar tied"),
        (glora.presets.glora(3), "A=lora(3) B=lora(3) C=lora(3) D=vector E=vector"),
        (glora.presets.glora(3, C="none"), "A=lora(3) B=lora(3) D=vector E=vector"),
        (glora.presets.linear_probe(["head"]), "none"),
    ],
)
def test_presets_are_structures(preset, summary):
    assert preset.layer.summary == summary


def test_presets_take_a_target_and_loras_numerator():
    assert glora.presets.lora(4, target="qkv").target == "qkv"
    assert glora.presets.lora(4, numerator=16).lora_scale == 4
    assert glora.presets.alpha_lora(4, numerator=16, rank_stabilized=True).lora_scale == 8
