"""The training loop: adapter and scale apart (Algorithm 1), exact to resume, the same for every task.

What happens in step t is a function of the settings, the seed and t: the batch, the augmentation, the dropout
masks, the learning rate. Only weights, optimizer states and a few counters have to be stored to continue, and a
run that was killed ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from glora.run import Run
from glora.schedule import AlphaSchedule, BatchOrder, alpha_parameters, gradients, mix, split_for_alpha
from glora.settings import TrainingSettings
from glora.tasks.base import Task, to_device

# Words that keep the streams of random numbers of a run apart.
_ORDER, _ALPHA_ORDER, _ALPHA_SPLIT, _STEP, _ALPHA_STEP = range(5)


class TrainingDiverged(RuntimeError):
    """A loss or gradient is not finite; the message says where, and which checkpoint is good."""


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


def train(
    model: nn.Module,
    task: Task,
    settings: TrainingSettings,
    *,
    run: Run | None = None,
    resume: bool = False,
    before_step: Callable[[int], None] | None = None,
) -> TrainingResult:
    """Train the parameters of `model` that require gradients, in place.

    Args:
        model: a model prepared by `glora.attach` or `glora.methods.apply`.
        task: where batches, loss and metrics come from.
        settings: how to train.
        run: where metrics and checkpoints go; None keeps nothing on disk.
        resume: continue from the run's last checkpoint if it has one.
        before_step: called with the number of each step (from 1) before it, for instance to choose a
            configuration of a supernet; it must be a function of that number, so that a resumed run repeats it.

    Returns:
        What was done; the model has the best or last weights, as ``settings.keep`` says.

    Raises:
        ValueError: nothing is to be trained, or the data cannot be split for α.
        TrainingDiverged: a loss or gradient is not finite; the weights are those before the step.
    """
    return _Loop(model, task, settings, run, before_step).run(resume)
