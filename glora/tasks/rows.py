"""Tables of examples: CSV, TSV, JSONL or Parquet files, or a dataset of the Hugging Face hub."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glora._files import require_regular

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".parquet", ".tsv", ".csv")
#: What may stand between the cells of a CSV file; its header tells which.
DELIMITERS = ",;\t|"


def expand(name: str, text: str) -> str:
    """`text` with ``~`` and ``$VARIABLES`` replaced, for paths in run files.

    Raises:
        ValueError: a variable is not set.
    """
    found = os.path.expanduser(os.path.expandvars(text))
    missing = re.search(r"\$\{?(\w+)", found)
    if missing:
        raise ValueError(f"{name}={text!r}: the environment variable {missing.group(1)} is not set")
    return found


def read_split(folder: str | Path, split: str) -> list[Row]:
    """The rows of ``<folder>/<split>`` with any of the known suffixes.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"data folder {str(folder)!r} does not exist; check the path")
    for suffix in SUFFIXES:
        path = folder / f"{split}{suffix}"
        if path.is_file():
            return read_rows(path)
    there = sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    wanted = f"{split}.jsonl, {split}.parquet, {split}.tsv or {split}.csv"
    raise ValueError(f"{str(folder)!r} has no {wanted}; it holds {', '.join(there) or 'none'}")


def read_rows(path: str | Path) -> list[Row]:
    """The rows of one file; a TSV or CSV file has a header line, and its cells are strings.

    Raises:
        ValueError: the file is missing, of another type, or damaged; the message names the line.
    """
    return list(stream_rows(path))


def stream_rows(path: str | Path) -> Iterator[Row]:
    """The rows of one file one by one, without the whole of it in memory.

    A byte-order mark is passed over. The cells of a TSV file are taken as they stand, as GLUE's are written; those of
    a CSV file may be quoted, and lie between the sign of `DELIMITERS` that its header has most of.

    Raises:
        ValueError: see `read_rows`; before the first row or when a damaged one is reached.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"data file {str(path)!r} does not exist; check the path")
    require_regular(path)
    readers = {".jsonl": _read_jsonl, ".tsv": _read_tsv, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"data file {str(path)!r} must end in {', '.join(SUFFIXES)}")
    try:
        yield from readers[path.suffix](path)
    except UnicodeDecodeError as error:
        raise ValueError(f"data file {str(path)!r} is not text in UTF-8: {error}; convert it") from None


def _read_tsv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from _cells(path, csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        counts = {sign: len(next(csv.reader([header], delimiter=sign), [])) for sign in DELIMITERS}
        reader = csv.DictReader(file, delimiter=max(DELIMITERS, key=counts.__getitem__), strict=True)
        for row in _cells(path, reader):
            if None in row or None in row.values():
                raise ValueError(
                    f"{str(path)!r}, line {reader.line_num} has another number of cells than the header "
                    f"({len(reader.fieldnames or ())}); put cells that hold {reader.reader.dialect.delimiter!r} or "
                    "line ends in quotes"
                )
            yield row


def _cells(path: Path, reader: csv.DictReader[str]) -> Iterator[Row]:
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{str(path)!r}, line {reader.line_num + 1} cannot be read: {error}") from None


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ValueError(f"{str(path)!r} needs pyarrow; pip install 'rescale-and-adapt[tables]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            for part in file.iter_batches():
                yield from part.to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(f"data file {str(path)!r} is damaged: {error}") from None


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{str(path)!r}, line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{str(path)!r}, line {number} is not an object with columns")
            yield row


def hub_split(dataset: str, config: str, split: str, revision: str | None = None) -> list[Row]:
    """The rows of a dataset on the Hugging Face hub, in its local cache, or in a folder that is laid out like one.

    Args:
        dataset: name on the hub, or folder.
        config: which of its configurations.
        split: which of its splits.
        revision: commit, tag or branch of the hub's repository; None takes the newest.

    Raises:
        ValueError: the library is not installed, or the dataset cannot be had.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError(
            f"{dataset}/{config} from the hub needs the package datasets; pip install 'rescale-and-adapt[hub]', or "
            "give task.folder"
        ) from None
    try:
        return list(load_dataset(dataset, config, split=split, revision=revision))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{dataset}/{config} ({split}) cannot be had from the hub: {error}; give task.folder to read files instead"
        ) from None


def column_problems(rows: Sequence[Row], columns: Sequence[str], where: str) -> list[str]:
    """What is wrong with a table that must have these columns in every row and be non-empty."""
    if not rows:
        return [f"{where} is empty"]
    problems = []
    for column in columns:
        bad = [i for i, row in enumerate(rows) if _is_missing(row.get(column))]
        if len(bad) == len(rows):
            problems.append(f"{where} has no column {column!r}; it has {', '.join(map(str, rows[0]))}")
        elif bad:
            problems.append(f"{where}: {len(bad)} rows lack {column!r}, the first is row {bad[0] + 1}")
    return problems


def text_problems(rows: Sequence[Row], columns: Sequence[str], where: str) -> list[str]:
    """What is wrong with columns whose cells must be texts (or numbers), where they are there."""
    problems = []
    for column in columns:
        bad = [i for i, row in enumerate(rows) if not (_is_missing(row.get(column)) or is_text(row[column]))]
        if bad:
            problems.append(
                f"{where}: {len(bad)} rows have no text as {column!r}, the first is row {bad[0] + 1}: "
                f"{rows[bad[0]][column]!r:.60}"
            )
    return problems


def is_text(value: Any) -> bool:
    """A text, or a number that stands for one; a list or an object would be trained on as Python writes it."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _is_missing(value: Any) -> bool:
    """None, or the NaN that pandas writes for an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def repeated(rows: Sequence[Row], columns: Sequence[str], where: str) -> list[str]:
    """A sentence if rows repeat the texts of another row, and how many of them with another label."""
    labels: dict[tuple[Any, ...], Any] = {}
    others = sum(labels.setdefault(_texts(row, columns), row["label"]) != row["label"] for row in rows)
    count = len(rows) - len(labels)
    if not count:
        return []
    unlike = f", {others} of them with another label" if others else ""
    return [f"{where}: {count} of {len(rows)} rows repeat another row's text{unlike}"]


def shared(train: Sequence[Row], test: Sequence[Row], columns: Sequence[str]) -> list[int]:
    """Positions of the rows of `test` whose texts are those of a row of `train`."""
    known = {_texts(row, columns) for row in train}
    return [i for i, row in enumerate(test) if _texts(row, columns) in known]


def _texts(row: Row, columns: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[column] for column in columns)
