"""Figures and weights that are no numbers any more: a result, said as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class TrainingDiverged(RuntimeError):
    """A loss or gradient is not finite; the message says where, and which checkpoint is good."""


def require_finite(figures: Any, what: str) -> None:
    """Raise TrainingDiverged if a figure of a (nested) table is NaN or infinite."""
    for name, value in figures.items() if isinstance(figures, Mapping) else ():
        require_finite(value, what)
        if isinstance(value, float) and not math.isfinite(value):
            raise TrainingDiverged(
                f"{name} of {what} is {value}: the weights have grown beyond what the model can compute with. "
                "Train anew with a smaller lr, head_lr or weight_decay"
            )
