"""Classification of, or regression on, a user's own texts.

    [task]
    name = "text"
    file = "reviews.csv"            # or folder = …, or dataset = …
    model = "models/minilm-l6"

Columns and classes are found where they are not given; parts that the data does not come in are cut by a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from glora._checks import choice, whole
from glora.tasks.hub import check_revision
from glora.tasks.own import columns as found
from glora.tasks.own.sources import Source, read
from glora.tasks.own.splits import Split, cut
from glora.tasks.rows import Row, column_problems, shared, text_problems
from glora.tasks.text.sequences import CLASS_METRICS, NUMBER_METRICS, SequenceTask


@dataclass(frozen=True, kw_only=True)
class Text(SequenceTask):
    """Texts of one's own; the fields are the keys of ``[task]`` with ``name = "text"``. See `glora.tasks.base.Task`.

    Args:
        model: hub name or folder of a transformers encoder or decoder; ``$VARIABLES`` are replaced.
        file: one table (CSV, TSV, JSONL or Parquet) that is cut as `split` says.
        folder: a folder with ``train.csv`` (or another of these formats) and, if there are any, files ``validation``
            (or val, dev) and ``test``. Without validation a part of train is cut off; without test there is no final
            figure, unless `split` asks for one.
        dataset: a data set of the library ``datasets``: a folder it was saved to, or its name on the hub.
        config, data_revision: which configuration and version of that data set.
        text: the column of the text, or the two columns of a pair; found by its name if None.
        label: the column of the label; found by its name if None.
        classes: the classes in the order of their numbers; None takes those of the training rows (numerals by size,
            else by the alphabet).
        regression: labels are numbers to be met.
        scores: metrics by scikit-learn's names, the first compares runs (`CLASS_METRICS`, `NUMBER_METRICS`); None:
            accuracy and f1_macro, or spearman and the root mean squared error.
        split: ``{validation = .2, test = .2, seed = 0}``, fractions of the whole; see `Split`.
        pooling, max_length, revision: see `SequenceTask`.
        train_size: training examples used (validation included), drawn by the split's seed; None takes all.
    """

    model: str
    file: str | None = None
    folder: str | None = None
    dataset: str | None = None
    config: str | None = None
    data_revision: str | None = None
    text: str | Sequence[str] | None = None
    label: str | None = None
    classes: Sequence[str] | None = None
    regression: bool = False
    scores: Sequence[str] | None = None
    split: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "model"
    max_length: int = 128
    revision: str | None = None
    train_size: int | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("file", "folder", "dataset") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of task.file, task.folder and task.dataset; got {' and '.join(given) or 'none'}"
            )
        if self.dataset is None and self.config is not None:
            raise ValueError("task.config belongs to task.dataset, which is not given")
        check_revision("task.data_revision", self.data_revision, self.dataset)
        choice("task.pooling", self.pooling, ("model", "mean"))
        whole("task.max_length", self.max_length, 1)
        if self.train_size is not None:
            whole("task.train_size", self.train_size, 2)
        known = NUMBER_METRICS if self.regression else CLASS_METRICS
        if self.scores is not None:
            if isinstance(self.scores, str) or not self.scores:
                raise ValueError(f"task.scores must be a list of names, got {self.scores!r}")
            for name in self.scores:
                choice("task.scores", name, tuple(known))
        if self.classes is not None:
            names = [str(name) for name in self.classes] if not isinstance(self.classes, str) else []
            if len(names) < 2 or len(set(names)) < len(names):
                raise ValueError(f"task.classes must be a list of two or more different names, got {self.classes!r}")
            if self.regression:
                raise ValueError("task.classes and task.regression = true exclude each other; drop one")
            object.__setattr__(self, "classes", tuple(names))
        Split.of(self.split)

    @cached_property
    def _split(self) -> Split:
        # What has parts of its own is not cut into a test unless asked.
        return Split.of(self.split, test=0.2 if self.source.whole else 0.0)

    @property
    def where(self) -> str:
        """What messages call the data."""
        return str(self.file or self.folder or self.dataset)

    @cached_property
    def source(self) -> Source:
        """The rows as they were found."""
        return read(self.file, self.folder, self.dataset, self.config, self.data_revision)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the text, given or found."""
        return found.text_columns(self.source.rows["train"], self.text, self.where)

    @cached_property
    def label_name(self) -> str:
        """The column of the label, given or found."""
        return found.label_column(self.source.rows["train"], self.label, self.columns, self.where)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers; none: a regression."""
        if self.regression:
            return ()
        if self.classes is not None:
            return tuple(self.classes)
        column = self.label_name
        labels = [row[column] for row in self._checked["train"]]
        return tuple(self.source.names.get(column, ())) or found.classes_of(labels, f"{self.where}/train")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The scores, given or usual."""
        if self.scores is not None:
            return tuple(self.scores)
        return ("spearman", "neg_root_mean_squared_error") if self.regression else ("accuracy", "f1_macro")

    @property
    def has_test(self) -> bool:  # type: ignore[override]
        """Whether there is a test split; without one there is no final figure."""
        return "test" in self._splits

    def rows(self, split: str) -> list[Row]:
        """The rows of a split."""
        if split == "test" and not self.has_test:
            raise ValueError(f"{self.where} has no test rows; name another split, or give task.split = {{test = 0.2}}")
        try:
            return self._splits[split]
        except KeyError:
            raise ValueError(f"split must be one of {', '.join(self._splits)}; got {split!r}") from None

    @cached_property
    def _checked(self) -> dict[str, list[Row]]:
        """The rows as they were read, texts and labels being there."""
        problems: list[str] = []
        for split, rows in self.source.rows.items():
            where = f"{self.where}/{split}"
            needed = (*self.columns, self.label_name)
            problems += column_problems(rows, needed, where) or [
                *text_problems(rows, self.columns, where),
                *found.empty_texts(rows, self.columns, where),
            ]
        _raise(problems)
        column = self.label_name
        checked = {}
        for split, rows in self.source.rows.items():
            labels = found.named([row[column] for row in rows], self.source.names, column)
            checked[split] = [{**row, column: label} for row, label in zip(rows, labels, strict=True)]
        return checked

    @cached_property
    def _splits(self) -> dict[str, list[Row]]:
        """All splits: texts as strings, labels as class numbers (or floats)."""
        clean = {split: self._clean(rows, split) for split, rows in self._checked.items()}
        pool, test, validation = clean["train"], clean.get("test"), clean.get("validation")
        fractions, seed = self._split, self._split.seed
        left = 1.0  # part of the whole that `pool` is
        if test is None and fractions.test:
            parts = self._cut(pool, test=fractions.test)
            pool, test = [pool[i] for i in parts["train"]], [pool[i] for i in parts["test"]]
            left -= fractions.test
        if self.train_size is not None and self.train_size > len(pool):
            raise ValueError(f"task.train_size={self.train_size}, but {self.where} has {len(pool)} training rows")
        if self.train_size is not None:
            order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)).tolist()
            pool = [pool[i] for i in sorted(order[: self.train_size])]
        if validation is None:
            parts = self._cut(pool, validation=fractions.validation / left)
            train, validation = [pool[i] for i in parts["train"]], [pool[i] for i in parts["validation"]]
        else:
            train, pool = pool, pool + validation
        splits = {"train": train, "validation": validation, "train+validation": pool}
        splits |= {} if test is None else {"test": test}
        empty = [name for name, rows in splits.items() if not rows]
        if empty:
            raise ValueError(f"{self.where}: {', '.join(empty)} would be empty; give more rows or another task.split")
        both = shared(pool, test or (), self.columns)
        if test is not None and 2 * len(both) > len(test):
            raise ValueError(
                f"{self.where}: {len(both)} of {len(test)} test rows stand in train too, so that figures on the test "
                "would say nothing; give it rows of its own"
            )
        return splits

    def _cut(self, rows: Sequence[Row], **fractions: float) -> dict[str, list[int]]:
        keys = [tuple(row[column] for column in self.columns) for row in rows]
        classes = [row["label"] for row in rows] if self.class_names else None
        return cut(keys, classes, seed=self._split.seed, **fractions)

    def _clean(self, rows: Sequence[Row], split: str) -> list[Row]:
        numbers = {name: number for number, name in enumerate(self.class_names)}
        labels = [row[self.label_name] for row in rows]
        values: list[Any] = (
            [found.as_number(label) for label in labels]
            if self.regression
            else [numbers.get(found.class_of(label)) for label in labels]
        )
        bad = [i for i, value in enumerate(values) if value is None]
        if bad:
            wanted = "a number" if self.regression else f"one of {', '.join(self.class_names)}"
            raise ValueError(
                f"{self.where}/{split}: {len(bad)} rows have another label, for instance {labels[bad[0]]!r} in row "
                f"{bad[0] + 1}; expected {wanted}"
            )
        return [
            {**{column: str(row[column]) for column in self.columns}, "label": value}
            for row, value in zip(rows, values, strict=True)
        ]


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise ValueError("the data cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
