"""Tasks by the name that a run's file gives: data, loss and metric behind the protocol of `glora.tasks.base`.

A task's libraries (transformers, Pillow …) are imported when the task is used.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from glora._checks import options_of_kind
from glora.tasks.base import SPLITS, Batch, Task

#: Name in a run's file: module and class.
TASKS = {
    "glue": ("glora.tasks.text.glue", "Glue"),
    "images": ("glora.tasks.own.images", "Images"),
    "instruct": ("glora.tasks.text.instruct", "Instruct"),
    "multiple_choice": ("glora.tasks.text.multiple_choice", "MultipleChoice"),
    "text": ("glora.tasks.own.text", "Text"),
    "vtab": ("glora.tasks.vision.image_folder", "Vtab"),
}

__all__ = ["SPLITS", "TASKS", "Batch", "Task", "make_task"]


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task called `name` with its `[task]` options.

    Raises:
        ValueError: there is no such task, it does not know an option or needs one more, or an option has a value of
            another type.
    """
    if name not in TASKS:
        raise ValueError(f"task.name must be one of {', '.join(sorted(TASKS))}; got {name!r}")
    module, cls = TASKS[name]
    task = getattr(importlib.import_module(module), cls)
    fields = {field.name: field for field in dataclasses.fields(task)}
    unknown = sorted(set(options) - set(fields))
    if unknown:
        raise ValueError(f"task {name!r} has no option {', '.join(map(repr, unknown))}; it has {', '.join(fields)}")
    missing = [
        key
        for key, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING and key not in options
    ]
    if missing:
        raise ValueError(f"task {name!r} needs {', '.join(missing)} in its [task] section")
    options_of_kind("task", task, options)
    return task(**options)
