"""Which columns of a table hold texts and labels, and what its classes are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glora.tasks.rows import Row

#: Names under which tables usually keep two texts, one text, a label, in the order they are tried (case ignored).
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text", "text_pair"),
)
TEXTS = (
    "text",
    "sentence",
    "content",
    "body",
    "review",
    "comment",
    "message",
    "tweet",
    "question",
    "document",
    "title",
)
LABELS = ("label", "labels", "label_name", "class", "category", "target", "sentiment", "topic", "intent", "y", "score")
#: More classes than this, and more than half as many as rows, are no classes.
MANY_CLASSES = 50


def text_columns(rows: Sequence[Row], given: str | Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The one or two columns of texts: those given, or those that bear a usual name.

    Raises:
        ValueError: a given column is not there, or none can be told to be the text.
    """
    there = _names(rows)
    if given is not None:
        columns = (given,) if isinstance(given, str) else tuple(given)
        if not 1 <= len(columns) <= 2 or not all(isinstance(column, str) for column in columns):
            raise ValueError(f"task.text must name one or two columns, got {given!r}")
        return tuple(_required("text", column, there, where) for column in columns)
    lower = {name.lower(): name for name in there}
    for pair in PAIRS:
        if set(pair) <= lower.keys():
            return tuple(lower[name] for name in pair)
    for name in TEXTS:
        if name in lower:
            return (lower[name],)
    words = [
        name for name in there if name.lower() not in LABELS and all(isinstance(row.get(name), str) for row in rows)
    ]
    long = [name for name in words if _mean(len(row[name].split()) for row in rows) >= 3]
    if len(long) == 1:
        return (long[0],)
    raise ValueError(f"{where}: which column is the text cannot be told from {', '.join(there)}; give task.text")


def label_column(rows: Sequence[Row], given: str | None, texts: Sequence[str], where: str) -> str:
    """The column of labels: the one given, or the one that bears a usual name, or the only one left.

    Raises:
        ValueError: it is not there, or none can be told to be the label.
    """
    there = _names(rows)
    if given is not None:
        return _required("label", given, there, where)
    lower = {name.lower(): name for name in there if name not in texts}
    for name in LABELS:
        if name in lower:
            return lower[name]
    if len(lower) == 1:
        return next(iter(lower.values()))
    raise ValueError(f"{where}: which column is the label cannot be told from {', '.join(there)}; give task.label")


def class_of(value: Any) -> str:
    """A label as the name of its class: texts without space around them, whole numbers as numerals."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def classes_of(labels: Sequence[Any], where: str) -> tuple[str, ...]:
    """The classes that labels name: numerals by size, else by the alphabet.

    Raises:
        ValueError: fewer than two, or so many that they are no classes.
    """
    names = {class_of(label) for label in labels}
    if len(names) < 2:
        raise ValueError(f"{where}: every row has the label {next(iter(names), None)!r}; give two classes or more")
    if len(names) > max(MANY_CLASSES, len(labels) // 2):
        remedy = "regression = true" if all(as_number(label) is not None for label in labels) else "task.label"
        raise ValueError(f"{where}: {len(names)} different labels in {len(labels)} rows are no classes; give {remedy}")
    numerals = all(name.removeprefix("-").isdigit() for name in names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if numerals else None))


def as_number(value: Any) -> float | None:
    """A label as a finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number - number == 0.0 else None


def empty_texts(rows: Sequence[Row], columns: Sequence[str], where: str) -> list[str]:
    """A sentence for every column that holds texts of nothing."""
    problems = []
    for column in columns:
        empty = [i for i, row in enumerate(rows) if isinstance(row[column], str) and not row[column].strip()]
        if empty:
            problems.append(f"{where}: {len(empty)} rows have an empty {column!r}, the first is row {empty[0] + 1}")
    return problems


def named(values: Sequence[Any], names: Mapping[str, Sequence[str]] | None, column: str) -> list[Any]:
    """Labels by name where the data set itself says what its numbers mean."""
    known = (names or {}).get(column)
    if not known:
        return list(values)
    return [
        known[value] if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(known) else value
        for value in values
    ]


def _names(rows: Sequence[Row]) -> list[str]:
    return [str(name) for name in rows[0]] if rows else []


def _required(what: str, column: str, there: Sequence[str], where: str) -> str:
    if column not in there:
        raise ValueError(f"{where} has no column {column!r} (task.{what}); it has {', '.join(there)}")
    return column


def _mean(values: Iterable[int]) -> float:
    found = list(values)
    return sum(found) / max(1, len(found))
