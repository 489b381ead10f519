"""``python -m mutants.worker KIND OUT MINUTES [again]``: ask the mutants of one kind.

One process imports everything and collects the tests; each question is a fork of it with a limit of processor time,
so that a mutant costs neither imports nor files, and cannot outlive or harm the rest. A finished one is a file in OUT.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mutants import studies
from mutants.plan import COMMON, ROOT, TARGETS, Mutant, draw, functions
from mutants.plant import loaded, plant
from paper_checks.core import all_checks, rules
from rmt._files import read_json, write_json

ITEM = 6.0  #: seconds of processor time; tests that take longer on sound code are left out
BUDGET = 25.0  #: seconds of processor time that the tests asked of one mutant take on sound code, the nearest first
LIMIT = 100.0  #: seconds of processor time for one question to one mutant
WALL = 8.0  #: a question ends after that many times its limit on a busy machine
SLOW, DIED = "slow", "died"


class Asked:
    """A pytest plugin: in place of the tests' loop, the mutants."""

    def __init__(self, kind: str, out: Path, minutes: float, *, again: bool = False) -> None:
        """See the module; ``out`` gets a file each mutant. ``again`` asks once more what nothing noticed."""
        self.kind, self.out, self.end, self.again = kind, out, time.monotonic() + 60.0 * minutes, again
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note what failed, in set-up or call."""
        if report.failed:
            self.failed.append(report.nodeid)
        if report.skipped:
            self.skipped.append(report.nodeid)

    def pytest_runtestloop(self, session: Any) -> bool:
        """Ask every mutant that has no file yet."""
        todo = [m for m in draw() if m.kind == self.kind and not self._is_done(m)]
        if not todo or session.testsfailed:
            return True
        for path in {mutant.module for mutant in todo}:
            importlib.import_module(path)
        loaded()
        gc.collect()
        gc.disable()  # so that forks share the memory of what is loaded
        gc.freeze()
        seconds = self._seconds(session.items)
        items = [item for item in session.items if item.nodeid in seconds]
        homes = functions(self.kind) if not TARGETS[self.kind].modules else {}
        for mutant in todo:
            if time.monotonic() > self.end:
                break
            try:
                self._ask(mutant, items, seconds, homes.get(mutant.path, {}).get(mutant.function, []))
            except ValueError as error:
                print(f"{mutant.name}: {error}", file=sys.stderr, flush=True)
        return True

    def _is_done(self, mutant: Mutant) -> bool:
        known = self._known(mutant)
        return bool(known) and (not self.again or (noticed(known["flips"]) and noticed(known["fails"])))

    def _known(self, mutant: Mutant) -> dict[str, Any]:
        path = self.out / f"{mutant.name}.json"
        return read_json(path) if path.exists() else {}

    def _seconds(self, items: list[Any]) -> dict[str, float]:
        """Processor time of every test that passes on sound code within `ITEM`; measured once, kept in a file."""
        path = self.out / f"tests-{self.kind}.json"
        known = read_json(path) if path.exists() else {"collected": [], "seconds": {}}
        new = [item for item in items if item.nodeid not in known["collected"]]
        if new:
            found = forked(lambda: dict(self._time(new)), cpu=1e5, wall=3600.0)
            if not isinstance(found, dict):
                raise pytest.UsageError(f"the sound code's tests: {found}")
            known["seconds"].update(found)
            known["collected"] = sorted({*known["collected"], *(item.nodeid for item in new)})
            write_json(path, known)
        return dict(known["seconds"])

    def _time(self, items: list[Any]) -> Iterator[tuple[str, float]]:
        def late(*_: Any) -> None:
            raise TimeoutError("too long for a mutant")

        signal.signal(signal.SIGPROF, late)
        for item in items:
            begun = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, ITEM)
            self._run(item)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if item.nodeid not in self.failed and item.nodeid not in self.skipped:
                yield item.nodeid, round(time.process_time() - begun, 3)

    def _run(self, item: Any) -> None:
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)

    def _ask(self, mutant: Mutant, items: list[Any], seconds: dict[str, float], checks: list[str]) -> None:
        begun = processor_time()
        known = self._known(mutant)
        tests, flips = known.get("fails", ""), known.get("flips", "")
        if not noticed(tests):
            tests = forked(lambda: self._tests(mutant, self._order(mutant, items, seconds, checks)))
        if not noticed(flips):
            flips = forked(lambda: self._flips(mutant, checks))
        digest = known.get("digest", "") or bool(checks and forked(lambda: self._digest(mutant, checks)))
        record: dict[str, Any] = {
            "kind": mutant.kind,
            "path": mutant.path,
            "line": mutant.line,
            "what": mutant.what,
            "flips": flips if isinstance(flips, str) else "; ".join(flips),
            "fails": tests if isinstance(tests, str) else "; ".join(tests),
            "digest": digest,
            "seconds": round(processor_time() - begun, 1),
        }
        write_json(self.out / f"{mutant.name}.json", record)
        print(
            f"{mutant.name} ({mutant.what}): flips {record['flips'] or '-'}, fails {record['fails'] or '-'}", flush=True
        )

    def _order(self, mutant: Mutant, items: list[Any], seconds: dict[str, float], checks: list[str]) -> list[Any]:
        """Tests of the module first, then file by file, the quick ones first, up to `BUDGET`."""
        stems = {Path(mutant.path).stem, *(name.partition(".")[2] for name in checks)}
        files: dict[str, float] = {}
        for item in items:
            name = item.nodeid.partition("::")[0]
            files[name] = files.get(name, 0.0) + seconds[item.nodeid]

        def place(item: Any) -> tuple[bool, float, float]:
            name = item.nodeid.partition("::")[0]
            mirrors = any(stem in item.nodeid for stem in stems)
            return not mirrors, files[name], seconds[item.nodeid]

        found, spent = [], 0.0
        for item in sorted(items, key=place):
            spent += seconds[item.nodeid]
            if spent <= BUDGET:
                found.append(item)
        return found

    def _tests(self, mutant: Mutant, items: list[Any]) -> list[str]:
        """The first test that fails."""
        plant(mutant)
        self.failed.clear()
        for item in items:
            self._run(item)
            if self.failed:
                break
        return self.failed[:1]

    def _digest(self, mutant: Mutant, checks: list[str]) -> list[str]:
        """Checks whose rule the test of digests would call changed."""
        before = {name: rules.digest(all_checks()[name]) for name in checks}
        plant(mutant)
        return [name for name in checks if rules.digest(all_checks()[name]) != before[name]]

    def _flips(self, mutant: Mutant, checks: list[str]) -> list[str]:
        """The first verdict that is another one than the sound code's, and on what study."""
        warnings.simplefilter("ignore")  # they are errors to the tests alone
        if TARGETS[self.kind].modules:
            sound = dict(self._sound(mutant.path, lambda: list(studies.quick(mutant.path))))
            plant(mutant)
            for name, verdict in studies.quick(mutant.path):
                if verdict != sound[name]:
                    return [f"{name}, quick cells: {sound[name]} -> {verdict}"]
            return []
        said = {name: self._sound(name, partial(_listed, name)) for name in checks}
        plant(mutant)
        for name in checks:
            for (source, was), (_, verdict) in zip(said[name], studies.verdicts(name), strict=True):
                if verdict != was:
                    return [f"{name}, {source}: {was} -> {verdict}"]
        return []

    def _sound(self, name: str, find: Callable[[], list[tuple[str, str]]]) -> list[list[str]]:
        """What sound code says, found once and kept in a file; the caller has planted nothing yet."""
        path = self.out / f"sound-{name.replace('/', '.')}.json"
        if not path.exists():
            write_json(path, {"said": find()})
        return read_json(path)["said"]


def _listed(name: str) -> list[tuple[str, str]]:
    """All that a check says of its studies."""
    return list(studies.verdicts(name))


def processor_time() -> float:
    """Seconds of processor time of the questions so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end(*_: Any) -> None:
    """End the worker and the question in progress, which is a session of its own."""
    if RUNNING:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(RUNNING.pop(), signal.SIGKILL)
    os._exit(1)


RUNNING: list[int] = []  #: the question in progress


def noticed(said: str) -> bool:
    """Whether something noticed the mutant; what ran out of its time is not known."""
    return said not in ("", SLOW, DIED)


def forked(question: Callable[[], Any], cpu: float = LIMIT, wall: float | None = None) -> Any:
    """The answer of a forked process as JSON gives it back; `SLOW` past its limit, `DIED` if it does not answer."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu), int(cpu) + 10))
            os.write(write, json.dumps(question()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    RUNNING[:] = [child]
    os.close(write)
    text, end = b"", time.monotonic() + (WALL * cpu if wall is None else wall)
    while (left := end - time.monotonic()) > 0 and select.select([read], [], [], left)[0]:
        piece = os.read(read, 1 << 16)
        if not piece:
            break
        text += piece
    os.close(read)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    RUNNING.clear()
    try:
        return json.loads(text)
    except ValueError:
        late = time.monotonic() >= end or (
            os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        )
        return SLOW if late else DIED


def main() -> int:
    """Collect the tests and ask."""
    kind, out, minutes = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    signal.signal(signal.SIGTERM, _end)
    all_checks()
    tests = [*TARGETS[kind].tests, *(COMMON if not TARGETS[kind].modules else ())]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", "--rootdir", str(ROOT)]
    return int(
        pytest.main([*options, *tests], plugins=[Asked(kind, out, minutes, again="again" in sys.argv)]) not in (0, 5)
    )


if __name__ == "__main__":
    sys.exit(main())
