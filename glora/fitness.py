"""How good a subnet is: correct answers on validation, each asked in the order that settles matters soonest.

A candidate's rank is (correct answers, fewer parameters, found earlier).  Only the best few matter to an engine,
so a candidate whose correct answers so far plus all open ones rank below those few cannot change what is selected
and is not asked further.  Images that earlier candidates got wrong are asked first: the full count does not depend
on the order, but a hopeless candidate shows itself early.  This needs answers that do not depend on which images are
asked together, which holds for models in evaluation mode (up to rounding in the last bit of a logit).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glora.space import Genome
from glora.supernet import SuperNet
from glora.tasks.base import Batch, Task, chunks, device_of, to_device

#: The only split a search sees.
SPLIT = "validation"


class Judged(Task, Protocol):
    """A task whose answers are right or wrong, one by one."""

    def correct(self, model: nn.Module, batch: Batch) -> Tensor:
        """Which examples of a batch the model answers correctly: bool (n,)."""


@dataclass(frozen=True)
class Scored:
    """A candidate and what is known about it.

    Attributes:
        genome: the subnet.
        parameters: its size, heads not counted.
        correct: correct answers; if not `exact`, the most there could have been.
        exact: whether every image was asked.
        number: position among all candidates, from 0.
    """

    genome: Genome
    parameters: int
    correct: int
    exact: bool
    number: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sort key, best first."""
        return -self.correct, self.parameters, self.number


class Best:
    """The `keep` best exact candidates so far (all of them if None)."""

    def __init__(self, keep: int | None) -> None:
        self.keep = keep
        self.candidates: list[Scored] = []

    def add(self, candidate: Scored) -> None:
        """Take note of a candidate; one that was not asked to the end is known not to belong here."""
        if candidate.exact and all(not np.array_equal(candidate.genome, c.genome) for c in self.candidates):
            self.candidates = sorted([*self.candidates, candidate], key=lambda c: c.rank)[: self.keep]

    def hopeless(self, most: int, parameters: int) -> bool:
        """True if a new candidate with at most `most` correct answers cannot enter."""
        if self.keep is None or len(self.candidates) < self.keep:
            return False
        last = self.candidates[-1]
        # At equal rank the earlier one stays.
        return (-most, parameters) >= (-last.correct, last.parameters)


@dataclass(frozen=True)
class Answers:
    """Which images a candidate was asked and which it got right, bool (images,) each."""

    asked: NDArray[np.bool_]
    right: NDArray[np.bool_]

    @property
    def most(self) -> int:
        """Correct answers if all open ones were right."""
        return int(self.right.sum() + (~self.asked).sum())

    @property
    def exact(self) -> bool:
        """True if every image was asked."""
        return bool(self.asked.all())

    def to_text(self) -> tuple[str, str]:
        """Two hexadecimal strings, for the log."""
        return np.packbits(self.asked).tobytes().hex(), np.packbits(self.right).tobytes().hex()

    @classmethod
    def from_text(cls, asked: str, right: str, size: int) -> Answers:
        """Inverse of `to_text`."""

        def bits(text: str) -> NDArray[np.bool_]:
            return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=size).astype(bool)

        return cls(bits(asked), bits(right))


class Fitness:
    """Asks a supernet's subnets the validation images; no other split can be reached from here.

    Args:
        supernet: the trained supernet.
        task: where the validation images come from.
        batch_size: images asked at once.
        merged: put each candidate into the weights first (base speed) instead of computing with its terms.
        hard_first: ask images in the order of how often they were answered wrong.

    Raises:
        ValueError: the task cannot judge answers one by one, or `batch_size` < 1.
    """

    def __init__(
        self,
        supernet: SuperNet,
        task: Judged,
        *,
        batch_size: int = 25,
        merged: bool = True,
        hard_first: bool = True,
    ) -> None:
        if not callable(getattr(task, "correct", None)):
            raise ValueError(
                f"task {type(task).__name__} has no method correct(model, batch); a search counts right answers"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.supernet, self._task = supernet, task
        self.batch_size, self.merged, self.hard_first = batch_size, merged, hard_first
        self.size = task.size(SPLIT)
        self._wrong = np.zeros(self.size)
        self._asked = np.zeros(self.size)
        self.images_asked = 0

    def order(self) -> NDArray[np.intp]:
        """The order in which the next candidate is asked."""
        if not self.hard_first:
            return np.arange(self.size)
        return np.argsort(-(self._wrong + 1) / (self._asked + 2), kind="stable")

    def note(self, answers: Answers) -> None:
        """Take a candidate's answers into account for the order of the next."""
        self._asked += answers.asked
        self._wrong += answers.asked & ~answers.right

    def ask(self, genome: Genome, best: Best | None = None) -> Answers:
        """Ask a candidate until all is known, or until it is hopeless beside `best`.

        Args:
            genome: the candidate.
            best: the candidates it competes with; None asks everything.
        """
        model, parameters = self.supernet.model, self.supernet.space.count(genome)
        answers = Answers(np.zeros(self.size, dtype=bool), np.zeros(self.size, dtype=bool))
        was_training = model.training
        model.eval()
        chosen: Any = self.supernet.merged(genome) if self.merged else nullcontext()
        if not self.merged:
            self.supernet.select(genome)
        try:
            with torch.no_grad(), chosen:
                for indices in chunks(self.order().tolist(), self.batch_size):
                    if best is not None and best.hopeless(answers.most, parameters):
                        break
                    answers.right[indices] = self._right(indices)
                    answers.asked[indices] = True
        finally:
            model.train(was_training)
        self.images_asked += int(answers.asked.sum())
        return answers

    def _right(self, indices: Sequence[int]) -> NDArray[np.bool_]:
        batch = to_device(self._task.batch(SPLIT, indices), device_of(self.supernet.model))
        return self._task.correct(self.supernet.model, batch).cpu().numpy()
