"""How long a run is, and how its learning rate moves."""

from __future__ import annotations

import math
from bisect import bisect_right

from glora.runs.settings import TrainingSettings


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
