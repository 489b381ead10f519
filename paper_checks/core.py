"""What a check is, what comes out of it, and where its results lie.

A check is one claim of a paper as a program. Its work is cut into *cells*; each finished cell is one JSON file
``<out>/<check id>/<cell>.json`` with seed, versions and timing, so that a run can be interrupted and continued.
The verdict is computed from the figures in those files by a rule stated in words, never by hand.

To add a check: a module in ``paper_checks/alpha_lora`` or ``paper_checks/glora`` with one :class:`Check` subclass
and ``CHECK = ThatClass()``. Discovery finds it; ``list``, ``run``, ``report`` and the README table follow.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import platform
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from rmt.storage import read_json, write_json

#: The committed results of full runs.
COMMITTED = Path(__file__).parent / "results"

Figures = dict[str, Any]


class Verdict(StrEnum):
    """What the figures say about the claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    CORRECTED = "corrected"  #: the paper's formula is wrong and ours holds
    BY_CONSTRUCTION = "shown by construction"
    UNDECIDED = "undecided"  #: the interval holds both the claim and its negation
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Row:
    """One figure of the paper beside ours. ``error`` is one standard error of ours (None: exact)."""

    name: str
    paper: float | str | None
    ours: float | str
    error: float | None = None


@dataclass(frozen=True)
class Outcome:
    """Verdict of a check, the sentence that explains it with figures, and the rows to show."""

    verdict: Verdict
    summary: str
    rows: tuple[Row, ...] = ()


class NotAvailable(ValueError):
    """Something the check needs (data, a GPU, a package) is not there; the message says how to get it."""


@dataclass(frozen=True)
class Context:
    """Where a run finds its data and puts its results, and how thorough it is."""

    out: Path
    data: Path | None = None  #: a folder that holds ``data/`` and ``models/``
    quick: bool = False  #: fewer draws and splits: for the demo and the tests, never committed
    seed: int = 0
    jobs: int = 1

    def folder(self, *parts: str) -> Path:
        """A folder below the data folder.

        Raises:
            NotAvailable: no data folder was given, or it lacks that folder.
        """
        if self.data is None:
            raise NotAvailable("needs a data folder; set ADAPT_SHARED or give --data DIR")
        path = self.data.joinpath(*parts)
        if not path.is_dir():
            raise NotAvailable(f"needs the folder {'/'.join(parts)} below the data folder {str(self.data)!r}")
        return path


class Check(ABC):
    """One claim as a program. Subclasses set the class attributes and the three methods."""

    id: str  #: group and name, for instance ``alpha_lora.figure1``
    claim: str  #: the claim in one sentence
    where: str  #: where it stands in the paper
    rule: str  #: how the verdict follows from the figures, in words
    needs: Sequence[str] = ()  #: for the reader: data folders, GPU, hours

    @abstractmethod
    def cells(self, context: Context) -> Sequence[str]:
        """Names of the cells, in the order of their value. They are file names: letters, digits, ``._-``."""

    @abstractmethod
    def compute(self, context: Context, cell: str) -> Figures:
        """The figures of one cell (numbers, strings, lists, dicts, arrays).

        Raises:
            NotAvailable: what the cell needs is not there.
        """

    @abstractmethod
    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        """The verdict from the figures of the finished cells, by ``rule``."""

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """A matplotlib Figure made from the stored figures, or None."""
        return None

    def finished(self, folder: Path) -> dict[str, Figures]:
        """Figures of the finished cells below ``folder``, in file order."""
        return {path.stem: read_json(path)["figures"] for path in sorted((folder / self.id).glob("*.json"))}

    def run(self, context: Context, *, fresh: bool = False, progress: bool = False) -> Outcome:
        """Compute the missing cells (all with ``fresh``), save each as it ends, and judge.

        A cell stored by a run of another kind (quick or full, another seed) is computed again.
        """
        names = list(self.cells(context))
        try:
            for name in _bar(names, self.id, progress):
                path = context.out / self.id / f"{name}.json"
                if not fresh and path.is_file() and _same_kind(read_json(path), context):
                    continue
                start = time.perf_counter()
                figures = self.compute(context, name)
                record = {
                    "check": self.id,
                    "cell": name,
                    "quick": context.quick,
                    "seed": context.seed,
                    "seconds": round(time.perf_counter() - start, 2),
                    "versions": versions(),
                    "figures": figures,
                }
                write_json(path, record)
        except NotAvailable as reason:
            stored = {name: figures for name, figures in self.finished(context.out).items() if name in names}
            if not stored:
                return Outcome(Verdict.NOT_RUN, str(reason))
            return self.judge(stored)
        return self.judge({name: read_json(context.out / self.id / f"{name}.json")["figures"] for name in names})

    def recall(self, folder: Path = COMMITTED) -> Outcome:
        """The outcome from stored cells alone; nothing is computed."""
        stored = self.finished(folder)
        if not stored:
            needs = f" (needs {', '.join(self.needs)})" if self.needs else ""
            return Outcome(Verdict.NOT_RUN, f"no stored results{needs}")
        return self.judge(stored)


def versions() -> dict[str, str]:
    """Python, platform, and the version of every library that has been imported."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for module in ("numpy", "scipy", "torch", "transformers", "peft", "sklearn"):
        if module in sys.modules:
            found[module] = str(getattr(sys.modules[module], "__version__", "?"))
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["rescale-and-adapt"] = metadata.version("rescale-and-adapt")
    return found


def all_checks() -> dict[str, Check]:
    """Every check by id, found in the modules of ``alpha_lora`` and ``glora``."""
    found: dict[str, Check] = {}
    for group in ("alpha_lora", "glora"):
        package = importlib.import_module(f"paper_checks.{group}")
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
            module = importlib.import_module(f"paper_checks.{group}.{info.name}")
            check = getattr(module, "CHECK", None)
            if isinstance(check, Check):
                if check.id in found:
                    raise ValueError(f"two checks have the id {check.id!r}; rename one")
                found[check.id] = check
    return found


def select(ids: Iterable[str]) -> list[Check]:
    """The checks with these ids or prefixes (``alpha_lora`` takes the group); all of them for no ids."""
    known, ids = all_checks(), list(ids)
    unknown = [one for one in ids if not any(key == one or key.startswith(f"{one}.") for key in known)]
    if unknown:
        raise ValueError(f"no check is called {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    return [c for key, c in known.items() if not ids or any(key == one or key.startswith(f"{one}.") for one in ids)]


def _same_kind(record: Mapping[str, Any], context: Context) -> bool:
    return record.get("quick") == context.quick and record.get("seed") == context.seed


def _bar(names: list[str], title: str, progress: bool) -> Iterable[str]:
    from tqdm import tqdm

    return tqdm(names, desc=title, unit="cell", disable=not progress, leave=False)
