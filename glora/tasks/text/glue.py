"""The nine GLUE tasks: one or two sentences in, a class or a similarity out.

The official test labels are not public, so "test" is the official development set, used once for the final
figure; "validation", for all choices, is cut from the training set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from glora._checks import fraction, whole
from glora.tasks.base import Batch, chunks, device_of, to_device
from glora.tasks.rows import Row, column_problems, expand, hub_split, read_split
from glora.tasks.text.encoder import build_classifier, head_names
from glora.tasks.text.loading import check_inputs, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class GlueSpec:
    """One GLUE task: its text columns, the names of its labels (none: a regression on 0–5), its metrics (the
    first is the main one), and the names of its development files."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    tests: tuple[str, ...] = ("validation",)


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
class Glue:
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

    greater_is_better = True

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

    @property
    def spec(self) -> GlueSpec:
        """Columns, labels and metrics of the task."""
        return DATASETS[self.dataset]

    @property
    def main_metric(self) -> str:
        """accuracy; matthews for CoLA, pearson for STS-B."""
        return self.spec.metrics[0]

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """The classification head, and a pooler that the checkpoint lacks."""
        return head_names(self._model_path, self.outputs, self.pooling)

    @property
    def outputs(self) -> int:
        """Number of the model's outputs."""
        return max(1, len(self.spec.labels))

    @cached_property
    def _model_path(self) -> str:
        return expand("task.model", self.model)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._model_path)

    # ------------------------------------------------------------------------------------------------ data

    def check(self) -> None:
        """Read all splits, raise ValueError with everything that is wrong with them; see that the model takes them."""
        for split in ("train", "test"):
            self._rows(split)
        _ = self.heads
        check_inputs(self._model_path, self._tokenizer, self.max_length)

    def _rows(self, split: str) -> list[Row]:
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
            problems += found or self._label_problems(rows, f"{self.dataset}/{where}")
        if problems:
            raise ValueError("the data cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
        pool, tested = self._clean(pool), self._clean(tested)
        if pool == tested:
            raise ValueError(
                f"{self.dataset}: the test file {test} holds the same rows as the training file; its figures would say "
                "nothing"
            )
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
            return hub_split("nyu-mll/glue", self.dataset, split)
        return read_split(expand("task.folder", self.folder), split)

    def _label_problems(self, rows: Sequence[Row], where: str) -> list[str]:
        labels = self.spec.labels
        bad = Counter(str(row["label"]) for row in rows if _label(row["label"], labels) is None)
        if not bad:
            return []
        shown = ", ".join(f"{label!r} ({count}×)" for label, count in bad.most_common(5))
        wanted = f"0 to {len(labels) - 1} or {', '.join(labels)}" if labels else "a number from 0 to 5"
        return [f"{where} has unknown labels {shown}; expected {wanted}"]

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

    def size(self, split: str) -> int:
        """Number of examples of a split."""
        return len(self._rows(split))

    def length(self, split: str, index: int) -> int:
        """Number of characters of an example."""
        row = self._rows(split)[index]
        return sum(len(row[column]) for column in self.spec.columns)

    def labels(self, split: str) -> list[Any]:
        """The labels of a split, in order."""
        return [row["label"] for row in self._rows(split)]

    def batch(self, split: str, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """Token ids padded to the longest of these examples, and labels; there is no augmentation."""
        rows = [self._rows(split)[i] for i in indices]
        texts = [[row[column] for row in rows] for column in self.spec.columns]
        encoded = self._tokenizer(*texts, truncation=True, max_length=self.max_length, padding=True)
        dtype = torch.long if self.spec.labels else torch.float32
        tensors = {key: torch.tensor(value) for key, value in encoded.items()}
        return {**tensors, "labels": torch.tensor([row["label"] for row in rows], dtype=dtype)}

    # ------------------------------------------------------------------------------------ model, loss, metrics

    def build_model(self, seed: int) -> nn.Module:
        """The pretrained model with a new head."""
        return build_classifier(self._model_path, self.outputs, self.pooling, seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy, or squared error for STS-B; a mean over examples."""
        logits = _logits(model, batch).float()
        if self.spec.labels:
            return nn.functional.cross_entropy(logits, batch["labels"])
        return nn.functional.mse_loss(logits[:, 0], batch["labels"])

    def weight(self, batch: Batch) -> float:
        """Number of examples."""
        return len(batch["labels"])

    @torch.no_grad()
    def logits(self, model: nn.Module, split: str, *, first: int | None = None, batch_size: int = 64) -> Tensor:
        """Outputs of the model in evaluation mode on the (`first`) examples of a split, shape (examples, labels)."""
        device, training = device_of(model), model.training
        size = self.size(split) if first is None else min(first, self.size(split))
        order = sorted(range(size), key=lambda i: self.length(split, i))
        model.eval()
        parts = [
            _logits(model, to_device(self.batch(split, part), device)).float().cpu()
            for part in chunks(order, batch_size)
        ]
        model.train(training)
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def metrics(self, model: nn.Module, split: str, *, batch_size: int = 64) -> dict[str, float]:
        """The task's metrics in percent, and the loss."""
        outputs = self.logits(model, split, batch_size=batch_size)
        labels = torch.tensor(self.labels(split))
        if not self.spec.labels:
            predictions, loss = outputs[:, 0], nn.functional.mse_loss(outputs[:, 0], labels.float())
        else:
            predictions, loss = outputs.argmax(1), nn.functional.cross_entropy(outputs, labels)
        return {**score(self.spec.metrics, labels.numpy(), predictions.numpy()), "loss": float(loss)}


def score(names: Sequence[str], labels: NDArray[Any], predictions: NDArray[Any]) -> dict[str, float]:
    """Metrics by name, in percent; a correlation with a constant is 0.

    Args:
        names: of accuracy, f1 (of class 1), matthews, pearson, spearman.
        labels, predictions: classes or numbers, shape (n,).
    """
    from scipy import stats
    from sklearn import metrics

    constant = min(len(set(values.tolist())) for values in (labels, predictions)) < 2
    functions = {
        "accuracy": lambda: metrics.accuracy_score(labels, predictions),
        "f1": lambda: metrics.f1_score(labels, predictions, zero_division=0.0),
        "matthews": lambda: metrics.matthews_corrcoef(labels, predictions),
        "pearson": lambda: 0.0 if constant else stats.pearsonr(labels, predictions).statistic,
        "spearman": lambda: 0.0 if constant else stats.spearmanr(labels, predictions).statistic,
    }
    return {name: 100.0 * float(functions[name]()) for name in names}


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    return model(**{key: tensor for key, tensor in batch.items() if key != "labels"}).logits


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
