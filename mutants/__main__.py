"""``python -m mutants``: put drawn faults into the code, one at a time, and count what notices them.

Two counts. A mutant *flips a verdict* if a quick cell of a check that rests on the module, or a study judged by the
mutated rule, gets another verdict. It *fails a test* if a test of its kind fails, or the one that compares the digests
of rules, which is counted apart. What runs out of its time counts as neither and is listed. Each finished mutant is a
file, so that an interrupted run goes on. Exit code 1 if too few are noticed, 3 if not all were asked.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mutants.plan import ROOT, SEED, TARGETS, draw, is_equivalent
from rmt._files import read_json, write_json

#: Shares that must be noticed: flips of formulas and verdict code, failed tests of all.
FLIPS, FAILS = 0.8, 0.95
JUDGED = ("formulas", "statistics", "verdicts")
RECORD = ROOT / "mutants" / "results.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M", help="stop then; run again to go on")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants", metavar="DIR", help="finished mutants")
    parser.add_argument("--kind", choices=TARGETS, action="append", metavar="KIND", help=f"of: {', '.join(TARGETS)}")
    parser.add_argument("--again", action="store_true", help="ask once more what nothing noticed, after mending")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.relative_to(ROOT)} when all are done")
    parser.add_argument("--list", action="store_true", help="name the mutants and run none")
    arguments = parser.parse_args(argv)
    drawn = [mutant for mutant in draw() if mutant.kind in (arguments.kind or TARGETS)]
    if arguments.list:
        print("\n".join(f"{one.kind:10s} {one.path}:{one.line}: {one.what}" for one in drawn))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60.0 * arguments.minutes
    for kind in arguments.kind or TARGETS:
        left = (end - time.monotonic()) / 60.0
        if left > 0:
            _work(kind, arguments.out.resolve(), left, *(["again"] if arguments.again else []))
    done = [read_json(path) for one in drawn if (path := arguments.out / f"{one.name}.json").exists()]
    code = report(done, len(drawn))
    if arguments.record and code != 3:
        write_json(RECORD, record(done))
    return code


def _work(kind: str, out: Path, minutes: float, *more: str) -> None:
    """One worker process; what it prints goes to a file beside the mutants, its answers to stdout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("ADAPT_SHARED", None)  # tests on real data are too long for a mutant
    command = [sys.executable, "-m", "mutants.worker", kind, str(out), str(minutes), *more]
    with (out / f"worker-{kind}.log").open("a", encoding="utf-8") as log:
        subprocess.run(command, cwd=ROOT, env=environment, check=False, stdout=log, stderr=subprocess.STDOUT)


def report(results: Sequence[dict[str, Any]], drawn: int) -> int:
    """Print the two counts by kind and the survivors; returns the exit code."""
    print(f"{len(results)} of {drawn} mutants are done (seed {SEED})")
    drawn -= len(results)
    results = [one for one in results if not is_equivalent(one["path"], one["line"], one["what"])]
    drawn += len(results)
    for kind in TARGETS:
        some = [one for one in results if one["kind"] == kind]
        if some:
            flips, fails, digests = counts(some)
            print(
                f"{kind:10s} {len(some):3d} mutants: {flips} flip a verdict, {fails} fail a test "
                f"({digests} of them the digest of a rule alone)"
            )
    for one in results:
        for key, noticed in (("flips", flipped(one)), ("fails", failed(one))):
            if not noticed and (key == "fails" or one["kind"] in JUDGED):
                said = one[key] or "survives"
                print(f"{key}: {one['path']}:{one['line']}: {one['what']} ({said})")
    if len(results) < drawn:
        return 3
    judged = [one for one in results if one["kind"] in JUDGED]
    enough = counts(judged)[0] >= FLIPS * len(judged) and counts(results)[1] >= FAILS * len(results)
    return 0 if enough else 1


def noticed(said: str) -> bool:
    """Whether something noticed; what ran out of its time is not known."""
    return said not in ("", "slow", "died", "unknown")


def flipped(one: dict[str, Any]) -> bool:
    """Whether the mutant flips a verdict; a check that crashes gives none."""
    return noticed(one["flips"])


def failed(one: dict[str, Any]) -> bool:
    """Whether the mutant fails a test, that of digests included."""
    return noticed(one["fails"]) or bool(one.get("digest"))


def counts(results: Sequence[dict[str, Any]]) -> tuple[int, int, int]:
    """Mutants that flip a verdict, that fail a test, and of these the ones that only a digest notices."""
    digests = [one for one in results if one.get("digest") and not noticed(one["fails"])]
    return sum(map(flipped, results)), sum(map(failed, results)), len(digests)


def record(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is committed: counts, versions, and a line each mutant."""
    from paper_checks.core import versions
    from paper_checks.core.check import commit

    judged = [one for one in results if not is_equivalent(one["path"], one["line"], one["what"])]
    kinds = {kind: [one for one in judged if one["kind"] == kind] for kind in TARGETS}
    names = ("flip a verdict", "fail a test", "noticed by a digest alone")
    return {
        "seed": SEED,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "equivalent": len(results) - len(judged),
        "counts": {
            kind: {"mutants": len(some), **dict(zip(names, counts(some), strict=True))} for kind, some in kinds.items()
        },
        "mutants": [
            [one.get(key, False) for key in ("path", "line", "what", "flips", "fails", "digest")] for one in results
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
