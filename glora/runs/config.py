"""What a run is: a TOML file with the sections [task], [method] and [training], as a frozen dataclass.

    [task]                          [method]                        [training]
    name = "glue"                   name = "alpha_lora"             epochs = 4
    dataset = "mrpc"                rank = 8                        batch_size = 32
    folder = "glue/mrpc"            target = "(query|value)$"       lr = 2e-3
    model = "models/minilm-l6"                                      alpha = { mode = "scheduled", every = 10 }

``[task]`` and ``[method]`` hold a name and that task's or method's own options; `glora.tasks.make_task` and
`glora.tuning.methods.apply` check those. Everything here is checked when it is made, before any work starts.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glora._checks import of_kind, table
from glora._files import read_text
from glora.runs.settings import TrainingSettings, from_mapping
from glora.runs.shipped import resolve


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run: what is learned, which adapter learns it, and how.

    Args:
        task: name of a task and its options; see `glora.tasks`.
        method: name of a method and its options; see `glora.tuning.methods`.
        training: see `TrainingSettings`.
        test: whether the finished model is evaluated on the test split; choose settings without.
        out: folder of the run, ``runs/<name of the file>`` if the file does not say.
    """

    task: Mapping[str, Any]
    method: Mapping[str, Any]
    training: TrainingSettings = field(default_factory=TrainingSettings)
    test: bool = True
    out: str = "runs/run"

    def __post_init__(self) -> None:
        for section in ("task", "method"):
            values = getattr(self, section)
            if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
                raise ValueError(f"section [{section}] must be a table with a name, got {values!r}")
            object.__setattr__(self, section, dict(values))
        of_kind("test", self.test, bool)
        of_kind("out", self.out, str)
        if not self.out.strip():
            raise ValueError("out is empty; name the folder of the run")

    @property
    def task_options(self) -> dict[str, Any]:
        """The task's own options."""
        return {key: value for key, value in self.task.items() if key != "name"}

    @property
    def method_options(self) -> dict[str, Any]:
        """The method's own options."""
        return {key: value for key, value in self.method.items() if key != "name"}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """A run from nested tables; what they leave out is as the method has it (see `AlphaSettings`).

        Raises:
            ValueError: a section or key is unknown, missing or has an impossible value.
        """
        known = {spec.name for spec in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown sections or keys {unknown}; a run has {sorted(known)}")
        for section in ("task", "method"):
            if section not in values:
                raise ValueError(f"section [{section}] is missing")
        training = values.get("training", {})
        table("section [training]", training)
        settings = from_mapping(TrainingSettings, "training", training)
        config = cls(**{**values, "training": settings})
        given = training.get("alpha", {})
        if config.method["name"] == "alpha_lora" or "mode" in given:
            return config
        alpha = dataclasses.replace(settings.alpha, mode="joint", lr=given.get("lr", settings.lr))
        return dataclasses.replace(config, training=dataclasses.replace(settings, alpha=alpha))


def read(path: str | Path, changes: Sequence[str] = ()) -> RunConfig:
    """A run from a TOML file, with ``key=value`` changes (``training.lr=1e-3``; the value is TOML, or a plain word).

    ``pkg:NAME`` is a file that comes with the package, see `glora.runs.shipped`.

    Raises:
        ValueError: the file is missing or no TOML, a change cannot be read, or a value is impossible.
    """
    path = resolve(path)
    try:
        values = tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"run file {str(path)!r} does not exist; check the path") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"run file {str(path)!r} is not valid TOML: {error}") from None
    values.setdefault("out", str(Path("runs") / path.stem))
    for change in changes:
        _set(values, change)
    try:
        return RunConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"run file {str(path)!r}: {error}") from None


def _set(values: dict[str, Any], change: str) -> None:
    """Apply one ``a.b=value`` to nested tables."""
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ValueError(f"--set must look like training.lr=1e-3, got {change!r}")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a plain word: method.name=lora
    table = values
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ValueError(f"--set {change!r}: {part!r} is a value, not a table")
    table[parts[-1]] = value
