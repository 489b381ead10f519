"""Files that are either whole or absent: write to a temporary neighbour, then rename."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def write_atomic(path: str | Path, data: str | bytes) -> Path:
    """Write ``data`` to ``path`` so that no reader ever sees half of it.

    Parent folders are made. If the write fails (disk full, killed), the old file, if any, stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode() if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only the owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def to_plain(value: Any) -> Any:
    """``value`` with NumPy arrays and scalars turned into lists and Python numbers, ready for JSON.

    Infinities and NaN have no JSON form: they become the strings ``"inf"``, ``"-inf"``, ``"nan"``.
    """
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def write_json(path: str | Path, value: Any, *, indent: int | None = 1) -> Path:
    """Write ``value`` as strict JSON, atomically (see :func:`to_plain` for what is converted)."""
    text = json.dumps(to_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)
    return write_atomic(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or broken file is a ``ValueError`` that names it and the remedy."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"file {str(path)!r} does not exist; check the path") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"file {str(path)!r} is not valid JSON ({error}); delete it to have it computed again"
        ) from None
