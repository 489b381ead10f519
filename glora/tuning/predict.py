"""Labels for new texts and pictures from a tuned adapter, one by one as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glora._checks import whole
from glora.model import checkpoint
from glora.tasks import served
from glora.tasks.base import device_of, to_device
from glora.tasks.rows import stream_rows
from glora.tasks.served import Served, ServedPictures
from glora.tasks.vision.lists import IMAGE_SUFFIXES

#: Files of lines, each a text.
LINES = ".txt"


@dataclass(frozen=True)
class Prediction:
    """What a model says of one input.

    Attributes:
        source: the input's file, with the row after a colon where a file holds several.
        label: the class, or the number of a regression; None where the input cannot be read.
        probabilities: of every class in the model's order; empty for a regression.
        error: why the input cannot be read, or None.
    """

    source: str
    label: str | float | None
    probabilities: dict[str, float]
    error: str | None = None


@dataclass(frozen=True)
class _Input:
    source: str
    value: Any = None
    error: str | None = None


class Predictor:
    """An adapter on its base model, ready to label; needs neither training data nor a run's file.

    Args:
        adapter: folder of an adapter that ``glora tune`` wrote, with ``task.json``; or of a run, whose adapter is
            taken.
        model: where the base model lies now; None takes what the adapter says.

    Raises:
        ValueError: the folder holds no such adapter, or the base is not the one it was trained on.
    """

    def __init__(self, adapter: str | Path, model: str | None = None) -> None:
        folder = Path(adapter)
        if (folder / "retrained").is_dir():
            folder = folder / "retrained"
        if (folder / "adapter").is_dir():
            folder = folder / "adapter"
        self.task: Served = served.read(folder, model)
        self.model: nn.Module = self.task.build_model(0)
        checkpoint.load(self.model, folder)
        self.model.eval()

    def __call__(self, files: Sequence[str | Path], *, batch_size: int = 32) -> Iterator[Prediction]:
        """A prediction for every row or picture of these files, in order; only a batch is in memory at a time.

        Args:
            files: pictures or folders of them; or tables (CSV, TSV, JSONL, Parquet) with the columns of the task, or
                ``.txt`` files with a text a line.
            batch_size: inputs that go through the model at once.
        """
        inputs = self._pictures(files) if isinstance(self.task, ServedPictures) else self._rows(files)
        return self._each(inputs, batch_size)

    def texts(self, texts: Iterable[str | Sequence[str]], *, batch_size: int = 32) -> Iterator[Prediction]:
        """A prediction for every text (or pair of texts)."""
        columns = self._columns()

        def read(number: int, text: str | Sequence[str]) -> _Input:
            parts = (text,) if isinstance(text, str) else tuple(text)
            if len(parts) != len(columns):
                raise ValueError(f"text {number} has {len(parts)} parts, the task has {len(columns)} columns")
            return _Input(str(number), dict(zip(columns, parts, strict=True)))

        return self._each((read(number, text) for number, text in enumerate(texts, start=1)), batch_size)

    def _each(self, inputs: Iterator[_Input], batch_size: int) -> Iterator[Prediction]:
        whole("batch_size", batch_size, 1)
        while part := list(islice(inputs, batch_size)):
            yield from self._answer(part)

    def _columns(self) -> tuple[str, ...]:
        if isinstance(self.task, ServedPictures):
            raise ValueError("the adapter is for pictures; give files of pictures")
        return self.task.columns

    @torch.no_grad()
    def _answer(self, inputs: Sequence[_Input]) -> Iterator[Prediction]:
        good = [item for item in inputs if item.error is None]
        rows: Iterator[list[float]] = iter(())
        if good:
            batch = to_device(self.task.inputs([item.value for item in good]), device_of(self.model))
            outputs = self.task.outputs_of(self.model, batch).float()
            rows = iter((outputs.softmax(-1) if self.task.class_names else outputs).tolist())
        for item in inputs:
            if item.error is not None:
                yield Prediction(item.source, None, {}, item.error)
                continue
            values = next(rows)
            if not self.task.class_names:
                yield Prediction(item.source, values[0], {})
                continue
            best = max(range(len(values)), key=values.__getitem__)
            yield Prediction(
                item.source, self.task.class_names[best], dict(zip(self.task.class_names, values, strict=True))
            )

    def _rows(self, files: Sequence[str | Path]) -> Iterator[_Input]:
        columns = self._columns()
        for file in map(Path, files):
            try:
                if file.suffix == LINES:
                    if len(columns) > 1:
                        raise ValueError(f"{str(file)!r} has one text a line, and the task reads {', '.join(columns)}")
                    with file.open(encoding="utf-8-sig") as lines:
                        for number, line in enumerate(lines, start=1):
                            if line.strip():
                                yield _Input(f"{file}:{number}", {columns[0]: line.rstrip("\n")})
                    continue
                for number, row in enumerate(stream_rows(file), start=1):
                    missing = [column for column in columns if row.get(column) is None]
                    if missing:
                        yield _Input(f"{file}:{number}", error=f"no column {', '.join(missing)}")
                    else:
                        yield _Input(f"{file}:{number}", row)
            except (OSError, ValueError) as error:
                yield _Input(str(file), error=str(error))

    def _pictures(self, files: Sequence[str | Path]) -> Iterator[_Input]:
        assert isinstance(self.task, ServedPictures)
        for file in pictures_in(files):
            try:
                yield _Input(str(file), self.task.transform.pixels(file))
            except OSError as error:
                yield _Input(str(file), error=str(error))


def pictures_in(files: Sequence[str | Path]) -> Iterator[Path]:
    """The files, folders being searched for pictures."""
    for file in map(Path, files):
        if file.is_dir():
            yield from sorted(path for path in file.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        else:
            yield file
