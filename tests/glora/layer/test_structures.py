"""Every structure of every layer type against one dense oracle, outputs and gradients, in float64.

The test case is inherited: a layer type is a subclass that says how to build the layer and its input.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glora.config import A_PRODUCTS, STRUCTURES, LayerConfig, all_layer_configs
from glora.layer.wrappers import AdaptedLayer
from tests.glora.oracle import effective


def randomize(module: nn.Module, seed: int = 0) -> None:
    """Move every trainable parameter away from zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = 0.3 * torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64, device="cpu"
            ).to(parameter.dtype)


def close(actual: Tensor, expected: Tensor, tolerance: float, what: str = "output") -> None:
    """Like `torch.testing.assert_close`, which is too slow for tens of thousands of comparisons."""
    assert actual.shape == expected.shape, f"{what}: {actual.shape} against {expected.shape}"
    error = (actual - expected).abs().max().item() if actual.numel() else 0.0
    assert error <= tolerance * (1 + expected.abs().max().item()), f"{what}: off by {error:.2e}"


class LayerCase:
    """What is inherited; a subclass gives `base()`, `inputs()` and `reference(x, weight matrix, bias)`."""

    def base(self) -> nn.Module:
        raise NotImplementedError

    def inputs(self) -> Tensor:
        raise NotImplementedError

    def matrix(self, base: nn.Module) -> Tensor:
        return base.weight

    def reference(self, base: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def adapted(self, config: LayerConfig, *, random: bool = True) -> AdaptedLayer:
        torch.default_generator.manual_seed(0)
        base = self.base().double().requires_grad_(False)
        layer = AdaptedLayer(base)
        layer.add("a", config, torch.Generator().manual_seed(1))
        layer.select("a")
        if random:
            randomize(layer.adapters["a"])
        return layer

    def check(self, config: LayerConfig) -> None:
        layer = self.adapted(config)
        parameters = dict(layer.adapters["a"].named_parameters())
        x = self.inputs().double().requires_grad_(True)
        output = layer(x)
        bias = layer.base.bias
        weight, bias = effective(config, parameters, self.matrix(layer.base), bias)
        expected = self.reference(layer.base, x, weight, bias)
        close(output, expected, 1e-10)
        seed = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(2))
        wrt = [x, *(p for p in parameters.values() if p.requires_grad)]
        actual_grads = torch.autograd.grad(output, wrt, seed)
        for tensor, actual, wanted in zip(wrt, actual_grads, torch.autograd.grad(expected, wrt, seed), strict=True):
            close(actual, wanted, 1e-10, f"gradient of shape {tuple(tensor.shape)}")
        merged, merged_bias = layer.merged_parameters("a")
        close(self.matrix_of(merged), weight, 1e-13, "merged weight")
        assert (merged_bias is None) == (bias is None)
        if bias is not None:
            close(merged_bias, bias, 1e-13, "merged bias")

    def matrix_of(self, weight: Tensor) -> Tensor:
        return weight.data

    @pytest.mark.parametrize("a_product", A_PRODUCTS)
    @pytest.mark.parametrize("structure_of_a", STRUCTURES["A"])
    def test_all_432_structures(self, structure_of_a: str, a_product: str) -> None:
        checked = 0
        for config in all_layer_configs(rank=2, a_product=a_product, lora_scale=0.5):
            if structure_of_a == config.A:
                try:
                    self.check(config)
                except (AssertionError, RuntimeError) as error:
                    raise AssertionError(f"{config.summary}: {error}") from error
                checked += 1
        assert checked == 108

    @pytest.mark.parametrize("structure", ["scalar", "vector"])
    @pytest.mark.parametrize("recompute", [False, True])
    def test_tied_scale_multiplies_weight_and_bias(self, structure: str, recompute: bool) -> None:
        config = LayerConfig(A=structure, D=structure, tie_a_d=True, B="lora", rank=2, alpha=0.7, recompute=recompute)
        self.check(config)
        layer = self.adapted(dataclasses.replace(config, B="none"), random=False)
        x = self.inputs().double()
        torch.testing.assert_close(layer(x), 0.7 * layer.base(x))

    @pytest.mark.parametrize("a_product", A_PRODUCTS)
    def test_starts_as_the_base_bit_for_bit(self, a_product: str) -> None:
        for config in all_layer_configs(rank=2, a_product=a_product):
            layer = self.adapted(config, random=False).float()
            x = self.inputs()
            assert torch.equal(layer.eval()(x), layer.base(x)), config.summary


class TestLinear(LayerCase):
    def base(self) -> nn.Module:
        return nn.Linear(5, 7)

    def inputs(self) -> Tensor:
        return torch.randn(3, 11, 5, generator=torch.Generator().manual_seed(3))

    def reference(self, base, x, weight, bias):
        return F.linear(x, weight, bias)


class TestLinearOfOneToken(TestLinear):
    """Few tokens take the factored form of an element-wise low-rank A."""

    def inputs(self) -> Tensor:
        return torch.randn(5, generator=torch.Generator().manual_seed(3))


class TestLinearWithoutBias(TestLinear):
    def base(self) -> nn.Module:
        return nn.Linear(5, 7, bias=False)


class TestLinearSubclassWithItsOwnForward(TestLinear):
    """Element-wise low-rank A is refused there; everything else goes through the layer's own forward."""

    class Doubled(nn.Linear):
        def forward(self, x):
            return super().forward(x)

    def base(self) -> nn.Module:
        return self.Doubled(5, 7)

    def check(self, config: LayerConfig) -> None:
        if (config.A == "lora" and config.a_product == "elementwise") or config.recompute:
            with pytest.raises(ValueError, match="has its own forward"):
                self.adapted(config)
        else:
            super().check(config)

    @pytest.mark.parametrize("structure", ["scalar", "vector"])
    def test_tied_scale_multiplies_weight_and_bias(self, structure: str) -> None:
        super().test_tied_scale_multiplies_weight_and_bias(structure, False)

    def test_starts_as_the_base_bit_for_bit(self) -> None:
        super().test_starts_as_the_base_bit_for_bit("matmul")


class TestConv2d(LayerCase):
    def base(self) -> nn.Module:
        return nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def inputs(self) -> Tensor:
        return torch.randn(2, 4, 7, 6, generator=torch.Generator().manual_seed(3))

    def matrix(self, base):
        return base.weight.flatten(1)

    def matrix_of(self, weight):
        return weight.data.flatten(1)

    def reference(self, base, x, weight, bias):
        return base._conv_forward(x, weight.reshape(base.weight.shape), bias)


class TestGroupedDilatedConv2d(TestConv2d):
    def base(self) -> nn.Module:
        return nn.Conv2d(4, 6, (3, 2), dilation=2, padding="same", groups=2, bias=False)


class TestCircularConv2d(TestConv2d):
    def base(self) -> nn.Module:
        return nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular")


class TestTransformersConv1D(LayerCase):
    def base(self) -> nn.Module:
        from transformers.pytorch_utils import Conv1D

        layer = Conv1D(7, 5)
        nn.init.normal_(layer.bias)
        return layer

    def inputs(self) -> Tensor:
        return torch.randn(3, 11, 5, generator=torch.Generator().manual_seed(3))

    def matrix(self, base):
        return base.weight.t()

    def matrix_of(self, weight):
        return weight.data.t()

    def reference(self, base, x, weight, bias):
        return F.linear(x, weight, bias)
