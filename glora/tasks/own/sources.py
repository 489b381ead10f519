"""Where a user's rows come from: one file, a folder with a file a split, or a data set of Hugging Face's library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glora.tasks.rows import SUFFIXES, Row, expand, read_rows

#: Names that a split's file may have.
NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


@dataclass(frozen=True)
class Source:
    """Rows by split as they were found, "train" always among them.

    Attributes:
        rows: rows of each split that is there.
        names: names of the classes in the order of their numbers, by column, where the data set says them.
        whole: whether there is one table alone, whose parts have still to be cut.
    """

    rows: Mapping[str, list[Row]]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    whole: bool = False


def read(file: str | None, folder: str | None, dataset: str | None, config: str | None, revision: str | None) -> Source:
    """The rows that a task's options name; exactly one of `file`, `folder` and `dataset` is given.

    Raises:
        ValueError: it is missing, damaged, or has no training rows.
    """
    if file is not None:
        return Source({"train": read_rows(expand("task.file", file))}, whole=True)
    if folder is not None:
        return Source(_folder(Path(expand("task.folder", folder))))
    assert dataset is not None
    return _dataset(expand("task.dataset", dataset), config, revision)


def files_of(folder: Path) -> dict[str, Path]:
    """The file of each split in a folder.

    Raises:
        ValueError: two files claim one split.
    """
    found: dict[str, Path] = {}
    for split, names in NAMES.items():
        paths = [folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES]
        there = [path for path in paths if path.is_file()]
        if len(there) > 1:
            raise ValueError(
                f"{str(folder)!r} holds {' and '.join(path.name for path in there)}, which are both {split}; keep one"
            )
        if there:
            found[split] = there[0]
    return found


def _folder(folder: Path) -> dict[str, list[Row]]:
    if not folder.is_dir():
        raise ValueError(f"data folder {str(folder)!r} does not exist; check the path")
    files = files_of(folder)
    if "train" not in files:
        there = sorted(path.name for path in folder.iterdir())[:5]
        raise ValueError(
            f"{str(folder)!r} has no train.csv (or {', '.join(SUFFIXES[:3])}); it holds {', '.join(there) or 'nothing'}"
        )
    return {split: read_rows(path) for split, path in files.items()}


def load(dataset: str, config: str | None, revision: str | None) -> Any:
    """A data set of the library ``datasets`` by split: saved on disk, laid out as on the hub, or from the hub.

    Raises:
        ValueError: the library is not installed, or the data set cannot be had.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError(
            f"task.dataset={dataset!r} needs the package datasets; pip install 'rescale-and-adapt[hub]', or give "
            "task.file or task.folder"
        ) from None
    saved = any(Path(dataset, name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        found = datasets.load_from_disk(dataset) if saved else datasets.load_dataset(dataset, config, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(f"task.dataset={dataset!r} cannot be had: {error}") from None
    return found if isinstance(found, dict) else {"train": found}


def parts_of(dataset: str, splits: Mapping[str, Any]) -> dict[str, Any]:
    """The splits under the names used here.

    Raises:
        ValueError: there is none for training.
    """
    parts = {split: splits[name] for split, names in NAMES.items() for name in reversed(names) if name in splits}
    if "train" not in parts:
        raise ValueError(f"task.dataset={dataset!r} has no split train; it has {', '.join(map(str, splits))}")
    return parts


def _dataset(dataset: str, config: str | None, revision: str | None) -> Source:
    parts = parts_of(dataset, load(dataset, config, revision))
    features = parts["train"].features
    names = {column: tuple(kind.names) for column, kind in features.items() if hasattr(kind, "names")}
    return Source({split: list(part) for split, part in parts.items()}, names, whole=len(parts) == 1)
