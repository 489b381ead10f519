"""A task for training a supernet: its loss is that of the subnets drawn for the step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from glora.engines.space import Genome
from glora.search.supernet import SuperNet
from glora.tasks.base import Batch, Task


class SuperNetTask:
    """A task whose loss is the mean over the subnets of the training step (wrap the task, then `train`).

    Pass ``before_step=wrapped.before_step`` to `glora.training.loop.train`.

    Args:
        task: the task.
        supernet: the supernet that is trained on it.
        seed: of the subnets drawn.
        sampling, count: see `SuperNet.draws`.
    """

    def __init__(
        self, task: Task, supernet: SuperNet, *, seed: int = 0, sampling: str = "uniform", count: int = 1
    ) -> None:
        self._task, self._supernet = task, supernet
        self._draw: tuple[int, str, int] = (seed, sampling, count)
        self._genomes: list[Genome] = supernet.draws(seed, 0, sampling, count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def before_step(self, step: int) -> None:
        """Draw the subnets of a step."""
        seed, sampling, count = self._draw
        self._genomes = self._supernet.draws(seed, step, sampling, count)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch over the step's subnets."""
        losses = []
        for genome in self._genomes:
            self._supernet.select(genome)
            losses.append(self._task.loss(model, batch))
        return torch.stack(losses).mean()
