"""The folder of a run: everything needed to repeat it, to continue it and to use what came out.

=================== ===================================================================================
run.json            the configuration, seeds included, and the versions of everything
steps.json          where steps were measured: a digest of the batch, and the steps
metrics.jsonl       one line for every ``log_every`` steps and every evaluation
last.safetensors    the newest checkpoint for resuming: weights, optimizer states, and the loop's state
last.previous.…     the one before it, taken where the newest is damaged
best.safetensors    the weights with the best main metric on validation so far
adapter/            what came out, for `glora.load` (absent for full fine-tuning)
result.json         the figures at the end; its presence means that the run is complete
=================== ===================================================================================

Every file is written whole or not at all, and holds a digest of what it says; a checkpoint is one file, so its parts
always belong together. A folder is locked while a run works in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glora import _digests
from glora._files import (
    Lock,
    append_line,
    read_json,
    read_lines,
    require_regular,
    sealed,
    to_json,
    unsealed,
    warn_old,
    write_atomic,
    write_json,
)
from glora.runs.config import RunConfig

_STATE, _DIGEST, _PREVIOUS = "state", "digest", "last.previous"
#: Of run.json; 1 knew no steps, so that the methods below, whose default is now another, meant "raw".
VERSION = 2
_RAW_BEFORE = ("glora", "ssf", "bitfit", "output_scale", "custom", "supernet")


class Run:
    """A run's folder; get one from `create` (before the work, then `start`) or `open` (afterwards)."""

    def __init__(self, folder: str | Path, config: RunConfig, version: int = VERSION) -> None:
        self.folder = Path(folder)
        self.config = config
        self.version = version
        self._begun = False  # whether the folder held it when it was opened

    @classmethod
    def create(cls, config: RunConfig, *, resume: bool = False) -> Run:
        """The folder ``config.out``, new or (with `resume`) continued; nothing is written yet.

        Raises:
            ValueError: the folder holds a run already and `resume` is False, or holds one with another
                configuration.
        """
        folder = Path(config.out)
        if (folder / "run.json").is_file():
            if not resume:
                raise ValueError(
                    f"folder {str(folder)!r} holds a run already; continue it with --resume or choose another "
                    "with --set out=FOLDER"
                )
            run = cls.open(folder)
            changed = sorted(_differences(run.config.to_dict(), _read(config.to_dict(), run.version)))
            if changed:
                raise ValueError(
                    f"the run in {str(folder)!r} was started with other values of {', '.join(changed)}; "
                    "resume it with the values it has, or choose another folder with --set out=FOLDER"
                )
            return run
        return cls(folder, config)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run in a folder.

        Raises:
            ValueError: there is none, or its description is damaged.
        """
        path = Path(folder) / "run.json"
        if not path.is_file():
            raise ValueError(f"{str(folder)!r} is not the folder of a run: it has no run.json")
        content = unsealed(read_json(path, "the folder is of no more use"), path, "the folder is of no more use")
        try:
            version = int(content.get("version", 1))
            config = RunConfig.from_dict(_read(content["config"], version))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} is damaged: {error!r}") from None
        if version > VERSION:
            raise ValueError(f"{str(path)!r} has version {version}, this package reads up to {VERSION}")
        run = cls(folder, config, version)
        run._begun = True
        return run

    def lock(self) -> Lock:
        """The folder's lock, to be held while the run is at work."""
        return Lock(self.folder)

    def start(self) -> Run:
        """Write the description of a new run; a run that is continued keeps the one it has.

        Raises:
            ValueError: another process has begun a run in the folder meanwhile.
        """
        path = self.folder / "run.json"
        if not self._begun:
            if path.is_file():
                raise ValueError(f"folder {str(self.folder)!r} holds a run of another process; choose another folder")
            described = {"version": VERSION, "config": self.config.to_dict(), "versions": versions()}
            write_json(path, sealed(described))
            self._begun = True
        return self

    @property
    def adapter(self) -> Path:
        """Folder of the finished adapter."""
        return self.folder / "adapter"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics so far; a line cut off by a kill is left out."""
        return read_lines(self.folder / "metrics.jsonl")

    @property
    def result(self) -> dict[str, Any] | None:
        """The figures at the end, or None while the run is not complete.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.folder / "result.json"
        if not path.is_file():
            return None
        remedy = "delete it and continue with --resume"
        return unsealed(read_json(path, remedy), path, remedy)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line of metrics."""
        append_line(self.folder / "metrics.jsonl", record)

    def rewind(self, step: int) -> None:
        """Drop the lines of metrics after `step`, which a resumed run writes again."""
        kept = [line for line in self.metrics if line["step"] <= step]
        write_atomic(self.folder / "metrics.jsonl", "".join(to_json(sealed(line)) + "\n" for line in kept))

    def note_steps(self, steps: dict[str, Any]) -> None:
        """Write what was measured before the first step."""
        write_json(self.folder / "steps.json", sealed(steps))

    def finish(self, result: dict[str, Any]) -> None:
        """Write the figures at the end."""
        write_json(self.folder / "result.json", sealed(result))

    def save_checkpoint(self, name: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint ("last" or "best"): tensors by name and the rest as JSON, in one file."""
        from safetensors.torch import save

        # Tied tensors share memory, which the format refuses: each gets a copy of its own.
        own = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
        text = to_json(state)
        data = save(own, metadata={_STATE: text, _DIGEST: _digests.of_tensors(own, text)})
        path = self._checkpoint(name)
        if name == "last" and path.is_file():
            os.replace(path, self._checkpoint(_PREVIOUS))
        write_atomic(path, data)

    def load_checkpoint(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """A checkpoint's tensors and state, or None if there is none.

        Where the last one is damaged, or a kill came between it and the one before, the one before is given, with a
        warning that says so.

        Raises:
            ValueError: the file is damaged.
        """
        path, previous = self._checkpoint(name), self._checkpoint(_PREVIOUS)
        if name != "last" or not previous.is_file():
            return _read_checkpoint(path) if path.is_file() else None
        if not path.is_file():
            return _read_checkpoint(previous)
        try:
            return _read_checkpoint(path)
        except ValueError as error:
            try:
                found = _read_checkpoint(previous)
            except ValueError:
                raise error from None
            warnings.warn(f"{error}; taken is the one before it, of step {found[1].get('step')}", stacklevel=2)
            return found

    def _checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a file, which must fit its digest and hold finite numbers."""
    from safetensors import SafetensorError, safe_open

    require_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            words = file.metadata() or {}
            state = json.loads(words[_STATE])
    except (SafetensorError, KeyError, RecursionError, ValueError) as error:  # JSON and Unicode errors are ValueErrors
        raise ValueError(f"checkpoint {str(path)!r} is damaged ({error}); delete it to start anew") from None
    if words.keys() == {_STATE}:
        warn_old(f"checkpoint {str(path)!r}")
    elif words.get(_DIGEST) != _digests.of_tensors(tensors, words[_STATE]):
        raise ValueError(f"checkpoint {str(path)!r} is damaged (its digest does not fit); delete it to start anew")
    bad = _digests.not_finite(tensors)
    if bad or not isinstance(state, dict):
        problem = f"{bad[0]} is not finite" if bad else "its state is no object"
        raise ValueError(f"checkpoint {str(path)!r} cannot be used ({problem}); delete it to start anew")
    return tensors, state


def versions() -> dict[str, str]:
    """Versions of Python, the machine type, and every library used."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "torch": torch.__version__}
    for module in ("transformers", "accelerate", "peft", "safetensors", "sklearn"):
        if module in sys.modules:
            found[module] = str(getattr(sys.modules[module], "__version__", "?"))
    with contextlib.suppress(metadata.PackageNotFoundError):  # used from a checkout that is not installed
        found["rescale-and-adapt"] = metadata.version("rescale-and-adapt")
    return found


def _read(config: dict[str, Any], version: int) -> dict[str, Any]:
    """A configuration as a version of run.json meant it."""
    method = config["method"]
    if version == 1 and method["name"] in _RAW_BEFORE:
        config = {**config, "method": {"steps": "raw", **method}}
    return config


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Dotted names of the values that differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        found: list[str] = []
        for key in one.keys() | other.keys():
            found += _differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)
        return found
    plain_one, plain_other = json.loads(json.dumps(one)), json.loads(json.dumps(other))
    return [] if plain_one == plain_other else [path]
