"""The nine GLUE tasks: one or two sentences in, a class or a similarity out.

The official test labels are not public, so "test" is the official development set, used once for the final
figure; "validation", for all choices, is cut from the training set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from glora._checks import fraction, whole
from glora.tasks.hub import check_revision
from glora.tasks.rows import Row, column_problems, expand, hub_split, read_split, shared, text_problems
from glora.tasks.text.sequences import SequenceTask


@dataclass(frozen=True)
class GlueSpec:
    """One GLUE task: its text columns, labels, metrics and files.

    The names of its labels (none: a regression on 0–5), its metrics (the first is the main one), and the names of its
    development files.
    """

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    tests: tuple[str, ...] = ("validation",)


#: The data set on the hub.
HUB = "nyu-mll/glue"
_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
DATASETS = {
    "mnli": GlueSpec(
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        tests=("validation_mismatched", "validation_matched"),
    ),
    "qnli": GlueSpec(("question", "sentence"), _ENTAILMENT),
    "rte": GlueSpec(_PAIR, _ENTAILMENT),
    "mrpc": GlueSpec(_PAIR, ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "qqp": GlueSpec(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "sst2": GlueSpec(("sentence",), ("negative", "positive")),
    "cola": GlueSpec(("sentence",), ("unacceptable", "acceptable"), ("matthews", "accuracy")),
    "wnli": GlueSpec(_PAIR, ("not_entailment", "entailment")),
    "stsb": GlueSpec(_PAIR, (), ("pearson", "spearman")),
}


@dataclass(frozen=True, kw_only=True)
class Glue(SequenceTask):
    """A GLUE task; the fields are the keys of ``[task]`` with ``name = "glue"``. See `glora.tasks.base.Task`.

    Args:
        dataset: one of `DATASETS`.
        model: hub name or folder of a transformers encoder or decoder; ``$VARIABLES`` are replaced.
        folder: folder with train and validation files (JSONL, Parquet or TSV, in Hugging Face's GLUE columns);
            None takes them from the hub.
        pooling: "model" for the head that transformers gives the model, "mean" for mean pooling and a linear
            head (sentence-embedding models).
        max_length: tokens after which an input is cut.
        test: which development file is the test; None takes the task's first (mismatched for MNLI, as in the
            α-LoRA paper).
        train_size: training examples used (validation included), drawn by `subset_seed`; None takes all.
        shots: the same, but so many of each class.
        validation_fraction: part of those examples that "validation" gets.
        subset_seed: of both draws.
        revision: commit, tag or branch of the model on the hub; None takes the newest.
        data_revision: the same of the data set, where `folder` is None.
    """

    dataset: str
    model: str
    folder: str | None = None
    pooling: str = "model"
    max_length: int = 128
    test: str | None = None
    train_size: int | None = None
    shots: int | None = None
    validation_fraction: float = 0.2
    subset_seed: int = 0
    revision: str | None = None
    data_revision: str | None = None

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise ValueError(f"task.dataset must be one of {', '.join(DATASETS)}; got {self.dataset!r}")
        if self.pooling not in ("model", "mean"):
            raise ValueError(f"task.pooling must be model or mean, got {self.pooling!r}")
        if self.test is not None and self.test not in self.spec.tests:
            raise ValueError(f"task.test must be one of {', '.join(self.spec.tests)}; got {self.test!r}")
        if self.train_size is not None and self.shots is not None:
            raise ValueError(f"give task.train_size={self.train_size} or task.shots={self.shots}, not both")
        if self.shots is not None and not self.spec.labels:
            raise ValueError(f"task.shots counts examples of each class and {self.dataset} has none; give train_size")
        for name in ("max_length", "train_size", "shots"):
            if getattr(self, name) is not None:
                whole(f"task.{name}", getattr(self, name), 1)
        whole("task.subset_seed", self.subset_seed, 0)
        fraction("task.validation_fraction", self.validation_fraction)
        check_revision("task.data_revision", self.data_revision, HUB if self.folder is None else None)

    @property
    def spec(self) -> GlueSpec:
        """Columns, labels and metrics of the task."""
        return DATASETS[self.dataset]

    @property
    def where(self) -> str:
        """The task's name."""
        return self.dataset

    @property
    def columns(self) -> tuple[str, ...]:
        """The text columns."""
        return self.spec.columns

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels; none: a regression."""
        return self.spec.labels

    @property
    def metric_names(self) -> tuple[str, ...]:
        """accuracy first; matthews for CoLA, pearson for STS-B."""
        return self.spec.metrics

    # ------------------------------------------------------------------------------------------------ data

    def rows(self, split: str) -> list[Row]:
        """The rows of a split."""
        try:
            return self._splits[split]
        except KeyError:
            raise ValueError(f"split must be one of {', '.join(self._splits)}; got {split!r}") from None

    @cached_property
    def _splits(self) -> dict[str, list[Row]]:
        """All splits, checked: texts as strings, labels as class numbers (or floats)."""
        test = self.test or self.spec.tests[0]
        pool, tested = self._read("train"), self._read(test)
        problems: list[str] = []
        for where, rows in (("train", pool), (test, tested)):
            found = column_problems(rows, (*self.spec.columns, "label"), f"{self.dataset}/{where}")
            found = found or text_problems(rows, self.spec.columns, f"{self.dataset}/{where}")
            problems += found or self._label_problems(rows, f"{self.dataset}/{where}")
        if problems:
            raise ValueError("the data cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
        pool, tested = self._clean(pool), self._clean(tested)
        known = len(shared(pool, tested, self.spec.columns))
        if 2 * known > len(tested):
            same = "the same rows as" if pool == tested else f"{known} rows of {len(tested)} from"
            raise ValueError(
                f"{self.dataset}: the test file {test} holds {same} the training file; its figures would say "
                "nothing: give it rows of its own"
            )
        classes = {row["label"] for row in pool}
        if len(classes) == 1:
            one = self.spec.labels[pool[0]["label"]] if self.spec.labels else pool[0]["label"]
            raise ValueError(f"{self.dataset}: every training example has the label {one!r}; there is nothing to learn")
        pool = self._subset(pool)
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(self.subset_seed)).tolist()
        cut = round(self.validation_fraction * len(pool))
        if not 0 < cut < len(pool):
            raise ValueError(
                f"task.validation_fraction={self.validation_fraction} of {len(pool)} training examples leaves a split "
                "empty; change it or take more examples"
            )
        held = set(order[:cut])
        return {
            "train": [row for i, row in enumerate(pool) if i not in held],
            "validation": [pool[i] for i in sorted(held)],
            "train+validation": pool,
            "test": tested,
        }

    def _read(self, split: str) -> list[Row]:
        if self.folder is None:
            return hub_split(HUB, self.dataset, split, self.data_revision)
        return read_split(expand("task.folder", self.folder), split)

    def _label_problems(self, rows: Sequence[Row], where: str) -> list[str]:
        labels = self.spec.labels
        bad = Counter(str(row["label"]) for row in rows if _label(row["label"], labels) is None)
        if not bad:
            return []
        shown = ", ".join(f"{label!r} ({count}×)" for label, count in bad.most_common(5))
        wanted = f"0 to {len(labels) - 1} or {', '.join(labels)}" if labels else "a number from 0 to 5"
        ones = {str(number) for number in range(1, len(labels) + 1)}
        from_one = bool(labels) and {str(row["label"]) for row in rows} <= ones
        hint = ": they count from 1, so subtract 1 from all of them" if from_one else ""
        return [f"{where} has unknown labels {shown}; expected {wanted}{hint}"]

    def _clean(self, rows: Sequence[Row]) -> list[Row]:
        columns, labels = self.spec.columns, self.spec.labels
        return [
            {**{column: str(row[column]) for column in columns}, "label": _label(row["label"], labels)} for row in rows
        ]

    def _subset(self, pool: list[Row]) -> list[Row]:
        """The few-shot or smaller training set, drawn by seed."""
        if self.train_size is None and self.shots is None:
            return pool
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(self.subset_seed + 1)).tolist()
        if self.train_size is not None:
            if self.train_size > len(pool):
                raise ValueError(f"task.train_size={self.train_size}, but {self.dataset} has {len(pool)} examples")
            return [pool[i] for i in order[: self.train_size]]
        assert self.shots is not None
        chosen: list[int] = []
        for label, name in enumerate(self.spec.labels):
            members = [i for i in order if pool[i]["label"] == label]
            if len(members) < self.shots:
                raise ValueError(f"task.shots={self.shots}, but class {name!r} has {len(members)} examples")
            chosen += members[: self.shots]
        return [pool[i] for i in chosen]


def _label(value: Any, names: Sequence[str]) -> int | float | None:
    """A label as a class number or (no names) as a float, None if it is neither; a TSV file's are strings."""
    if value in names:
        return names.index(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not names:
        return number if 0 <= number <= 5 else None
    return int(number) if number in range(len(names)) else None
