"""Known methods as configurations; every preset takes `target` and the other fields of `GLoRAConfig`.

`lora` and `alpha_lora` have raw steps, the others balanced ones (see `GLoRAConfig`); ``steps="raw"`` is the papers'.

====================== =============================================== ==================================
preset                 structure                                       equals
====================== =============================================== ==================================
`linear_probe`         nothing; only `modules_to_save` train           exactly
`bitfit`               E vector                                        BitFit on the targeted layers
`lora`                 B lora                                          LoRA
`ssf`                  A = D vector (tied), E vector                   SSF's γ ∘ (W0 x + b0) + β
`output_scale`         A = D vector (tied)                             IA³-style scaling of outputs
`alpha_lora`           A = D (tied) = α − 1, B lora                    α-LoRA, Eq. 10
`glora`                A, B, C lora, D, E vector                       GLoRA's largest structure
====================== =============================================== ==================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from glora._checks import is_number, of_kind, whole
from glora.config import GLoRAConfig, Target


def linear_probe(modules_to_save: Sequence[str], target: Target = "all-linear") -> GLoRAConfig:
    """Train only the modules named in `modules_to_save` (the head)."""
    return GLoRAConfig(target=target, modules_to_save=modules_to_save)


def bitfit(target: Target = "all-linear", **fields: Any) -> GLoRAConfig:
    """Train a shift of every targeted layer's output: BitFit, and a new bias where there was none."""
    return GLoRAConfig(target=target, E="vector", **fields)


def lora(
    rank: int = 8,
    target: Target = "all-linear",
    *,
    numerator: float | None = None,
    rank_stabilized: bool = False,
    **fields: Any,
) -> GLoRAConfig:
    """LoRA: ``W0 x + lora_scale · left (right x)``.

    Args:
        rank: the rank r.
        target: which layers.
        numerator: LoRA's α, so that the factor is α/r (α/√r if `rank_stabilized`, as rsLoRA); 1 if None.
        rank_stabilized: divide by √r instead of r.
        **fields: further fields of `GLoRAConfig`.
    """
    fields = {"steps": "raw", **fields}
    return GLoRAConfig(target=target, B="lora", rank=rank, **_scaled(rank, numerator, rank_stabilized), **fields)


def alpha_lora(
    rank: int = 8,
    target: Target = "all-linear",
    *,
    alpha: float = 1.0,
    per_row: bool = True,
    train_alpha: bool = True,
    numerator: float | None = None,
    rank_stabilized: bool = False,
    **fields: Any,
) -> GLoRAConfig:
    """α-LoRA: ``alpha ∘ (W0 x + b0) + lora_scale · left (right x)``, with `alpha` one tied tensor A = D = α −
    1.

    Args:
        rank: rank of the adapter.
        target: which layers.
        alpha: initial value.
        per_row: one α a row of W0 (the paper), or one a layer.
        train_alpha: train α or keep it.
        numerator, rank_stabilized: see `lora`.
        **fields: further fields of `GLoRAConfig`.
    """
    of_kind("per_row", per_row, bool)
    structure = "vector" if per_row else "scalar"
    fields = {"steps": "raw", **fields}
    return GLoRAConfig(
        target=target,
        A=structure,
        D=structure,
        tie_a_d=True,
        B="lora",
        rank=rank,
        alpha=alpha,
        train_alpha=train_alpha,
        **_scaled(rank, numerator, rank_stabilized),
        **fields,
    )


def ssf(target: Target = "all-linear", **fields: Any) -> GLoRAConfig:
    """SSF: scale and shift every output, ``γ ∘ (W0 x + b0) + β`` with γ = 1 + A and β = E."""
    return GLoRAConfig(target=target, A="vector", D="vector", tie_a_d=True, E="vector", **fields)


def output_scale(target: Target = "all-linear", **fields: Any) -> GLoRAConfig:
    """Scale every output of a layer, bias included, as IA³ does for keys, values and feed-forward layers."""
    return GLoRAConfig(target=target, A="vector", D="vector", tie_a_d=True, **fields)


def glora(rank: int = 4, target: Target = "all-linear", **fields: Any) -> GLoRAConfig:
    """GLoRA's largest structure, the supernet's: A, B, C low-rank, D, E vectors, Xavier initialisation."""
    structures = {"A": "lora", "B": "lora", "C": "lora", "D": "vector", "E": "vector", "init": "xavier"}
    return GLoRAConfig(target=target, rank=rank, **{**structures, **fields})


def _scaled(rank: int, numerator: float | None, rank_stabilized: bool) -> dict[str, Any]:
    of_kind("rank_stabilized", rank_stabilized, bool)
    if numerator is None:
        return {}
    if not is_number(numerator):
        raise ValueError(f"numerator must be a finite number, got {numerator!r}")
    whole("rank", rank, 1)
    return {"lora_scale": numerator / (math.sqrt(rank) if rank_stabilized else rank)}
