"""Local question files for lm-evaluation-harness: what the task files of this folder call."""

from __future__ import annotations

from typing import Any

from glora.tasks.rows import column_problems, expand, read_rows


def questions(file: str, **_: Any) -> dict[str, Any]:
    """A multiple-choice file as the harness takes data: its only split is "test".

    Args:
        file: JSONL with the columns question, choices (a list of texts) and answer (an index); ``$VARIABLES`` are
            replaced.

    Raises:
        ValueError: the file cannot be read or lacks a column.
    """
    from datasets import Dataset

    path = expand("dataset_kwargs.file", file)
    rows = read_rows(path)
    if problems := column_problems(rows, ("question", "choices", "answer"), path):
        raise ValueError("; ".join(problems))
    return {"test": Dataset.from_list(rows)}
