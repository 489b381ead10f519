"""Several processes that train one model together, as accelerate finds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from accelerate import Accelerator


def sum_over_processes(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Sum ``.grad`` over accelerate's processes; a parameter that got none in any process keeps none."""
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=accelerator.device)
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    present, flat = (accelerator.reduce(tensor, "sum") for tensor in (present, flat))
    pieces = flat.split([p.numel() for p in parameters])
    for parameter, piece, count in zip(parameters, pieces, present.tolist(), strict=True):
        parameter.grad = piece.view_as(parameter) if count else None
