"""The methods of the vision study: what each is called, and its layer configuration at a parameter budget.

LoRA, α-LoRA and GLoRA with a fixed structure get their size from ranks, spread over the transformer's blocks as
evenly as whole numbers allow; a searched or random subnet is repaired to the budget. BitFit, SSF and full fine-tuning
have the size they have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Methods whose size is free; a study trains them at each of its budgets.
TUNED = ("lora", "alpha_lora", "glora_fixed", "glora_random", "glora_searched")
EXTRA = ("bitfit", "ssf", "full")
LABELS = {
    "probe": "linear probe",
    "lora": "LoRA",
    "alpha_lora": "α-LoRA",
    "glora_fixed": "GLoRA, fixed",
    "glora_random": "GLoRA, random",
    "glora_searched": "GLoRA, searched",
    "glora_inherited": "GLoRA, inherited weights",
    "bitfit": "BitFit",
    "ssf": "SSF",
    "full": "full fine-tuning",
    "hira": "A low-rank (HiRA's form)",
    "vector_b": "vector B",
    "alpha_joint": "α-LoRA, joint, balanced",
}
WITHOUT = "_without_"  #: between a method and one of `PARTS` that is taken out of it
#: What can be taken out of a subnet: a support tensor, or B where it adds one number to a whole row of W.
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{tensor.lower(): (tensor, ("scalar", "vector", "lora")) for tensor in "ABCDE"},
    "broadcast_b": ("B", ("scalar", "vector")),
}
TOLERANCE = 0.05  #: budgets are met to this fraction

#: Layer names of a transformers ViT or Dinov2 that belong to a block's attention; all other adapted layers are MLP.
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
QUERY_VALUE = r"(q_proj|v_proj)$"


def sized(method: str, budgets: Sequence[int]) -> list[str]:
    """Names of a method at each budget: ``lora.50k`` and so on, the plain name where there is nothing to tell apart."""
    if method not in TUNED or len(budgets) == 1:
        return [method]
    return [f"{method}.{suffix(budget)}" for budget in budgets]


def suffix(budget: int) -> str:
    """A budget as it stands in the names of methods: thousands."""
    return f"{budget / 1000:g}k"


def parse(name: str, budgets: Sequence[int]) -> tuple[str, int]:
    """Inverse of `sized`: the method and its budget."""
    method, _, size = name.partition(".")
    return method, next((budget for budget in budgets if suffix(budget) == size), budgets[0])


def label(name: str) -> str:
    """What a method is called in tables and pictures."""
    name, _, dropped = name.partition(WITHOUT)
    method, _, size = name.partition(".")
    text = LABELS.get(method, method) + (f", without {_part(dropped)}" if dropped else "")
    return f"{text} ({size})" if size else text


def _part(name: str) -> str:
    tensor, structures = PARTS[name]
    return tensor if "lora" in structures else f"{' and '.join(structures)} {tensor}"


def style(name: str) -> dict[str, Any]:
    """Colour, marker and label of a method, the same in every picture of the study."""
    from rmt.plot import COLOURS, GREY

    method = name.partition(".")[0]
    place = list(LABELS).index(method) if method in LABELS else len(LABELS)
    colour = (GREY, *COLOURS[:5], COLOURS[2], *[COLOURS[5]] * 3, *[GREY] * 4)[place]
    return {"color": colour, "marker": "dosv^**PXDp<>h"[place], "label": label(method)}


def configuration(
    method: str,
    budget: int,
    build: Callable[[], Any],
    heads: Sequence[str],
    *,
    target: str = "all-linear",
    seed: int = 0,
    steps: str = "raw",
) -> Any:
    """The `glora.GLoRAConfig` of a method that needs no search.

    Args:
        method: one of `LABELS`, without "probe", "full" and "glora_searched".
        budget: parameters, met within 5 % by the methods of free size.
        build: makes a model of the kind that will be adapted; only shapes are read.
        heads: modules trained in full, not counted.
        target: layers of LoRA, α-LoRA and fixed GLoRA; the others take all linear layers.
        seed: of a random subnet.
        steps: see `glora.GLoRAConfig`; "raw" is the papers' recipe.

    Raises:
        ValueError: the method has no size near the budget.
    """
    import glora
    from glora.engines.random import random_subnet
    from glora.engines.space import Budget
    from glora.search.model_space import space_of

    fields: dict[str, Any] = {"modules_to_save": list(heads), "steps": steps}
    if method in ("bitfit", "ssf"):
        return getattr(glora.presets, method)(**fields)
    if method == "vector_b":
        return glora.GLoRAConfig(B="vector", **fields)
    if method == "glora_random":
        space = space_of(build(), 4, modules_to_save=heads)
        rng = np.random.default_rng([1, seed])
        return space.config(random_subnet(space, Budget.around(budget), rng), heads, steps=steps)
    made: dict[str, Callable[[int], Any]] = {
        "lora": glora.presets.lora,
        "alpha_lora": glora.presets.alpha_lora,
        "alpha_joint": glora.presets.alpha_lora,
        "glora_fixed": glora.presets.glora,
        "hira": lambda rank: glora.GLoRAConfig(A="lora", rank=rank),
    }
    layers = space_of(build(), 1, target, modules_to_save=heads).layers
    return glora.GLoRAConfig.explicit(_spread(method, made[method](1).layer, layers, budget), heads, steps=steps)


def _spread(method: str, layer: Any, layers: Sequence[Any], budget: int) -> dict[str, Any]:
    """The layer's configuration with a rank of its own in every block, so that all together meet the budget."""
    blocks: dict[int, list[Any]] = {}
    for one in layers:
        block = re.search(r"\.(\d+)\.", one.name)
        blocks.setdefault(int(block[1]) if block else 0, []).append(one)

    def size(config: Any, members: Sequence[Any]) -> int:
        return sum(sum(config.count(m.out_features, m.in_features, m.bias).values()) for m in members)

    once, twice = (size(replace(layer, rank=rank), layers) for rank in (1, 2))
    a_rank, count = (twice - once) / len(blocks), len(blocks)  # what a rank in one block costs
    units = round((budget - (2 * once - twice)) / a_rank)
    # Without a low-rank tensor left, the layer keeps its vectors.
    bare = replace(layer, **{name: "none" for name in "ABC" if getattr(layer, name) == "lora"})
    found: dict[str, Any] = {}
    for place, number in enumerate(sorted(blocks)):
        rank = (place + 1) * units // count - place * units // count
        config = replace(layer, rank=rank) if rank > 0 else bare
        found |= {member.name: config for member in blocks[number] if not config.is_empty}
    total = sum(size(found[one.name], [one]) for one in layers if one.name in found)
    if units < 1 or abs(total - budget) > TOLERANCE * budget:
        raise ValueError(
            f"{method} has no size within {TOLERANCE:.0%} of budget={budget:,} on {len(layers)} layers: it has "
            f"{2 * once - twice:,} parameters without a rank and {a_rank:,.0f} more for each rank in a block; "
            "choose another budget or target"
        )
    return found


def without(config: Any, part: str) -> Any:
    """A `glora.GLoRAConfig` that lacks one of `PARTS` in all its layers."""
    tensor, structures = PARTS[part]

    def left(layer: Any) -> Any:
        return replace(layer, **{tensor: "none"}) if getattr(layer, tensor) in structures else layer

    return replace(left(config), overrides={pattern: left(layer) for pattern, layer in config.overrides.items()})


def by_layer(space: Any, genome: Any, budget: int) -> dict[str, Any]:
    """Parameters that MLP layers and each support tensor received, and what random subnets of the budget give."""
    from glora.engines.random import random_subnet
    from glora.engines.space import Budget

    mlp = np.array([not layer.name.endswith(ATTENTION) for layer in space.layers])
    rng = np.random.default_rng(0)
    draws = [random_subnet(space, Budget.around(budget), rng) for _ in range(400)]
    shares = [mlp_share(space.gene_costs(draw).sum(axis=1), mlp) for draw in draws]
    costs = space.gene_costs(genome)
    return {
        "mlp_share": mlp_share(costs.sum(axis=1), mlp),
        "random_mlp_share": float(np.mean(shares)),
        "random_spread": float(np.std(shares)),
        "by_tensor": {t: int(count) for t, count in zip("ABCDE", costs.sum(axis=0), strict=True)},
    }


def mlp_share(parameters: NDArray[np.int64], mlp: NDArray[np.bool_]) -> float:
    """Part of a subnet's parameters that lies in MLP layers."""
    return float(parameters[mlp].sum() / max(1, parameters.sum()))
