"""How training ends: with what it did, or diverged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class TrainingResult:
    """What a training run did.

    Attributes:
        steps: adapter steps done.
        alpha_steps: α steps done.
        passes: examples sent forward and backward, α's included.
        best: best main metric on validation (None without evaluation).
        best_step: the step it was reached at.
        stopped_early: whether patience ran out.
        seconds: time in this process.
        history: the lines of metrics, those before a resume included.
    """

    steps: int
    alpha_steps: int
    passes: int
    best: float | None
    best_step: int | None
    stopped_early: bool
    seconds: float
    history: list[dict[str, Any]] = field(repr=False)
