"""Which examples each batch holds: a function of the seed and the batch's number alone.

α's batches are held out of the adapter's examples. The official code of α-LoRA (arXiv 2510.21345) draws them from the
adapter's own training examples; ``source="overlap"`` asks for that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from glora._checks import fits_memory
from glora.runs.settings import AlphaSettings, TrainingSettings
from glora.tasks.base import Task

#: Examples of a batch from which on it is asked whether a batch fits.
LARGE = 4096


def require_room(task: Task, settings: TrainingSettings) -> None:
    """Raise ValueError if a batch is more than this machine's memory, judged by the size of one example."""
    for name, batch in (("batch_size", settings.batch_size), ("alpha.batch_size", settings.alpha.batch_size or 0)):
        if batch > LARGE:
            one = task.batch(settings.split, [0])
            example = sum(tensor.numel() * tensor.element_size() for tensor in one.values())
            at_once = min(batch, settings.micro_batch_size or batch)
            size = 40.0 * batch + float(example) * at_once  # 40: a whole number in a list
            fits_memory(
                f"training.{name}={batch}", size, f"lower it; the split has {task.size(settings.split)} examples"
            )


def split_for_alpha(size: int, settings: AlphaSettings, seed: int) -> tuple[list[int], list[int]]:
    """Which of `size` training examples the adapter trains on, and which α's batches come from.

    Returns:
        (adapter, alpha): disjoint for ``source="held_out"``; for "overlap" the adapter has all examples and α
        the same part of them that it would have had to itself. α's part is empty unless its mode is "scheduled".

    Raises:
        ValueError: there are too few examples to give both a part.
    """
    everything = list(range(size))
    if settings.mode != "scheduled":
        return everything, []
    number = round(settings.fraction * size)
    if not 0 < number < size:
        raise ValueError(
            f"alpha.fraction={settings.fraction} of {size} training examples leaves nothing for α or for the adapter; "
            "change the fraction or take more examples"
        )
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    alpha = sorted(order[:number])
    return (everything if settings.source == "overlap" else sorted(order[number:])), alpha


@dataclass(frozen=True)
class BatchOrder:
    """Which examples batch number k holds: an endless run through shuffled epochs, cut into equal batches.

    A function of seed and k alone, so nothing has to be stored to continue in the middle. A batch may straddle
    two epochs.

    Args:
        pool: the examples.
        batch_size: examples a batch.
        seed: of the shuffles.
    """

    pool: Sequence[int]
    batch_size: int
    seed: int

    def __getitem__(self, number: int) -> list[int]:
        """The examples of batch `number` (from 0)."""
        found: list[int] = []
        epoch, start = divmod(number * self.batch_size, len(self.pool))
        while len(found) < self.batch_size:
            order = torch.randperm(len(self.pool), generator=torch.Generator().manual_seed(mix(self.seed, epoch)))
            found += [self.pool[i] for i in order[start : start + self.batch_size - len(found)].tolist()]
            epoch, start = epoch + 1, 0
        return found


def mix(*words: int) -> int:
    """One seed from several whole numbers, the same on every machine."""
    import numpy as np

    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
