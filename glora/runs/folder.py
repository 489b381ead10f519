"""The folder of a run: everything needed to repeat it, to continue it and to use what came out.

=================== ===================================================================================
run.json            the configuration, seeds included, and the versions of everything
steps.json          where steps were measured: a digest of the batch, and the steps
metrics.jsonl       one line for every ``log_every`` steps and every evaluation
last.safetensors    the newest checkpoint for resuming: weights, optimizer states, and the loop's state
best.safetensors    the weights with the best main metric on validation so far
adapter/            what came out, for `glora.load` (absent for full fine-tuning)
result.json         the figures at the end; its presence means that the run is complete
=================== ===================================================================================

Every file is written whole or not at all; a checkpoint is one file, so its parts always belong together.
"""

from __future__ import annotations

import contextlib
import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glora._files import read_lines, write_atomic
from glora.runs.config import RunConfig

_STATE = "state"
#: Of run.json; 1 knew no steps, so that the methods below, whose default is now another, meant "raw".
VERSION = 2
_RAW_BEFORE = ("glora", "ssf", "bitfit", "output_scale", "custom", "supernet")


class Run:
    """A run's folder; get one from `create` (before the work, then `start`) or `open` (afterwards)."""

    def __init__(self, folder: str | Path, config: RunConfig, version: int = VERSION) -> None:
        self.folder = Path(folder)
        self.config = config
        self.version = version

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
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            version = int(stored.get("version", 1))
            config = RunConfig.from_dict(_read(stored["config"], version))
        except FileNotFoundError:
            raise ValueError(f"{str(folder)!r} is not the folder of a run: it has no run.json") from None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} is damaged: {error!r}") from None
        if version > VERSION:
            raise ValueError(f"{str(path)!r} has version {version}, this package reads up to {VERSION}")
        return cls(folder, config, version)

    def start(self) -> Run:
        """Write the description of a new run; a run that is continued keeps the one it has."""
        path = self.folder / "run.json"
        if not path.is_file():
            described = {"version": VERSION, "config": self.config.to_dict(), "versions": versions()}
            write_atomic(path, _json(described, indent=1))
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
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{str(path)!r} is damaged ({error}); delete it and continue with --resume") from None

    def log(self, record: dict[str, Any]) -> None:
        """Append one line of metrics."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(_json(record) + "\n")

    def rewind(self, step: int) -> None:
        """Drop the lines of metrics after `step`, which a resumed run writes again."""
        kept = [line for line in self.metrics if line["step"] <= step]
        write_atomic(self.folder / "metrics.jsonl", "".join(_json(line) + "\n" for line in kept))

    def note_steps(self, steps: dict[str, Any]) -> None:
        """Write what was measured before the first step."""
        write_atomic(self.folder / "steps.json", _json(steps, indent=1))

    def finish(self, result: dict[str, Any]) -> None:
        """Write the figures at the end."""
        write_atomic(self.folder / "result.json", _json(result, indent=1))

    def save_checkpoint(self, name: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint ("last" or "best"): tensors by name and the rest as JSON, in one file."""
        from safetensors.torch import save

        # Tied tensors share memory, which the format refuses: each gets a copy of its own.
        own = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
        write_atomic(self._checkpoint(name), save(own, metadata={_STATE: _json(state)}))

    def load_checkpoint(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """A checkpoint's tensors and state, or None if there is none.

        Raises:
            ValueError: the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        path = self._checkpoint(name)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
                state = json.loads((file.metadata() or {})[_STATE])
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"checkpoint {str(path)!r} is damaged ({error}); delete it to start anew") from None
        return tensors, state

    def _checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def versions() -> dict[str, str]:
    """Versions of Python, the machine type, and every library used."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "torch": torch.__version__}
    for module in ("transformers", "accelerate", "peft", "safetensors", "sklearn"):
        if module in sys.modules:
            found[module] = str(getattr(sys.modules[module], "__version__", "?"))
    with contextlib.suppress(metadata.PackageNotFoundError):  # used from a checkout that is not installed
        found["rescale-and-adapt"] = metadata.version("rescale-and-adapt")
    return found


def _json(value: Any, *, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False)


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
