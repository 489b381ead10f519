"""Files that are whole or absent, that show damage, and folders that have one owner at a time.

The twin of `rmt._files`: neither package may import the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import socket
import stat
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: Key under which a JSON object holds the digest of its other keys.
DIGEST = "digest"
#: File of the lock on a folder, while there is one.
LOCK = ".lock"
#: Names that `write_atomic` gives to temporary files.
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")


# ------------------------------------------------------------------------------------------------- whole or absent


def as_path(name: str, value: Any) -> Path:
    """`value` as a path.

    Raises:
        ValueError: it is none; `name` is that of the argument.
    """
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise ValueError(f"{name} must be a path, got {value!r:.60}")
    return Path(value)


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Operating-system errors raised inside name `path` (a full disk is found by ``write``, which knows no name)."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), str(path)) from None


def write_atomic(path: str | Path, data: str | bytes) -> Path:
    """Write `data` to `path` by way of a temporary neighbour, so that no reader ever sees half of it.

    Parent folders are made. If the writing fails (disk full, killed), what was at `path` before stays as it was.

    Raises:
        ValueError: there is a device or pipe, which the renaming would replace by a file.
        OSError: it cannot be written; the error names the path.
    """
    path = Path(path)
    require_regular(path)
    payload = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp")
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


def remove_leftovers(folder: str | Path) -> None:
    """Delete the temporary files that killed writers left in and below `folder` (call it with the folder locked)."""
    for path in Path(folder).rglob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def visible(folder: str | Path) -> list[Path]:
    """What is in a folder (nothing, if it is not there) without temporary files and locks."""
    folder = Path(folder)
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.name != LOCK and not _TEMPORARY.fullmatch(path.name))


def read_text(path: str | Path) -> str:
    """The text of a regular file, without a byte order mark; a pipe or a device, which might never end, is not opened.

    Raises:
        ValueError: it is no regular file, or not text in UTF-8.
        FileNotFoundError, OSError: it is not there, or cannot be read.
    """
    path = Path(path)
    require_regular(path)
    try:
        with naming(path):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"file {str(path)!r} is not text in UTF-8 ({error})") from None


def require_regular(path: str | Path) -> None:
    """Raise ValueError if `path` is there and neither a file nor a folder: opening a pipe or device may not return."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{str(path)!r} is a pipe, socket or device; give a regular file")


# ----------------------------------------------------------------------------------------------------- strict JSON


def to_plain(value: Any) -> Any:
    """`value` with NumPy arrays and scalars turned into lists and Python numbers, ready for JSON.

    Infinities and NaN have no JSON form: they become the strings ``"inf"``, ``"-inf"``, ``"nan"``.
    """
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as strict JSON (see `to_plain` for what is converted)."""
    return json.dumps(to_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def write_json(path: str | Path, value: Any, *, indent: int | None = 1) -> Path:
    """Write `value` as strict JSON, atomically."""
    return write_atomic(path, to_json(value, indent=indent) + "\n")


def read_json(path: str | Path, remedy: str = "delete it to have it computed again") -> Any:
    """Read a JSON file; what is wrong with it is a ``ValueError`` that names it and the remedy."""
    path = Path(path)
    require_regular(path)
    try:
        with naming(path):
            return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ValueError(f"file {str(path)!r} does not exist; check the path") from None
    except (ValueError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise ValueError(f"file {str(path)!r} is not valid JSON ({error}); {remedy}") from None


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


# -------------------------------------------------------------------------------------------------------- digests


def digest(value: Any) -> str:
    """16 hexadecimal digits that belong to a value which JSON can hold, whatever the order of its keys."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """`record`, plain, with its digest under the key ``digest``."""
    plain = to_plain(record)
    return {**plain, DIGEST: digest(plain)}


def unsealed(record: Any, path: str | Path, remedy: str = "delete it to have it computed again") -> dict[str, Any]:
    """A record without its digest, which must fit; one without a digest is an old one and taken as it is.

    Raises:
        ValueError: it is no object, or was damaged or changed since it was written.
    """
    if not isinstance(record, dict):
        raise ValueError(f"file {str(path)!r} is damaged: it holds no JSON object; {remedy}")
    found = {key: value for key, value in record.items() if key != DIGEST}
    if DIGEST in record and record[DIGEST] != digest(found):
        raise ValueError(
            f"file {str(path)!r} is damaged or was changed by hand: its contents do not fit its digest; {remedy} "
            "(if you meant the change, delete the key 'digest')"
        )
    return found


def append_line(path: str | Path, record: Mapping[str, Any], *, durable: bool = False) -> None:
    """Append a record with its digest as one line of JSON; it outlives this process and, if `durable`, the machine."""
    with naming(path), Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(to_json(sealed(record)) + "\n")
        file.flush()
        if durable:
            os.fsync(file.fileno())


def lines(path: str | Path) -> list[dict[str, Any] | None]:
    """The records of a file of JSON lines, None for each that is damaged; a file that is not there holds none.

    Lines without a digest (of older versions) are taken as they are.
    """
    path = Path(path)
    require_regular(path)
    with naming(path):
        data = path.read_bytes() if path.is_file() else b""
    found: list[dict[str, Any] | None] = []
    for line in data.splitlines():
        try:
            found.append(unsealed(json.loads(line), path))
        except (ValueError, RecursionError):  # JSON and Unicode errors are ValueErrors
            found.append(None)
    return found


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; a last line that a kill cut off is left out.

    Raises:
        ValueError: another line is damaged.
    """
    found = lines(path)
    if found and found[-1] is None:
        found.pop()
    if None in found:
        raise ValueError(
            f"file {str(path)!r}, line {found.index(None) + 1} is damaged; restore the file, or delete that line"
        )
    return [record for record in found if record is not None]


def warn_old(what: str) -> None:
    """Say that a file is of a version that wrote no digests."""
    warnings.warn(f"{what} was written without a digest, so damage to it cannot be seen", stacklevel=3)


# ---------------------------------------------------------------------------------------------- one owner at a time


class Lock:
    """A folder that belongs to one process at a time; the kernel frees it when its owner ends, however it ends.

    Use it as a context manager. The folder is made if it is missing.

    Raises:
        ValueError: another process works in the folder; the message says which.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._path = self.folder / LOCK
        self._lock: Any = None

    def __enter__(self) -> Lock:
        import filelock

        with naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self._path, timeout=0)
        try:
            with naming(self._path):
                lock.acquire()
        except filelock.Timeout:
            raise ValueError(
                f"folder {str(self.folder)!r} is in use by {self._owner()}; wait for its end, or choose another folder"
            ) from None
        self._lock = lock
        with naming(self._path):
            self._path.write_text(f"{os.getpid()} {socket.gethostname()}\n", encoding="utf-8")
        self._inode = self._path.stat().st_ino
        remove_leftovers(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.require()
            self._path.unlink()
        self._lock.release()

    def require(self) -> None:
        """Raise OSError unless the folder is still the one that was locked (it may have been removed meanwhile)."""
        try:
            same = self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            same = False
        if not same:
            raise OSError(f"folder {str(self.folder)!r} was removed or replaced while this process worked in it")

    def _owner(self) -> str:
        try:
            process, host = self._path.read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return "another process"
        return f"process {process} on {host}"
