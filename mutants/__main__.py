"""``python -m mutants``: put drawn faults into a copy of the code and count what notices them.

Two counts: a mutant *flips a verdict* if an outcome of the checks on record changes its verdict or a quick run of the
checks that rest on the module does; it *fails a test* if the tests of its module fail. What runs longer than `LIMIT`
counts as neither and is listed. Each finished mutant is a file, so that an interrupted run goes on. Exit code 1 if too
few are noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutants.plan import NUMBER, SEED, TARGETS, Mutant, draw, mutated
from rmt._files import read_json, write_json

ROOT = Path(__file__).parents[1]
COPIED = ("rmt", "glora", "paper_checks", "tests", "configs", "pyproject.toml", "docs", "README.md")
LIMIT = 300  #: seconds for one question to one mutant
#: Shares that must be noticed: flips of formulas and verdict code, failed tests of all.
FLIPS, FAILS = 0.8, 0.95

_VERDICTS = """
import json, sys
from pathlib import Path
from paper_checks.core import Context, all_checks
checks, quick = all_checks(), json.loads(sys.argv[1])
found = {}
for name, check in checks.items():
    if not quick:
        outcome = check.recall()
        found[name] = [str(outcome.verdict), [[r.name, str(r.ours)] for r in outcome.rows]]
    elif name in quick:
        found[name] = [str(check.run(Context(out=Path(sys.argv[2]), quick=True)).verdict), []]
print(json.dumps(found))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=NUMBER, metavar="N", help=f"mutants drawn (default {NUMBER})")
    parser.add_argument("--seed", type=int, default=SEED, metavar="S", help=f"of the draw (default {SEED})")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M", help="stop then; run again to go on")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants", metavar="DIR", help="finished mutants")
    parser.add_argument("--kind", choices=TARGETS, metavar="KIND", help=f"only these: {', '.join(TARGETS)}")
    parser.add_argument("--list", action="store_true", help="name the mutants and run none")
    arguments = parser.parse_args(argv)
    drawn, start = draw(ROOT, arguments.number, arguments.seed), time.monotonic()
    drawn = [mutant for mutant in drawn if arguments.kind in (None, mutant.kind)]
    if arguments.list:
        print("\n".join(f"{one.kind:10s} {one.path}:{one.line}: {one.what}" for one in drawn))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "code"
        copy.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, copy / name)
        whole: dict[str, Any] = {}
        for mutant in drawn:
            path = arguments.out / f"{mutant.name}.json"
            if path.exists():
                continue
            if time.monotonic() - start > 60 * arguments.minutes:
                break
            if mutant.kind not in whole:
                whole[mutant.kind] = _verdicts(copy, mutant.kind)
                if not isinstance(whole[mutant.kind], dict):
                    print(f"{mutant.kind}: the sound code crashes or takes longer than {LIMIT} s; left out", flush=True)
            if not isinstance(whole[mutant.kind], dict):
                continue
            result = _ask(copy, mutant, whole[mutant.kind])
            write_json(path, result)
            print(f"{mutant.name}: flips {result['flips']}, fails {result['fails']} ({mutant.what})", flush=True)
    return _report([read_json(p) for m in drawn if (p := arguments.out / f"{m.name}.json").exists()], len(drawn))


def _ask(copy: Path, mutant: Mutant, whole: Any) -> dict[str, Any]:
    """Put the fault in, ask verdicts and tests, take it out."""
    target = copy / mutant.path
    sound = target.read_text(encoding="utf-8")
    begun = time.monotonic()
    try:
        target.write_text(mutated(ROOT, mutant), encoding="utf-8")
        found = _verdicts(copy, mutant.kind)
        slow = found == "slow"
        flips = found is None or (
            not slow and {k: v[0] for k, v in found.items()} != {k: v[0] for k, v in whole.items()}
        )
        fails = _tests_fail(copy, TARGETS[mutant.kind][1])
    finally:
        target.write_text(sound, encoding="utf-8")
    return {
        "kind": mutant.kind,
        "path": mutant.path,
        "line": mutant.line,
        "what": mutant.what,
        "flips": flips,
        "figures": found != whole,
        "fails": fails,
        "seconds": round(time.monotonic() - begun, 1),
    }


def _verdicts(copy: Path, kind: str) -> Any:
    """Verdicts by check; None if the code crashes, "slow" if it runs too long."""
    with tempfile.TemporaryDirectory() as out:
        try:
            done = _run([sys.executable, "-c", _VERDICTS, json.dumps(TARGETS[kind][2]), out], copy)
        except subprocess.TimeoutExpired:
            return "slow"
    return json.loads(done.stdout) if done.returncode == 0 else None


def _tests_fail(copy: Path, tests: Sequence[str]) -> bool | None:
    """Whether a test fails; None if they run too long."""
    try:
        return (
            _run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests], copy).returncode != 0
        )
    except subprocess.TimeoutExpired:
        return None


def _run(command: list[str], copy: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=copy, env=_environment(copy), capture_output=True, text=True, timeout=LIMIT, check=False
    )


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def _report(results: list[dict[str, Any]], drawn: int) -> int:
    """The two counts by kind, and the survivors."""
    print(f"\n{len(results)} of {drawn} mutants are done")
    for kind in TARGETS:
        some = [one for one in results if one["kind"] == kind]
        if some:
            flips, fails = (sum(bool(one[key]) for one in some) for key in ("flips", "fails"))
            print(f"{kind:10s} {len(some):3d} mutants: {flips} flip a verdict, {fails} fail a test")
    for one in results:
        if not one["fails"]:
            noticed = "a verdict flips" if one["flips"] else "figures change" if one["figures"] else "no verdict flips"
            word = "slow" if one["fails"] is None else "survivor"
            print(f"{word}: {one['path']}:{one['line']}: {one['what']} ({noticed})")
    judged = [one for one in results if one["kind"] in ("formulas", "verdicts")]
    if not results or not judged:
        return 0
    enough = sum(one["flips"] for one in judged) >= FLIPS * len(judged)
    return 0 if enough and sum(bool(one["fails"]) for one in results) >= FAILS * len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
