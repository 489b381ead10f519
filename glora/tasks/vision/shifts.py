"""Other domains with the same classes, as ``[task.shifts]`` names them: where they lie and which class is which."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glora._files import require_regular
from glora.tasks.vision.images import DataProblems, ImageList
from glora.tasks.vision.lists import class_folders, folder_names, vtab

#: What a shift looks like, for messages.
SHAPE = "a folder, or a table {folder = …, mapping = FILE.json}"


def checked_shifts(shifts: Any) -> dict[str, Any]:
    """The shifts as a dictionary.

    Raises:
        ValueError: they are no table, or one of them is neither a folder nor a table with a folder.
    """
    if not isinstance(shifts, Mapping):
        raise ValueError(f"shifts must be a table, each entry {SHAPE}; got {shifts!r}")
    for name, value in shifts.items():
        table = {"folder": value} if isinstance(value, str) else value
        if (
            not isinstance(table, Mapping)
            or "folder" not in table
            or not set(table) <= {"folder", "mapping"}
            or not all(isinstance(entry, str) for entry in table.values())
        ):
            raise ValueError(f"shifts.{name} must be {SHAPE}; got {value!r}")
    return dict(shifts)


def shift_list(value: str | Mapping[str, str], numbers: Mapping[str, int] | None, classes: int) -> ImageList:
    """The images of a shift.

    Args:
        value: a folder with ``test.txt`` or one folder a class, or ``{folder = …, mapping = FILE.json}`` with
            ``{label or folder name: class}``; what the mapping leaves out is left out.
        numbers: number of each class by its name, None if names are not known.
        classes: number of classes.

    Raises:
        DataProblems: a list, folder or mapping is missing or malformed, or a label has no class.
    """
    table = {"folder": value} if isinstance(value, str) else value
    folder = Path(table["folder"])
    mapping = _mapping(Path(table["mapping"])) if "mapping" in table else None
    if (folder / "test.txt").is_file():
        images = vtab(folder, ["test"])["test"]
        images = images if mapping is None else _relabelled(images, mapping)
    elif mapping is not None:
        images = class_folders(folder, mapping)
    else:
        found = len(folder_names(folder))
        if numbers is None and found not in (0, classes):
            problem = f"{found} class folders for {classes} classes, and no list says which is which"
            raise DataProblems(str(folder), [f"{problem}; write classes.txt, or give a mapping"])
        images = class_folders(folder, numbers, complete=numbers is not None)
    if max(images.labels) >= classes:
        raise DataProblems(str(folder), [f"labels up to {max(images.labels)}, but the task has {classes} classes"])
    return images


def _relabelled(images: ImageList, mapping: Mapping[str, int]) -> ImageList:
    """Images of a list under the classes that the mapping gives their labels."""
    labels = [key for key in mapping if not key.isdigit()]
    if labels:
        raise DataProblems(images.name, [f"the mapping of a list goes from labels, but has the key {labels[0]!r}"])
    try:
        return images.relabel({int(key): number for key, number in mapping.items()})
    except ValueError as error:
        raise DataProblems(images.name, [str(error)]) from None


def _mapping(path: Path) -> dict[str, int]:
    """A JSON file ``{label or folder name: class}``."""
    try:
        require_regular(path)
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataProblems(str(path), ["no such mapping"]) from None
    except (OSError, ValueError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise DataProblems(str(path), [f"the mapping is no JSON file ({error})"]) from None
    whole = isinstance(found, dict) and all(type(number) is int and number >= 0 for number in found.values())
    if not whole or not found:
        raise DataProblems(str(path), ["the mapping must be an object {label or folder name: class number}"])
    return found
