"""Tasks of one or two texts in and a class or a number out: what they share, whatever the rows come from."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from glora.tasks.base import SPLITS, Batch, chunks, device_of, to_device
from glora.tasks.hub import check_revision
from glora.tasks.rows import Row, expand, repeated, shared
from glora.tasks.text.encoder import build_classifier, head_names
from glora.tasks.text.loading import check_inputs, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TextClassifier(ABC):
    """A text model with a head and how rows become its inputs: all that labelling needs, without rows to learn from.

    A subclass is a frozen dataclass with the fields below, and says what is abstract here.

    Attributes:
        model: hub name or folder of a transformers encoder or decoder; ``$VARIABLES`` are replaced.
        pooling: "model" for the head that transformers gives the model, "mean" for mean pooling and a linear head.
        max_length: tokens after which an input is cut.
        revision: commit, tag or branch of the model on the hub; None takes the newest.
    """

    model: str
    pooling: str
    max_length: int
    revision: str | None

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns that hold the text, one or two."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers; none: a regression."""

    @property
    def outputs(self) -> int:
        """Number of the model's outputs."""
        return max(1, len(self.class_names))

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """The classification head, and a pooler that the checkpoint lacks."""
        return head_names(self._model_path, self.outputs, self.pooling, self.revision)

    @cached_property
    def _model_path(self) -> str:
        found = expand("task.model", self.model)
        check_revision("task.revision", self.revision, found)
        return found

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._model_path, revision=self.revision)

    def encode(self, rows: Sequence[Row]) -> Batch:
        """Token ids of rows, padded to the longest of them; labels are not looked at."""
        texts = [[row[column] for row in rows] for column in self.columns]
        encoded = self._tokenizer(*texts, truncation=True, max_length=self.max_length, padding=True)
        return {key: torch.tensor(value) for key, value in encoded.items()}

    def build_model(self, seed: int) -> nn.Module:
        """The pretrained model with a new head, whose outputs bear the names of the classes."""
        model = build_classifier(self._model_path, self.outputs, self.pooling, seed, self.revision)
        if self.class_names:
            config: Any = model.config
            config.id2label = dict(enumerate(self.class_names))
            config.label2id = {name: number for number, name in enumerate(self.class_names)}
        return model


class SequenceTask(TextClassifier):
    """Batches, loss and metrics on rows with labels."""

    greater_is_better = True
    #: Whether there is a test split; without one there is no final figure.
    has_test: bool = True

    @property
    @abstractmethod
    def where(self) -> str:
        """What messages call the data."""

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """Names out of `CLASS_METRICS` or `NUMBER_METRICS`; by the first one, runs are compared."""

    @abstractmethod
    def rows(self, split: str) -> list[Row]:
        """The rows of a split: texts as strings, ``label`` as class number or float."""

    @property
    def main_metric(self) -> str:
        """The first of the metrics."""
        return self.metric_names[0]

    # ------------------------------------------------------------------------------------------------ data

    def check(self) -> None:
        """Read all splits, raise ValueError with everything that is wrong with them; see that the model takes them.

        Warns:
            UserWarning: once, of what is odd about the rows and does not keep them from being used.
        """
        splits = {split: self.rows(split) for split in SPLITS if split != "test" or self.has_test}
        _ = self.heads
        check_inputs(self._model_path, self._tokenizer, self.max_length, self.revision)
        notes = self._notes(splits)
        if notes:
            said = "\n".join(f"  {note}" for note in notes)
            warnings.warn(f"{self.where}: look at the data before you train:\n{said}", stacklevel=2)

    def _notes(self, splits: Mapping[str, list[Row]]) -> list[str]:
        pool, known = splits["train+validation"], {row["label"] for row in splits["train"]}
        notes = repeated(pool, self.columns, "train")
        if "test" in splits:
            tested = splits["test"]
            notes += repeated(tested, self.columns, "test")
            both = shared(pool, tested, self.columns)
            if both:
                first = both[0] + 1
                notes.append(f"test: {len(both)} of {len(tested)} rows stand in train too, the first is row {first}")
        for split in ({"validation", "test"} & splits.keys()) if self.class_names else ():
            for label in sorted({row["label"] for row in splits[split]} - known):
                notes.append(f"{split}: no training example is of class {self.class_names[label]!r}")
        return notes

    def size(self, split: str) -> int:
        """Number of examples of a split."""
        return len(self.rows(split))

    def length(self, split: str, index: int) -> int:
        """Number of characters of an example."""
        row = self.rows(split)[index]
        return sum(len(row[column]) for column in self.columns)

    def labels(self, split: str) -> list[Any]:
        """The labels of a split, in order."""
        return [row["label"] for row in self.rows(split)]

    def batch(self, split: str, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """Token ids padded to the longest of these examples, and labels; there is no augmentation."""
        rows = [self.rows(split)[i] for i in indices]
        dtype = torch.long if self.class_names else torch.float32
        return {**self.encode(rows), "labels": torch.tensor([row["label"] for row in rows], dtype=dtype)}

    # ------------------------------------------------------------------------------------ model, loss, metrics

    def served(self) -> dict[str, Any]:
        """What predicting needs beside the adapter; see `glora.tasks.served`."""
        return {
            "kind": "texts",
            "model": self.model,
            "revision": self.revision,
            "pooling": self.pooling,
            "max_length": self.max_length,
            "columns": list(self.columns),
            "classes": list(self.class_names),
        }

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy, or squared error for numbers; a mean over examples."""
        logits = logits_of(model, batch).float()
        if self.class_names:
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
            logits_of(model, to_device(self.batch(split, part), device)).float().cpu()
            for part in chunks(order, batch_size)
        ]
        model.train(training)
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def metrics(self, model: nn.Module, split: str, *, batch_size: int = 64) -> dict[str, float]:
        """The task's metrics (see `score`), and the loss."""
        outputs = self.logits(model, split, batch_size=batch_size)
        labels = torch.tensor(self.labels(split))
        if not self.class_names:
            predictions, loss = outputs[:, 0], nn.functional.mse_loss(outputs[:, 0], labels.float())
        else:
            predictions, loss = outputs.argmax(1), nn.functional.cross_entropy(outputs, labels)
        return {**score(self.metric_names, labels.numpy(), predictions.numpy()), "loss": float(loss)}


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """The model's outputs for a batch, shape (examples, labels)."""
    return model(**{key: tensor for key, tensor in batch.items() if key != "labels"}).logits


def _f1(average: str, metric: str = "f1_score") -> Callable[..., float]:
    def function(labels: Any, predictions: Any) -> float:
        from sklearn import metrics

        return getattr(metrics, metric)(labels, predictions, average=average, zero_division=0.0)

    return function


def _sklearn(name: str, sign: float = 1.0) -> Callable[..., float]:
    def function(labels: Any, predictions: Any) -> float:
        from sklearn import metrics

        return sign * float(getattr(metrics, name)(labels, predictions))

    return function


def _correlation(name: str) -> Callable[..., float]:
    def function(labels: Any, predictions: Any) -> float:
        from scipy import stats

        if min(len(set(values.tolist())) for values in (labels, predictions)) < 2:
            return 0.0
        return getattr(stats, name)(labels, predictions).statistic

    return function


#: Metrics by name, mostly scikit-learn's: function of (labels, predictions), and what it is multiplied by. The greater
#: the better, hence errors are negative, as in scikit-learn.
CLASS_METRICS: dict[str, tuple[Callable[..., float], float]] = {
    "accuracy": (_sklearn("accuracy_score"), 100.0),
    "balanced_accuracy": (_sklearn("balanced_accuracy_score"), 100.0),
    "f1": (_f1("binary"), 100.0),
    **{f"f1_{average}": (_f1(average), 100.0) for average in ("macro", "micro", "weighted")},
    **{f"precision_{average}": (_f1(average, "precision_score"), 100.0) for average in ("macro", "weighted")},
    **{f"recall_{average}": (_f1(average, "recall_score"), 100.0) for average in ("macro", "weighted")},
    "matthews": (_sklearn("matthews_corrcoef"), 100.0),
    "matthews_corrcoef": (_sklearn("matthews_corrcoef"), 100.0),
    "cohen_kappa": (_sklearn("cohen_kappa_score"), 100.0),
}
NUMBER_METRICS: dict[str, tuple[Callable[..., float], float]] = {
    "pearson": (_correlation("pearsonr"), 100.0),
    "spearman": (_correlation("spearmanr"), 100.0),
    "r2": (_sklearn("r2_score"), 100.0),
    "neg_mean_squared_error": (_sklearn("mean_squared_error", -1.0), 1.0),
    "neg_root_mean_squared_error": (_sklearn("root_mean_squared_error", -1.0), 1.0),
    "neg_mean_absolute_error": (_sklearn("mean_absolute_error", -1.0), 1.0),
}


def score(names: Sequence[str], labels: NDArray[Any], predictions: NDArray[Any]) -> dict[str, float]:
    """Metrics by name, in percent where they are shares or correlations; a correlation with a constant is 0.

    Args:
        names: of `CLASS_METRICS` or `NUMBER_METRICS`; "f1" is that of class 1.
        labels, predictions: classes or numbers, shape (n,).
    """
    functions = {**CLASS_METRICS, **NUMBER_METRICS}
    return {name: functions[name][1] * float(functions[name][0](labels, predictions)) for name in names}
