"""The rule of the steps: under random signs every tensor moves its layer's output as LoRA of rank 4 does."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from glora.config import LayerConfig
from glora.layer import steps
from glora.layer.adapter import Adapter
from glora.layer.tensors import LowRank

IN, OUT = 48, 24


def layer(kind: str = "linear") -> tuple[nn.Module, torch.Tensor]:
    """A layer and inputs like those after a GELU: far from centred, features of very different sizes."""
    g = torch.Generator().manual_seed(0)
    if kind == "conv":
        base: Any = nn.Conv2d(4, OUT, 3, padding=1, stride=2, groups=2)
        x = nn.functional.gelu(torch.randn(6, 4, 9, 9, generator=g) + 0.3)
    else:
        base = nn.Linear(IN, OUT)
        x = nn.functional.gelu(torch.randn(40, 5, IN, generator=g) * torch.rand(IN, generator=g) * 3)
    with torch.no_grad():
        for p in base.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=g))
    return base.requires_grad_(False), x


def moved(config: LayerConfig, base: nn.Module, x: torch.Tensor) -> dict[str, float]:
    """Root mean square change of the output when the zero-started numbers of each tensor become ±1 at random, in units
    of what that does in a LoRA of rank 4.

    Signs need no draws: a sum of independent ones has the mean square Σ c² of the changes c by each number alone.
    Draws of `right` do: many at once, as the ranks of one tensor, whose shares add up alike.
    """

    def square(config: LayerConfig, name: str, balanced: bool) -> float:
        """Mean square change; of a low-rank tensor by one of its ranks, times their number (squared for C)."""
        product = name == "A" and config.a_product == "matmul"  # whose rows reach all outputs: number by number
        draws = 30 if product else 200
        many = replace(config, rank=draws) if getattr(config, name) == "lora" else config
        adapter = Adapter(many, base, torch.Generator().manual_seed(1))
        tensor, own = getattr(adapter, name), 1.0
        if balanced:
            moments = steps.measured(adapter.op, base, x)
            steps.apply(adapter, base, {}, set())  # `right` at LoRA's size
            own = steps.factors(Adapter(config, base), base, moments)[name]
        parameter = adapter.started_at_zero[name]
        if isinstance(tensor, LowRank) and name == "C":  # the numbers of one entry have the sign of its gradient
            share = tensor.right.detach().abs().mean() * config.rank
            one = Adapter(LayerConfig(C="vector"), base)
            return own**2 * float(share) ** 2 * numbers(one, one.started_at_zero["C"])
        total = numbers(adapter, parameter, columns=isinstance(tensor, LowRank) and not product)
        return own**2 * total * (config.rank / draws if isinstance(tensor, LowRank) else 1.0)

    def numbers(adapter: Adapter, parameter: nn.Parameter, columns: bool = False) -> float:
        """Σ c² over the numbers of a parameter; over rows of a low-rank `left` at once, which reach other outputs."""
        with torch.no_grad():
            before, total = adapter(x, base), 0.0
            pieces = parameter.T if columns else parameter.view(-1)
            for place in range(len(pieces)):
                pieces[place] = 1.0
                total += float((adapter(x, base) - before).square().mean())
                pieces[place] = 0.0
        return total

    reference = square(LayerConfig(B="lora", rank=4), "B", False)
    return {name: math.sqrt(square(config, name, True) / reference) for name in Adapter(config, base).step_names}


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize(
    "fields",
    [
        {"A": "lora", "B": "lora", "C": "lora", "D": "vector", "E": "vector", "rank": 3, "init": "xavier"},
        {"A": "vector", "B": "vector", "C": "vector", "D": "scalar", "E": "scalar"},
        {"A": "scalar", "B": "scalar"},
        {"A": "vector", "D": "vector", "tie_a_d": True, "B": "lora", "rank": 8, "init": "gaussian"},
        {"A": "lora", "a_product": "matmul", "rank": 2},
        {"A": "lora", "B": "lora", "C": "lora", "rank": 16},
        {"A": "vector", "a_product": "matmul"},
    ],
)
def test_every_tensor_moves_the_output_as_lora_does(kind: str, fields: dict[str, Any]) -> None:
    base, x = layer(kind)
    for name, ratio in moved(LayerConfig(**fields), base, x).items():
        assert 1 / 1.05 < ratio < 1.05, (name, ratio)  # the draws of `right` are finite


def test_lora_of_rank_4_is_its_own_reference_bit_for_bit() -> None:
    base, x = layer()
    for rank, expected in ((4, 1.0), (16, 0.5)):
        raw, stepped = (
            Adapter(LayerConfig(B="lora", rank=rank), base, torch.Generator().manual_seed(3)) for _ in range(2)
        )
        steps.apply(stepped, base, steps.factors(stepped, base, steps.measured(stepped.op, base, x)), set())
        assert stepped.steps == {"B": expected}
        assert torch.equal(stepped.B.right, raw.B.right)  # type: ignore[union-attr]


def test_the_step_acts_on_the_whole_matrix_and_right_has_loras_size() -> None:
    base, _ = layer()
    for init in ("xavier", "gaussian", "kaiming"):
        config = LayerConfig(A="lora", B="lora", C="lora", rank=8, init=init)
        adapter = Adapter(config, base, torch.Generator().manual_seed(0))
        steps.apply(adapter, base, {"A": 7.0, "B": 2.0, "C": 3.0}, set())
        for tensor, step in ((adapter.A, 7.0), (adapter.B, 2.0), (adapter.C, 3.0)):
            assert isinstance(tensor, LowRank)
            one, right = tensor.cols == 1, tensor.right.detach()
            size = float(right.abs().mean() if one else right.square().mean().sqrt())
            assert size == pytest.approx(1 / math.sqrt(3 * IN), rel=1e-4 if one else 0.15)
            with torch.no_grad():
                tensor.left.normal_()
            assert torch.allclose(tensor.dense(), step * tensor.left @ tensor.right)


def test_setting_steps_keeps_what_a_trained_adapter_computes() -> None:
    base, x = layer()
    config = LayerConfig(A="lora", B="lora", C="vector", D="vector", E="scalar", rank=3, init="xavier")
    adapter = Adapter(config, base, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    before = adapter(x, base)
    for values in ({"A": 50.0, "B": 0.1, "C": 3.0, "D": 2.0, "E": 0.2}, {"A": 2.0, "B": 1.0, "C": 1.0}):
        steps.apply(adapter, base, values, set())
        assert torch.allclose(adapter(x, base), before, atol=1e-4)
    weight, bias = adapter.effective(base)
    assert torch.allclose(nn.functional.linear(x, weight, bias), before, atol=1e-4)


def test_alpha_is_read_and_set_as_without_a_step() -> None:
    base, x = layer()
    config = LayerConfig(A="vector", D="vector", tie_a_d=True, alpha=1.5)
    adapter = Adapter(config, base)
    before = adapter(x, base)
    steps.apply(adapter, base, {"A": 4.0}, set())
    assert torch.allclose(adapter.alpha, torch.full((OUT,), 1.5))
    assert torch.allclose(adapter(x, base), before, atol=1e-5)
    adapter.alpha = 0.75
    assert torch.equal(adapter.alpha, torch.full((OUT,), 0.75))
    assert torch.allclose(adapter(x, base), 0.75 * base(x), atol=1e-5)


def test_adams_first_steps_agree_whatever_the_step_of_a_gradient_is() -> None:
    """θ and T = m θ: Adam moves T by m times the rate; decoupled decay shrinks T alike whatever m."""
    base, x = layer()
    for m in (0.01, 1.0, 30.0):
        adapter = Adapter(LayerConfig(E="vector"), base)
        steps.apply(adapter, base, {"E": m}, set())
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2, weight_decay=0.0)
        adapter(x, base).sum().backward()
        optimizer.step()
        assert torch.allclose(adapter.E.dense(), torch.full((OUT, 1), -1e-2 * m), rtol=1e-4)  # type: ignore[union-attr]
        before = adapter.E.dense()  # type: ignore[union-attr]
        for parameter in adapter.parameters():
            parameter.grad = torch.zeros_like(parameter)
        torch.optim.AdamW(adapter.parameters(), lr=1e-2, weight_decay=1.0).step()
        assert torch.allclose(adapter.E.dense(), 0.99 * before)  # type: ignore[union-attr]


def test_a_small_bias_needs_no_cap_and_the_cases_without_an_answer() -> None:
    base, x = layer()
    plain = steps.measured(Adapter(LayerConfig(E="vector"), base).op, base, x)
    tiny = copy.deepcopy(base)
    with torch.no_grad():
        tiny.bias.mul_(1e-6)  # type: ignore[operator, union-attr]
    adapter = Adapter(LayerConfig(A="vector", D="vector"), tiny)
    shift = steps.factors(adapter, tiny, plain)["D"] * tiny.bias.detach().square().mean().sqrt()  # type: ignore[operator, union-attr]
    assert float(shift) == pytest.approx(
        steps.reference(plain), rel=1e-3
    )  # b0 is frozen: D is what E is, however small
    with torch.no_grad():
        tiny.bias.zero_()  # type: ignore[operator, union-attr]
    assert steps.factors(adapter, tiny, plain)["D"] == 1.0
    for bad in (torch.zeros_like(x), x / 0):
        moments = steps.measured(adapter.op, base, bad)
        assert not moments.usable
        assert set(steps.factors(adapter, base, moments).values()) == {1.0}


def test_a_sum_that_is_zero_behind_a_layer_norm_is_not_blown_up() -> None:
    base, x = layer()
    adapter = Adapter(LayerConfig(B="vector"), base)
    x = nn.functional.layer_norm(x, (IN,))
    found = steps.factors(adapter, base, steps.measured(adapter.op, base, x))["B"]
    # The entries of a B of ones move at most 32 times as far as those of LoRA's left right.
    assert found == pytest.approx(2 / math.sqrt(3 * IN) / steps.DRIFT)


def test_moments_add_up_over_batches() -> None:
    base, x = layer()
    op = Adapter(LayerConfig(E="vector"), base).op
    whole, parts = steps.measured(op, base, x), [steps.measured(op, base, part) for part in x.split(17)]
    total = parts[0].plus(parts[1]).plus(parts[2])
    assert torch.allclose(total.square, whole.square)
    assert (total.total, total.product, total.output) == pytest.approx((whole.total, whole.product, whole.output))


def test_the_estimate_is_the_measurement_on_centred_inputs() -> None:
    base, _ = layer()
    adapter = Adapter(LayerConfig(A="lora", B="vector", C="vector", D="vector", E="vector", rank=4), base)
    x = torch.randn(20_000, IN, generator=torch.Generator().manual_seed(5))
    measured = steps.factors(adapter, base, steps.measured(adapter.op, base, x))
    assert measured == pytest.approx(steps.factors(adapter, base, steps.assumed(adapter.op, base)), rel=0.03)
