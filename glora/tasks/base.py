"""What a task is: data, loss and metric behind one protocol, whatever the modality.

Training, search and the command line speak to a task only through this protocol. A task hands out *batches by
index* rather than loaders with a state of their own: which examples come when is decided by the training loop
as a function of seed and step, so that a killed run continues exactly where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # a task says what it is before PyTorch is loaded
    import torch
    from torch import Tensor, nn

#: The splits that every task has. "validation" is cut from what the task calls its training data and serves all
#: choices; "test" is for the final figure alone.
SPLITS = ("train", "validation", "train+validation", "test")

#: Tensors by name, the first dimension counting examples.
Batch = dict[str, "Tensor"]


@runtime_checkable
class Task(Protocol):
    """Data, loss and metric of one task.

    Implementations are frozen dataclasses; their fields are the keys of the ``[task]`` section of a run's file.

    Everything that can be wrong with the data is found in the constructor or in `check`, before training.
    """

    @property
    def main_metric(self) -> str:
        """Name of the metric by which runs are compared."""

    @property
    def greater_is_better(self) -> bool:
        """Whether a greater main metric is better."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Modules of the model that are new to the task, hence trained and saved in full."""

    def check(self) -> None:
        """Read what training will need and raise ValueError with all problems found, before any work starts."""

    def build_model(self, seed: int) -> nn.Module:
        """The pretrained model with its head, in float32 on the CPU; `seed` draws the head's weights."""

    def size(self, split: str) -> int:
        """Number of examples of a split."""

    def batch(self, split: str, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """The examples of `split` with these indices as one batch on the CPU.

        Args:
            split: one of `SPLITS`, or a further split that the task names.
            indices: positions in ``range(size(split))``.
            generator: source of random augmentation; None gives the examples as they are evaluated.
        """

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch, a scalar."""

    def weight(self, batch: Batch) -> float:
        """What `loss` averages over (examples, or target tokens): the batch's weight when parts are put together."""

    def metrics(self, model: nn.Module, split: str, *, batch_size: int = 64) -> dict[str, float]:
        """Metrics of the model on a split, `main_metric` among them. The model comes back in the mode it was in."""


@runtime_checkable
class UnequalExamples(Protocol):
    """A task whose examples differ in size, as texts do.

    Like goes with like into a micro-batch or an evaluation batch, so that little is padded.
    """

    def length(self, split: str, index: int) -> int:
        """Size of an example, up to a factor."""


def chunks(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """`indices` cut into pieces of `size`; the last may be shorter."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def batches(task: Task, split: str, batch_size: int, *, generator: torch.Generator | None = None) -> Iterator[Batch]:
    """All examples of a split once: in order, or shuffled (and augmented) by `generator`."""
    import torch

    size = task.size(split)
    order = range(size) if generator is None else torch.randperm(size, generator=generator).tolist()
    for indices in chunks(order, batch_size):
        yield task.batch(split, indices, generator)


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with its tensors on a device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device
