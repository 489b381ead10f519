"""Properties over random structures, shapes and dtypes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from glora.config import STRUCTURES, GLoRAConfig, LayerConfig
from glora.layer.wrappers import AdaptedLayer
from tests.glora.models import perturb
from tests.glora.oracle import effective


@st.composite
def layer_configs(draw: st.DrawFn) -> LayerConfig:
    """Any valid structure of a layer."""
    fields = {name: draw(st.sampled_from(choices)) for name, choices in STRUCTURES.items()}
    fields["a_product"] = draw(st.sampled_from(["elementwise", "matmul"]))
    fields["rank"] = draw(st.integers(1, 5))
    fields["lora_scale"] = draw(st.floats(-2, 2))
    fields["recompute"] = draw(st.booleans())
    if fields["A"] in ("scalar", "vector"):
        fields["alpha"] = draw(st.floats(-2, 2))
        if fields["a_product"] == "elementwise" and draw(st.booleans()):
            fields |= {"tie_a_d": True, "D": fields["A"]}
    return LayerConfig(**fields)


sizes = st.integers(1, 9)


@given(
    config=layer_configs(),
    shape=st.tuples(sizes, sizes),
    batch=st.lists(st.integers(0, 6), max_size=3),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_forward_merge_and_count_agree_with_the_oracle(config, shape, batch, bias, seed):
    generator = torch.Generator().manual_seed(seed)
    out_features, in_features = shape
    base = nn.Linear(in_features, out_features, bias=bias, dtype=torch.float64).requires_grad_(False)
    layer = AdaptedLayer(base)
    layer.add("a", config, generator)
    layer.select("a")
    assert sum(config.count(out_features, in_features, bias).values()) == sum(
        p.numel() for p in layer.parameters() if p.requires_grad
    )
    perturb(layer, seed)
    x = torch.randn(*batch, in_features, generator=generator, dtype=torch.float64)
    weight, b_eff = effective(config, dict(layer.adapters["a"].named_parameters()), base.weight, base.bias)
    expected = F.linear(x, weight, b_eff)
    output = layer(x)
    torch.testing.assert_close(output, expected)
    original = base.weight.clone()
    layer.swap_in("a", layer.merged_parameters("a"))
    torch.testing.assert_close(layer(x), expected)
    layer.swap_out()
    assert torch.equal(base.weight, original)
    assert torch.equal(layer(x), output)


@given(
    config=layer_configs(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    tokens=st.integers(0, 40),
)
def test_the_identity_holds_bit_for_bit_in_every_dtype(config, dtype, tokens):
    if config.alpha != 1:
        return
    base = nn.Linear(8, 6, dtype=dtype)
    layer = AdaptedLayer(base)
    layer.add("a", config)
    layer.select("a")
    x = torch.randn(tokens, 8).to(dtype)
    assert torch.equal(layer(x), base(x))


@given(
    layers=st.dictionaries(
        st.lists(st.from_regex(r"[a-z0-9_]{1,4}", fullmatch=True), min_size=1, max_size=3).map(".".join),
        layer_configs(),
        min_size=1,
        max_size=6,
    )
)
def test_configurations_survive_a_dictionary(layers):
    config = GLoRAConfig.explicit(layers)
    again = GLoRAConfig.from_dict(config.to_dict())
    assert again == config
    assert {name: again.layer_for(name) for name in layers} == layers


@given(field=st.sampled_from(["A", "B", "C", "D", "E"]), value=st.text(max_size=6))
def test_unknown_structures_are_refused(field, value):
    if value in STRUCTURES[field]:
        return
    with pytest.raises(ValueError, match=f"{field} must be one of"):
        LayerConfig(**{field: value})
