"""What a killed training continues from: the weights, optimizer states and averages of one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glora.training.averaging import Average
from glora.training.optimizer_state import load_optimizer, optimizer_tensors


def weights_of(model: nn.Module, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What training changes: trained parameters and buffers (running statistics), by name."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in names}
    return {**{name: parameter.detach() for name, parameter in trained.items()}, **buffers}


def load_weights(weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Set `weights` (see `weights_of`) in place to the tensors of the same names.

    Raises:
        ValueError: a tensor is missing or has another shape, which copying might hide by broadcasting.
    """
    for name, target in weights.items():
        if name not in tensors or tensors[name].shape != target.shape:
            there = "is missing" if name not in tensors else f"has shape {tuple(tensors[name].shape)}"
            raise ValueError(f"the checkpoint does not fit the model: {name} {there}, needed is {tuple(target.shape)}")
    with torch.no_grad():
        for name, target in weights.items():
            target.copy_(tensors[name])


def pack(
    weights: Mapping[str, Tensor], optimizers: Mapping[str, torch.optim.Optimizer], average: Average | None
) -> dict[str, Tensor]:
    """All tensors of a checkpoint: ``model.…``, one prefix for each optimizer's name, and ``average.…``."""
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()}
    for name, optimizer in optimizers.items():
        tensors |= {f"{name}.{key}": value for key, value in optimizer_tensors(optimizer).items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.tensors.items()}
    return tensors


def unpack(
    tensors: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    optimizers: Mapping[str, torch.optim.Optimizer],
    average: Average | None,
    step: int,
) -> None:
    """Inverse of `pack`: put a checkpoint of step number `step` into weights, optimizers and average."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "adapter": {}, "alpha": {}, "average": {}}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        if part not in parts:
            raise ValueError(f"the checkpoint holds {key!r}, which no part of a training writes")
        parts[part][name] = tensor
    load_weights(weights, parts["model"])
    for name, optimizer in optimizers.items():
        load_optimizer(optimizer, parts[name])
    if average is not None:
        load_weights(average.tensors, parts["average"])
        average.load(parts["average"], step)


def check_state(state: Mapping[str, Any], total: int) -> None:
    """Raise ValueError unless a run of `total` steps can go on from a checkpoint's state."""
    counts = (state.get("step"), state.get("without_gain"))
    step, waited = (count if isinstance(count, int) else -1 for count in counts)
    fits = 0 <= step <= total and waited >= 0 and isinstance(state.get("pending"), list)
    if not fits or not {"best", "best_step"} <= state.keys():
        raise ValueError(
            f"the checkpoint's state {dict(state)} does not belong to a run of {total} steps; delete the checkpoint to "
            "start anew"
        )
