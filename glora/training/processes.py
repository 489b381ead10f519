"""Processes that train one model together, and the device of each, as accelerate finds them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState


def processes(device: str) -> PartialState:
    """Accelerate's view of the processes, for the device that a run asks for.

    Accelerate keeps the first device that it was asked for as long as Python runs. A single process begins anew when a
    run asks for another one; several, which are connected on their devices, cannot.

    Args:
        device: "auto" or "cpu"; see `glora.runs.settings.TrainingSettings`.

    Raises:
        ValueError: several processes work on another device already.
    """
    from accelerate import PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import parse_flag_from_env

    cpu = device == "cpu" or parse_flag_from_env("ACCELERATE_USE_CPU")
    if PartialState._shared_state and PartialState()._cpu != cpu:
        if PartialState().num_processes > 1:
            raise ValueError(
                f"training.device={device!r}, but these {PartialState().num_processes} processes work on "
                f"{PartialState().device.type!r} already; give them one device"
            )
        AcceleratorState._reset_state(reset_partial_state=True)
    return PartialState(cpu=cpu)


def is_main_process() -> bool:
    """Whether this process is the one that prints, by what its launcher (torchrun, accelerate) calls it."""
    return int(os.environ.get("RANK", "0")) == 0


def sum_over_processes(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Sum ``.grad`` over accelerate's processes; a parameter that got none in any process keeps none."""
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=accelerator.device)
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    present, flat = (accelerator.reduce(tensor, "sum") for tensor in (present, flat))
    pieces = flat.split([p.numel() for p in parameters])
    for parameter, piece, count in zip(parameters, pieces, present.tolist(), strict=True):
        parameter.grad = piece.view_as(parameter) if count else None
