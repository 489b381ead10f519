"""Classification of a user's own pictures.

    [task]
    name = "images"
    folder = "flowers"              # one folder of pictures a class, or train/ (val/, test/) of such folders
    model = "models/vit-s14"

    [task]
    name = "images"
    layout = "csv"
    file = "flowers.csv"            # columns path and label; paths start from the file's folder

Parts that the data does not come in are cut by a seed, copies of one picture staying together.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from glora._checks import choice
from glora.tasks.hub import check_revision
from glora.tasks.own import columns as found
from glora.tasks.own.sources import NAMES, load, parts_of
from glora.tasks.own.splits import Split, cut
from glora.tasks.rows import Row, expand, read_rows
from glora.tasks.vision.image_folder import Vtab
from glora.tasks.vision.images import DataProblems, ImageList, ImageSet
from glora.tasks.vision.lists import class_folders, folder_names

LAYOUTS = ("folders", "csv", "dataset")
PATHS = ("path", "file", "filename", "file_name", "image", "filepath", "image_path")


@dataclass(frozen=True)
class Given:
    """Pictures as the data has them.

    Attributes:
        lists: "train", and other splits if there are any.
        names: the classes in the order of their numbers.
        pictures: the encoded pictures of each split where they lie in a data set and not in files.
    """

    lists: Mapping[str, ImageList]
    names: tuple[str, ...]
    pictures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Images(Vtab):
    """Pictures of one's own; the fields are the keys of ``[task]`` with ``name = "images"``.

    Those that are not listed here are `Vtab`'s.

    Args:
        layout: "folders": `folder` holds one folder of pictures a class, or ``train/`` and, if there are any,
            ``val/`` (or validation, valid, dev) and ``test/`` of such folders. "csv": `file` is a table (CSV, TSV,
            JSONL or Parquet) with a path and a label a row. "dataset": `folder` is a data set of pictures of the
            library ``datasets``, saved there or by its name on the hub.
        folder: see `layout`; with a table, where its paths start from (None: the table's folder).
        file: see `layout`.
        path, label: columns of the table or data set; found by their names if None.
        data_revision: commit, tag or branch of a data set on the hub.
        split: ``{validation = .2, test = .2, seed = 0}``, fractions of the whole; see `Split`. A folder with parts of
            its own is cut into a test only if this asks for it.
        classes: not used; the classes are the folders' names or the labels (numerals by size, else by the alphabet).
    """

    folder: str = ""
    layout: str = "folders"
    file: str | None = None
    path: str | None = None
    label: str | None = None
    data_revision: str | None = None
    split: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        folder = self.folder or str(Path(expand("task.file", str(self.file))).parent)
        object.__setattr__(self, "folder", expand("task.folder", folder))

    def _check_layout(self) -> None:
        choice("task.layout", self.layout, LAYOUTS)
        if (self.layout == "csv") != (self.file is not None):
            raise ValueError("task.file belongs to task.layout='csv', and that needs it")
        if self.layout != "csv" and not self.folder:
            raise ValueError(f"task.layout={self.layout!r} needs task.folder")
        check_revision("task.data_revision", self.data_revision, self.folder if self.layout == "dataset" else None)
        if self.classes is not None:
            raise ValueError("task.classes is for VTAB's lists; here the folders or labels tell the classes")
        if self.layout == "folders" and (self.path is not None or self.label is not None):
            raise ValueError("task.path and task.label name columns of a table; folders have none")
        if self.shots is not None:
            raise ValueError("task.shots is for VTAB's and few-shot lists; cut a smaller part with task.split instead")
        Split.of(self.split)

    # ------------------------------------------------------------------------------------------------------- parts

    @cached_property
    def _given(self) -> Given:
        """What the data has: "train", and other parts if it has its own."""
        if self.layout == "csv":
            file = Path(expand("task.file", str(self.file)))
            return self._of_table(read_rows(file), Path(self.folder), file.name)
        if self.layout == "dataset":
            return self._of_dataset()
        parts = part_folders(Path(self.folder))
        names = tuple(folder_names(parts.get("train", self.folder)))
        if not parts:
            return Given({"train": class_folders(self.folder)}, names)
        numbers = {name: number for number, name in enumerate(names)}
        return Given({split: class_folders(part, numbers, complete=True) for split, part in parts.items()}, names)

    def _of_table(self, rows: Sequence[Row], root: Path, name: str) -> Given:
        path = self.path if self.path is not None else _path_column(rows, name)
        label = found.label_column(rows, self.label, (path,), name)
        problems = [
            f"{name}, row {i + 1} has no {column}"
            for i, row in enumerate(rows)
            for column in (path, label)
            if row.get(column) in (None, "")
        ]
        if problems or not rows:
            raise DataProblems(name, problems or ["the table has no rows"])
        names = found.classes_of([row[label] for row in rows], name)
        labels = tuple(names.index(found.class_of(row[label])) for row in rows)
        return Given({"train": ImageList(name, root, tuple(str(row[path]) for row in rows), labels)}, names)

    def _of_dataset(self) -> Given:
        import datasets

        lists: dict[str, ImageList] = {}
        pictures: dict[str, Any] = {}
        names: tuple[str, ...] = ()
        for split, part in parts_of(self.folder, load(self.folder, None, self.data_revision)).items():
            columns = [name for name, kind in part.features.items() if isinstance(kind, datasets.Image)]
            column = self.path if self.path is not None else columns[0] if len(columns) == 1 else None
            if column is None or column not in columns:
                there = ", ".join(part.features)
                raise DataProblems(self.folder, [f"which column is the picture cannot be told from {there}; task.path"])
            label = found.label_column([dict(part.features)], self.label, (column,), self.folder)
            known = getattr(part.features[label], "names", None)
            values = found.named(part[label], {label: known} if known else None, label)
            names = names or tuple(known or found.classes_of(values, self.folder))
            foreign = [value for value in values if found.class_of(value) not in names]
            if foreign:
                raise DataProblems(self.folder, [f"{split} has the class {foreign[0]!r}, which train has not"])
            pictures[split] = part.cast_column(column, datasets.Image(decode=False))[column]
            labels = tuple(names.index(found.class_of(value)) for value in values)
            paths = tuple(f"{split}/{i}" for i in range(len(values)))
            lists[split] = ImageList(f"{self.folder}/{split}", Path(self.folder), paths, labels)
        return Given(lists, names, pictures)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers."""
        return self._given.names

    def _open(self, path: str) -> io.BytesIO:
        """The file of a picture of a data set, by its ``split/position``."""
        split, _, position = path.partition("/")
        picture = self._given.pictures[split][int(position)]
        return io.BytesIO(picture["bytes"] if picture["bytes"] is not None else Path(picture["path"]).read_bytes())

    @cached_property
    def _parts(self) -> dict[str, ImageList]:
        """The lists of all splits but the union."""
        lists = dict(self._given.lists)
        if "validation" in lists and "test" in lists:
            return lists
        whole = len(lists) == 1 and not (self.layout == "folders" and part_folders(Path(self.folder)))
        split = Split.of(self.split, test=0.2 if whole else 0.0)
        images = lists["train"]
        parts = cut(
            self.keys(images),
            images.labels,
            validation=0.0 if "validation" in lists else split.validation,
            test=0.0 if "test" in lists else split.test,
            seed=split.seed,
        )
        lists |= {name: images.take(positions) for name, positions in parts.items() if positions}
        if "validation" not in lists:
            raise DataProblems(self.folder, [f"{len(images)} pictures are too few to cut a validation part from"])
        return lists

    def keys(self, images: ImageList) -> list[str]:
        """What equal pictures share: the digest of their files, which is taken only of those of equal size."""
        if self.layout == "dataset":
            return [hashlib.sha256(self._open(path).getvalue()).hexdigest() for path in images.paths]
        files = [images.root / path for path in images.paths]
        sizes = [file.stat().st_size if file.is_file() else -1 for file in files]
        often = Counter(sizes)
        return [
            hashlib.sha256(file.read_bytes()).hexdigest() if size >= 0 and often[size] > 1 else str(file)
            for file, size in zip(files, sizes, strict=True)
        ]

    # ------------------------------------------------------------------------------------------- what `Vtab` asks for

    @cached_property
    def class_number(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def has_test(self) -> bool:
        """Whether there is a test split; without one there is no final figure."""
        return "test" in self._parts

    @cached_property
    def _class_numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.class_names)}

    def _own_list(self, split: str) -> ImageList:
        if split == "train+validation":
            return self._union()
        if split not in self._parts:
            raise DataProblems(self.folder, [f"there is no {split} part; give task.split = {{{split} = 0.2}}"])
        return self._parts[split]

    def _image_set(self, images: ImageList) -> ImageSet:
        return ImageSet(images, self.transform, opened=self._open if self.layout == "dataset" else None)


def part_folders(folder: Path) -> dict[str, Path]:
    """The folders of parts in a folder of pictures, by split; none where it holds classes alone.

    Raises:
        DataProblems: there is no such folder.
    """
    if not folder.is_dir():
        raise DataProblems(str(folder), ["no such folder"])
    there = {split: folder / name for split, names in NAMES.items() for name in names if (folder / name).is_dir()}
    # A class may be called "test": parts hold folders of classes.
    return {split: part for split, part in there.items() if folder_names(part)} if "train" in there else {}


def _path_column(rows: Sequence[Row], name: str) -> str:
    there = [str(column) for column in rows[0]] if rows else []
    lower = {column.lower(): column for column in there}
    for known in PATHS:
        if known in lower:
            return lower[known]
    raise DataProblems(name, [f"which column is the path cannot be told from {', '.join(there)}; give task.path"])
