"""Published adapter methods written out from their papers, beside the structure of ours that should equal each.

Nothing here uses ``glora`` to compute: a method is a function of a frozen layer (W, b) and its own
parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from glora.config import LayerConfig
from glora.layer.wrappers import AdaptedLayer

OUT, IN, RANK = 12, 10, 3

Forward = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """One method with parameters drawn at random.

    Attributes:
        forward: (x (n, in), W (out, in), b (out,)) → (n, out), from the method's paper.
        config: our structure for it.
        parameters: its parameters under our names.
        embedded: the same function as a point of GLoRA's largest structure (a function of W).
    """

    forward: Forward
    config: LayerConfig
    parameters: dict[str, Tensor] = field(default_factory=dict)
    embedded: Callable[[Tensor], dict[str, Tensor]] = lambda weight: {}


#: GLoRA's largest structure, whose parameters every included method must be able to take.
LARGEST = LayerConfig(A="lora", B="lora", C="lora", D="vector", E="vector", rank=RANK)


def methods(seed: int) -> dict[str, Method]:
    """The methods that are affine in a layer's input, with random parameters."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)

    left, right = draw(OUT, RANK), draw(RANK, IN)
    shift, scale, prompt = draw(OUT), 1 + draw(OUT), draw(IN)
    up, down = draw(IN, RANK), draw(RANK, IN)
    lora_scale = 0.5
    tied: dict[str, Any] = {"A": "vector", "D": "vector", "tie_a_d": True}

    def scaled(weight: Tensor) -> dict[str, Tensor]:
        # One column times a row of ones is a vector A; D is the same vector.
        return {"A.left": _first_column(scale - 1), "A.right": _first_row(torch.ones(IN)), "D.value": scale - 1}

    def low_rank(weight: Tensor) -> dict[str, Tensor]:
        return {"B.left": lora_scale * left, "B.right": right}

    return {
        "linear probe": Method(lambda x, w, b: x @ w.T + b, LayerConfig()),
        "LoRA": Method(
            lambda x, w, b: x @ w.T + b + lora_scale * (x @ right.T) @ left.T,
            LayerConfig(B="lora", rank=RANK, lora_scale=lora_scale),
            {"B.left": left, "B.right": right},
            low_rank,
        ),
        "BitFit": Method(
            lambda x, w, b: x @ w.T + (b + shift),
            LayerConfig(E="vector"),
            {"E.value": shift},
            lambda w: {"E.value": shift},
        ),
        "SSF": Method(
            lambda x, w, b: scale * (x @ w.T + b) + shift,
            LayerConfig(E="vector", **tied),
            {"A.value": scale - 1, "E.value": shift},
            lambda w: {**scaled(w), "E.value": shift},
        ),
        "IA³-type output scale": Method(
            lambda x, w, b: scale * (x @ w.T + b), LayerConfig(**tied), {"A.value": scale - 1}, scaled
        ),
        "α-LoRA": Method(
            lambda x, w, b: scale * (x @ w.T + b) + lora_scale * (x @ right.T) @ left.T,
            LayerConfig(B="lora", rank=RANK, lora_scale=lora_scale, **tied),
            {"A.value": scale - 1, "B.left": left, "B.right": right},
            lambda w: {**scaled(w), **low_rank(w)},
        ),
        "RepAdapter": Method(
            lambda x, w, b: (x + (x @ down.T) @ up.T + prompt) @ w.T + b,
            LayerConfig(A="lora", C="vector", a_product="matmul", rank=RANK),
            {"A.left": up, "A.right": down, "C.value": prompt},
            lambda w: {"B.left": w @ up, "B.right": down, **_prompt(prompt)},
        ),
        "additive prompt": Method(
            lambda x, w, b: (x + prompt) @ w.T + b,
            LayerConfig(C="vector"),
            {"C.value": prompt},
            lambda w: _prompt(prompt),
        ),
    }


def frozen_layer(seed: int) -> nn.Linear:
    """A layer with random weights in float64."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(IN, OUT, dtype=torch.float64).requires_grad_(False)
    layer.weight.copy_(torch.randn(OUT, IN, generator=generator, dtype=torch.float64))
    layer.bias.copy_(torch.randn(OUT, generator=generator, dtype=torch.float64))
    return layer


def adapted(base: nn.Linear, config: LayerConfig, parameters: dict[str, Tensor]) -> AdaptedLayer:
    """Our layer with the given parameters; those not given are zero."""
    layer = AdaptedLayer(base)
    layer.add("method", config, torch.Generator().manual_seed(0))
    layer.select("method")
    own = dict(layer.adapters["method"].named_parameters())
    unknown = parameters.keys() - own.keys()
    if unknown:
        raise ValueError(f"{config.summary} has no parameters {sorted(unknown)}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(parameters.get(name, torch.zeros_like(parameter)))
    return layer


def inputs(seed: int, number: int = 64) -> Tensor:
    """Random inputs, (number, in)."""
    return torch.randn(number, IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def difference(one: Tensor, other: Tensor) -> float:
    """‖one − other‖ / ‖other‖."""
    return float((one - other).norm() / other.norm())


def _first_column(values: Tensor) -> Tensor:
    return torch.cat([values[:, None], torch.zeros(len(values), RANK - 1, dtype=values.dtype)], dim=1)


def _first_row(values: Tensor) -> Tensor:
    return _first_column(values.double()).T


def _prompt(prompt: Tensor) -> dict[str, Tensor]:
    return {"C.left": _first_column(prompt), "C.right": _first_row(torch.ones(1, dtype=torch.float64))}
