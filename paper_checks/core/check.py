"""What a check is and where its results lie.

A check is one claim of a paper as a program. Its work is cut into *cells*; each finished cell is one
JSON file ``<out>/<check id>/<cell>.json`` with seed, versions and timing, so that a run can be interrupted
and continued. The verdict is computed from the figures in those files by a rule stated in words, never by
hand.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import re
import subprocess
import sys
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from paper_checks.core.outcome import Figures, NotAvailable, Outcome, Verdict
from rmt._files import Lock, read_json, sealed, unsealed, write_json
from rmt._parallel import run

#: A difference in points with its interval, as summaries have it.
_INTERVAL = re.compile(r"([+-]\d+\.\d+)(?: points)?(?:, 95 % interval)? (\[[^\]]+\])(?: points)?")
#: The committed results of full runs.
COMMITTED = Path(__file__).parents[1] / "results"

#: What transformers is told where it reads a folder: to run no code that lies in it, and to ask no one else.
LOCAL = {"trust_remote_code": False, "local_files_only": True}


@dataclass(frozen=True)
class Context:
    """Where a run finds its data and puts its results, and how thorough it is."""

    out: Path
    data: Path | None = None  #: a folder that holds ``data/`` and ``models/``
    quick: bool = False  #: fewer draws and splits: for the demo and the tests, never committed
    seed: int = 0
    jobs: int = 1  #: cells computed at once; the figures do not depend on it

    def seed_for(self, *names: str) -> int:
        """A seed of its own for each check and cell, the same on every machine and for any number of jobs."""
        words = [self.seed, *(zlib.crc32(name.encode()) for name in names)]
        return int(np.random.SeedSequence(words).generate_state(1)[0])  # 32 bits: exact as a float too

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
    short: str = ""  #: the claim in at most 15 words
    shown: tuple[str, str] | None = None  #: the row to show first: how its name begins, and what its figure is
    scale: str = ""  #: what it was tested on, and the paper's size beside it where that is another
    words: Mapping[Verdict, Verdict] = MappingProxyType({})  #: verdicts of ``judge`` that are told in other words
    needs: Sequence[str] = ()  #: for the reader: data folders, GPU, hours

    @property
    def home(self) -> str:
        """Folder of its cells below the results; checks that share cells have the same one."""
        return self.id

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

    def number(self, outcome: Outcome) -> str:
        """One figure with its 95 % interval and what it is, as text; empty where there is none.

        That of the row `shown`, or the first difference with an interval in the summary.
        """
        if self.shown is None:
            found = _INTERVAL.search(outcome.summary)
            return f"{found[1]} {found[2]} points".replace("-", "−") if found else ""
        start, unit = self.shown
        for row in outcome.rows:
            if row.name.startswith(start):
                return f"{row.interval} {unit}".strip()
        return ""

    def records(self, folder: Path = COMMITTED) -> dict[str, dict[str, Any]]:
        """Stored records (figures, seed, versions, seconds) of the finished cells, in the order of the cells."""
        order = {cell: place for place, cell in enumerate(self.cells(Context(out=folder)))}
        paths = sorted((folder / self.home).glob("*.json"), key=lambda path: (order.get(path.stem, len(order)), path))
        return {path.stem: read_cell(path) for path in paths}

    def finished(self, folder: Path = COMMITTED) -> dict[str, Figures]:
        """Figures of the finished cells below ``folder``, in the order of the cells."""
        return {cell: record["figures"] for cell, record in self.records(folder).items()}

    def run(self, context: Context, *, fresh: bool = False, progress: bool = False) -> Outcome:
        """Compute the missing cells (all with ``fresh``), save each as it ends, and judge.

        A cell stored by a run of another kind (quick or full, another seed) is computed again. Cells that
        lack what they need are left out; ``Outcome.missing`` says why.
        """
        names = list(self.cells(context))
        missing: dict[str, None] = {}  # an ordered set: many cells lack the same thing
        with _owned(context.out / self.home) as lock:
            todo = [name for name in names if fresh or not self._stored(context, name)]
            save = functools.partial(self._save_cell, replace(context, jobs=1))
            title = self.id if progress else None
            for reason in run(save, todo, n_jobs=context.jobs, ordered=False, progress=title):
                if reason is not None:
                    missing[reason] = None
            lock.require()
            stored = {
                name: read_cell(self._path(context, name))["figures"] for name in names if self._stored(context, name)
            }
        if not stored:
            return Outcome(Verdict.NOT_RUN, "; ".join(missing), missing=tuple(missing))
        return replace(self.outcome(stored), missing=tuple(missing))

    def _path(self, context: Context, cell: str) -> Path:
        return context.out / self.home / f"{cell}.json"

    def _stored(self, context: Context, cell: str) -> bool:
        try:
            record = read_cell(self._path(context, cell))
        except ValueError:  # not there, or damaged from outside: computed again
            return False
        return record.get("quick") == context.quick and record.get("seed") == context.seed

    def _save_cell(self, context: Context, cell: str) -> str | None:
        """Compute one cell and store it; the reason if what it needs is not there."""
        start = time.perf_counter()
        try:
            # Cells run side by side, and sums do not depend on the number of cores.
            with threadpool_limits(1, user_api="blas"):
                figures = self.compute(context, cell)
        except NotAvailable as reason:
            return str(reason)
        except ModuleNotFoundError as error:
            return _package_missing(error)
        record = {
            "check": self.id,
            "cell": cell,
            "quick": context.quick,
            "seed": context.seed,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - start, 2),
            "commit": commit(),
            "versions": versions(),
            "figures": figures,
        }
        write_json(self._path(context, cell), sealed(record))
        return None

    def need(self, context: Context, cell: str) -> Figures:
        """The figures of a cell that another one rests on, computed first if they are not stored.

        Raises:
            NotAvailable: what it needs is not there.
        """
        if not self._stored(context, cell):
            reason = self._save_cell(context, cell)
            if reason is not None:
                raise NotAvailable(reason)
        return read_cell(self._path(context, cell))["figures"]

    def recall(self, folder: Path = COMMITTED) -> Outcome:
        """The outcome from stored cells alone; nothing is computed."""
        stored = self.finished(folder)
        if not stored:
            needs = f" (needs {', '.join(self.needs)})" if self.needs else ""
            return Outcome(Verdict.NOT_RUN, f"no stored results{needs}")
        return self.outcome(stored)

    def outcome(self, cells: Mapping[str, Figures]) -> Outcome:
        """The outcome of ``judge``, its verdict in the words for this kind of claim."""
        found = self.judge(cells)
        return replace(found, verdict=self.words.get(found.verdict, found.verdict))


def versions() -> dict[str, str]:
    """Python, platform, and the version of every library that has been imported."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for module in ("numpy", "scipy", "torch", "transformers", "peft", "sklearn"):
        if module in sys.modules:
            found[module] = str(getattr(sys.modules[module], "__version__", "?"))
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["rescale-and-adapt"] = metadata.version("rescale-and-adapt")
    return found


@functools.cache
def commit() -> str | None:
    """The commit of the code that runs, with ``+`` where tracked Python files differ from it; None outside git."""
    home = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(home), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _package_missing(error: ModuleNotFoundError) -> str:
    """What to install for a package that is not there; the error itself if it is a module of this project."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "rmt", "glora", "paper_checks"):
        raise error
    return f"needs the package {package}; pip install 'rescale-and-adapt[demo]' brings all that the checks use"


def read_cell(path: Path) -> dict[str, Any]:
    """The record of a stored cell.

    Raises:
        ValueError: it is not there or damaged; the message names it and the remedy.
    """
    record = unsealed(read_json(path), path)
    if not isinstance(record.get("figures"), dict):
        raise ValueError(f"file {str(path)!r} is damaged: it holds no figures; delete it to have it computed again")
    return record


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[Lock]:
    """The folder of a check's cells, locked; it goes if nothing was put into it."""
    with Lock(folder) as lock:
        yield lock
    with contextlib.suppress(OSError):
        folder.rmdir()
