"""What a training will do, found before anything is done: parameters, batches, length, learning rates."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import nn

from glora.model.state import get_state
from glora.runs.settings import TrainingSettings
from glora.tasks.base import Task
from glora.training.alpha import alpha_parameters
from glora.training.batches import BatchOrder, mix, split_for_alpha


class Stream(IntEnum):
    """Words that keep the streams of random numbers of a run apart."""

    ORDER = 0
    ALPHA_ORDER = 1
    ALPHA_SPLIT = 2
    STEP = 3
    ALPHA_STEP = 4


@dataclass(frozen=True)
class Plan:
    """What a training will do.

    Attributes:
        trained: parameters that require gradients, by name; scales: those of α among the model's.
        scheduled: whether α has steps of its own.
        total: adapter steps.
        order, alpha_order: batches of the adapter and of α.
    """

    trained: dict[str, nn.Parameter]
    scales: dict[str, nn.Parameter]
    scheduled: bool
    total: int
    order: BatchOrder
    alpha_order: BatchOrder


def planned(model: nn.Module, task: Task, settings: TrainingSettings) -> Plan:
    """The plan of a training; a fixed α is frozen in the model.

    Raises:
        ValueError: nothing is to be trained, the adapter is merged, or the data cannot be split for α.
    """
    scales = alpha_parameters(model)
    if settings.alpha.mode == "fixed":
        for parameter in scales.values():
            parameter.requires_grad_(False)
    state = get_state(model)
    if state is not None and state.merged is not None:
        raise ValueError(f"cannot train: adapter {state.merged!r} is merged into the weights; unmerge it first")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("no parameter of the model requires a gradient; call glora.attach before train")
    scheduled = settings.alpha.mode == "scheduled" and bool(scales)
    seed, size = settings.seed, task.size(settings.split)
    pool, alpha_pool = list(range(size)), list[int]()
    if scheduled:
        pool, alpha_pool = split_for_alpha(size, settings.alpha, mix(seed, Stream.ALPHA_SPLIT))
    alpha_batch = settings.alpha.batch_size or settings.batch_size
    return Plan(
        trained=trained,
        scales=scales,
        scheduled=scheduled,
        total=adapter_steps(settings, size, scheduled=scheduled),
        order=BatchOrder(pool, settings.batch_size, mix(seed, Stream.ORDER)),
        alpha_order=BatchOrder(alpha_pool, alpha_batch, mix(seed, Stream.ALPHA_ORDER)),
    )


def adapter_optimizer(plan: Plan, task: Task, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over the adapter, the heads and (trained jointly) α, each group with its own learning rate."""
    joint = plan.scales if settings.alpha.mode == "joint" else {}
    parameters = {name: p for name, p in plan.trained.items() if not (plan.scheduled and name in plan.scales)}
    heads = {name for name in parameters if any(name.startswith(f"{head}.") for head in task.heads)}
    body = [p for name, p in parameters.items() if name not in heads and name not in joint]
    head_lr = settings.lr if settings.head_lr is None else settings.head_lr
    groups: list[dict[str, Any]] = [
        {"params": body, "lr": settings.lr},
        {"params": [parameters[name] for name in parameters if name in heads], "lr": head_lr},
        {"params": list(joint.values()), "lr": settings.alpha.lr, "weight_decay": settings.alpha.decay},
    ]
    groups = [{**group, "peak": group["lr"]} for group in groups if group["params"]]
    return torch.optim.AdamW(groups, betas=settings.betas, weight_decay=settings.weight_decay)


def adapter_steps(settings: TrainingSettings, size: int, *, scheduled: bool) -> int:
    """Number of adapter steps that fit the run's length on `size` examples once α's passes are taken off.

    Raises:
        ValueError: not even one step fits.
    """
    if settings.steps is not None:
        budget = settings.steps * settings.batch_size
    else:
        assert settings.epochs is not None
        budget = round(settings.epochs * size)
    steps = budget // settings.batch_size
    if steps < 1:
        raise ValueError(
            f"epochs={settings.epochs} of {size} examples is less than one batch of batch_size={settings.batch_size}; "
            "train longer, lower batch_size or take more examples"
        )
    if scheduled and settings.alpha.counted:
        every, batch = settings.alpha.every, settings.alpha.batch_size or settings.batch_size
        passes = lambda count: count * settings.batch_size + count // every * batch  # noqa: E731 (grows with count)
        steps = bisect_right(range(steps + 1), budget, key=passes) - 1
    if steps < 1:
        length = f"epochs={settings.epochs} of {size} examples" if settings.steps is None else f"steps={settings.steps}"
        raise ValueError(
            f"{length} leaves no adapter step once α's passes (alpha.every={settings.alpha.every}) are taken off; "
            "train longer, raise alpha.every or set alpha.counted to false"
        )
    return steps


def learning_rate_factor(settings: TrainingSettings, step: int, total: int) -> float:
    """Learning rate of step `step` (from 1) of `total`, as a fraction of its peak."""
    done = step - 1
    rising = round(settings.warmup * total)
    if done < rising:
        return (done + 1) / (rising + 1)
    progress = (done - rising) / max(1, total - rising)
    if settings.schedule == "constant":
        return 1.0
    left = 1.0 - progress if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return settings.floor + (1.0 - settings.floor) * left
