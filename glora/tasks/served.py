"""What an adapter's folder says of its task, so that new rows and pictures can be labelled without the training data.

``task.json`` lies beside the adapter: the base model's name, how inputs are prepared, and the classes in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from glora._checks import options_of_kind
from glora._files import read_json, sealed, unsealed, write_json
from glora.tasks.base import Batch, Task
from glora.tasks.rows import Row
from glora.tasks.text.sequences import TextClassifier, logits_of
from glora.tasks.vision.images import Transform

FILE = "task.json"
VERSION = 1


@runtime_checkable
class Servable(Protocol):
    """A task whose model labels single inputs."""

    def served(self) -> dict[str, Any]:
        """The fields of `ServedTexts` or `ServedPictures` and which of them, as ``kind``."""


@dataclass(frozen=True, kw_only=True)
class ServedTexts(TextClassifier):
    """Texts to be labelled."""

    model: str
    pooling: str
    max_length: int
    revision: str | None
    names: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the text."""
        return self.texts

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers; none: a regression."""
        return self.names

    def inputs(self, rows: Sequence[Row]) -> Batch:
        """Rows with the text columns as a batch."""
        return self.encode([{column: str(row[column]) for column in self.texts} for row in rows])

    def outputs_of(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (n, classes), or the numbers (n, 1)."""
        return logits_of(model, batch)


@dataclass(frozen=True, kw_only=True)
class ServedPictures:
    """Pictures to be labelled."""

    model: str
    side: int
    resize: str
    normalisation: str
    most_pixels: int
    revision: str | None
    names: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers."""
        return self.names

    @cached_property
    def transform(self) -> Transform:
        """How files become tensors."""
        return Transform(
            side=self.side, resize=self.resize, normalisation=self.normalisation, most_pixels=self.most_pixels
        )

    def build_model(self, seed: int) -> nn.Module:
        """The pretrained model with a new head."""
        from glora.tasks.vision.models import load_classifier

        generator = torch.Generator().manual_seed(seed)
        return load_classifier(self.model, len(self.names), side=self.side, generator=generator, revision=self.revision)

    def inputs(self, pixels: Sequence[Any]) -> Batch:
        """Resized pictures as a batch."""
        return {"pixel_values": self.transform.normalise(torch.from_numpy(np.stack(pixels)))}

    def outputs_of(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (n, classes)."""
        return model(batch["pixel_values"])


Served = ServedTexts | ServedPictures
_KINDS: dict[str, type[Any]] = {"texts": ServedTexts, "pictures": ServedPictures}
#: Names in the file of fields that a task's own properties would hide.
_RENAMED = {"classes": "names", "columns": "texts"}


def write(folder: str | Path, task: Task) -> bool:
    """Put ``task.json`` into an adapter's folder; False (and no file) where a task's model labels no single inputs."""
    if not isinstance(task, Servable):
        return False
    write_json(Path(folder) / FILE, sealed({"version": VERSION, **task.served()}))
    return True


def read(folder: str | Path, model: str | None = None) -> Served:
    """The task of an adapter's folder.

    Args:
        folder: with ``task.json``.
        model: where the base model lies now; None takes what the file says.

    Raises:
        ValueError: there is no such file, it is damaged, or of a later version.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(
            f"{str(folder)!r} has no {FILE}; only adapters of text and picture tasks that glora tune wrote can predict"
        )
    remedy = "copy the adapter's folder again"
    values = unsealed(read_json(path, remedy), path, remedy)
    kind = _KINDS.get(values.get("kind", "")) if isinstance(values, Mapping) else None
    if kind is None or values.get("version") != VERSION:
        raise ValueError(f"{str(path)!r} is of another version of this program; {remedy}, or update the program")
    fields = {_RENAMED.get(key, key): value for key, value in values.items() if key not in ("kind", "version")}
    for key in ("names", "texts"):
        if key in fields:
            fields[key] = tuple(fields[key])
    known = {field.name for field in dataclasses.fields(kind)}
    if set(fields) != known:
        raise ValueError(f"{str(path)!r} has other fields than {', '.join(sorted(known))}; {remedy}")
    options_of_kind("task", kind, fields)
    return kind(**{**fields, **({} if model is None else {"model": model})})
