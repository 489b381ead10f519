"""``paper-checks``: list, run and report the checks; ``demo`` for ``make demo``.

Results go to stdout, progress and messages to stderr. Exit codes are those of `rmt.cli.exits`, where 1 means that
`verify` found a number that does not follow from the cells; and 3 where something could not run for lack of data, a
package or hardware. A verdict, whatever it says, is a result and not a failure. A check that fails does not stop the
others; the code is that of the first that failed. Finished cells are kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rmt
from paper_checks.core import COMMITTED, RENAMED, Check, Context, Outcome, Verdict, rules, select
from rmt._files import to_json
from rmt.cli.exits import CODES, DONE, RESULT, Parser, end

LACKING = 3

EXAMPLES = (
    """examples:
  paper-checks list                                     every claim, and the verdict of the committed results
  paper-checks run alpha_lora.figure1 --quick           one check, small samples
  paper-checks run alpha_lora --data /path/to/shared    all checks of one paper, full samples, real data
  paper-checks run --out paper_checks/results           renew the committed results (finished cells are kept)
  paper-checks verify                                   figures of the page, derived from the cells once more
  paper-checks report                                   docs/claims.html and the README table from them

"""
    + CODES.format(result="verify missed a number; a verdict is no failure")
    + """;
3 something could not run for lack of data, a package or hardware
"""
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(
        prog="paper-checks",
        description="The papers' claims as programs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"paper-checks {rmt.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="list|run|report|verify|freeze|demo")

    one = commands.add_parser("list", help="every check: id, claim, place, needs, verdict of the stored results")
    one.add_argument("--results", type=Path, default=COMMITTED, metavar="DIR", help="stored results")
    one.add_argument("--json", action="store_true", help="for machines")

    one = commands.add_parser("run", help="compute cells that are missing, and judge")
    one.add_argument("ids", nargs="*", metavar="ID", help="ids or groups, such as alpha_lora (default: all)")
    kind = one.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="small samples, same rules")
    kind.add_argument("--full", action="store_true", help="the samples of the committed results (default)")
    _add_data(one)
    one.add_argument("--out", type=Path, metavar="DIR", help="results (default: build/paper_checks/quick or …/full)")
    one.add_argument("--seed", type=int, default=0, metavar="S", help="seed of everything random (default 0)")
    _add_jobs(one, 1)
    one.add_argument("--fresh", action="store_true", help="compute finished cells again")
    one.add_argument("--json", action="store_true", help="for machines")

    one = commands.add_parser("report", help="claims page and README table from stored results; computes nothing")
    one.add_argument("--results", type=Path, default=COMMITTED, metavar="DIR", help="stored results")
    one.add_argument("--out", type=Path, default=Path("docs/claims.html"), metavar="FILE", help="the page")
    one.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE", help="file with the markers")
    one.add_argument("--no-readme", action="store_true", help="write the page only")

    one = commands.add_parser("verify", help="derive the figures of the page from the cells again, by other code")
    one.add_argument("--results", type=Path, default=COMMITTED, metavar="DIR", help="stored results")
    one.add_argument("--page", type=Path, default=Path("docs/claims.html"), metavar="FILE", help="the page")
    one.add_argument("--json", action="store_true", help="for machines")

    one = commands.add_parser("freeze", help="put changed rules into the history beside the committed results")
    one.add_argument("--why", required=True, metavar="TEXT", help="why they changed: readers see it beside the verdict")
    one.add_argument("--same", action="store_true", help="the rules decide as before; only their digests changed")
    one.add_argument("--note", nargs="+", default=[], metavar="ID", help="say it of these rules, which did not change")
    one.add_argument("--results", type=Path, default=COMMITTED, metavar="DIR", help="stored results")

    one = commands.add_parser("demo", help="predict, simulate, run all checks quickly, write one page")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for index.html and its results")
    _add_data(one)
    _add_jobs(one, 2)
    return top


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ["ADAPT_SHARED"]) if os.environ.get("ADAPT_SHARED") else None,
        metavar="DIR",
        help="folder that holds data/ and models/ (default: the environment variable ADAPT_SHARED)",
    )


def _add_jobs(command: argparse.ArgumentParser, default: int) -> None:
    command.add_argument(
        "--jobs", type=int, default=default, metavar="N", help=f"cells computed at once (default {default})"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, or raises what `rmt.cli.exits.run` turns into one."""
    arguments = parser().parse_args(argv)
    return _COMMANDS[arguments.command](arguments)


def _list(arguments: argparse.Namespace) -> int:
    records = []
    for check in select([]):
        outcome = check.recall(arguments.results)
        records.append(_describe(check, outcome))
    if arguments.json:
        print(to_json(records, indent=1))
        return DONE
    width = max((len(record["id"]) for record in records), default=0)
    for record in records:
        needs = f" (needs {', '.join(record['needs'])})" if record["needs"] else ""
        print(f"{record['id']:<{width}}  {record['verdict']:<21}  {record['claim']}{needs}")
    return DONE


def _run(arguments: argparse.Namespace) -> int:
    kind = "quick" if arguments.quick else "full"
    out = arguments.out or Path("build/paper_checks") / kind
    if arguments.quick and out.resolve() == COMMITTED.resolve():
        raise ValueError("--out is the folder of the committed results, which hold full runs only; drop --quick")
    context = Context(
        out=out,
        data=_data_folder(arguments.data),
        quick=arguments.quick,
        seed=_at_least("--seed", arguments.seed, 0),
        jobs=_at_least("--jobs", arguments.jobs, 1),
    )
    for old in arguments.ids:
        if old in RENAMED:
            note = f"{old} is called {RENAMED[old]} now; so must be the folder of its results, if it was run before"
            print(f"paper-checks: {note}", file=sys.stderr)
    code, records = DONE, []
    for check in select(arguments.ids):
        outcome, ended = _attempt(check, context, fresh=arguments.fresh)
        if code == DONE or (code == LACKING and ended != DONE):
            code = ended
        records.append(_describe(check, outcome))
        if not arguments.json:
            _print(check, outcome)
    if arguments.json:
        print(to_json(records, indent=1))
    return code


def _report(arguments: argparse.Namespace) -> int:
    from paper_checks.report.claims import write_report

    if not arguments.results.is_dir():
        raise ValueError(f"--results: {str(arguments.results)!r} is not a folder; run the checks first")
    readme = None if arguments.no_readme else arguments.readme
    print(write_report(select([]), arguments.results, arguments.out, readme))
    return DONE


def _verify(arguments: argparse.Namespace) -> int:
    from paper_checks.report.verify import verify

    found = verify(select([]), arguments.page, arguments.results)
    code = RESULT if any(one.left for one in found.values()) else DONE
    if arguments.json:
        print(to_json({name: asdict(one) for name, one in found.items()}, indent=1))
        return code
    for name, one in found.items():
        print(f"{name}: {one.shown - len(one.left)} of {one.shown} numbers derived")
        for line in one.left[:5]:
            print(f"    not derived: {line}")
    total = sum(one.shown for one in found.values())
    parts = {kind: sum(one.derived[kind] for one in found.values()) for kind in next(iter(found.values())).derived}
    print(
        f"{sum(parts.values())} of {total} numbers of the page derived: "
        + ", ".join(f"{n} {k}" for k, n in parts.items())
    )
    return code


def _freeze(arguments: argparse.Namespace) -> int:
    checks = {check.id: check for check in select([])}
    noted = [check.id for check in select(arguments.note)] if arguments.note else []
    changed = rules.freeze(checks, arguments.why, arguments.results, same=arguments.same, noted=noted)
    print("\n".join(changed) or "no rule differs from its last entry")
    return DONE


def _demo(arguments: argparse.Namespace) -> int:
    from paper_checks.demo.assemble import write_demo

    context = Context(
        out=arguments.out,
        data=_data_folder(arguments.data),
        quick=True,
        jobs=_at_least("--jobs", arguments.jobs, 1),
    )
    code = DONE

    def run(check: Check, inner: Context) -> Outcome | None:
        nonlocal code
        outcome, ended = _attempt(check, inner)
        if code == DONE and ended != LACKING:  # the page says what is lacking
            code = ended
        _print(check, outcome)
        return outcome

    path = write_demo(select([]), context, run)
    print(f"\none page of results: {path}")
    return code


_COMMANDS = {"list": _list, "run": _run, "report": _report, "verify": _verify, "freeze": _freeze, "demo": _demo}


def _attempt(check: Check, context: Context, *, fresh: bool = False) -> tuple[Outcome | None, int]:
    """The outcome, or None after a failure, which is told on stderr; and the exit code that it asks for."""
    try:
        outcome = check.run(context, fresh=fresh, progress=True)
    except Exception as error:
        return None, end(f"paper-checks: {check.id}", error)
    return outcome, LACKING if outcome.missing else DONE


def _print(check: Check, outcome: Outcome | None) -> None:
    if outcome is None:
        print(f"{check.id}: failed", flush=True)
        return
    print(f"{check.id}: {outcome.verdict}\n    {outcome.summary}", flush=True)
    for reason in outcome.missing if outcome.verdict != Verdict.NOT_RUN else ():
        print(f"    not all of it was run: {reason}", flush=True)


def _describe(check: Check, outcome: Outcome | None) -> dict[str, Any]:
    record = {
        "id": check.id,
        "claim": check.claim,
        "where": check.where,
        "rule": check.rule,
        "needs": list(check.needs),
    }
    return {**record, **asdict(outcome)} if outcome is not None else {**record, "verdict": "failed"}


def _data_folder(path: Path | None) -> Path | None:
    if path is not None and not path.is_dir():
        raise ValueError(f"the data folder {str(path)!r} does not exist; correct --data or ADAPT_SHARED, or unset it")
    return path


def _at_least(name: str, value: int, low: int) -> int:
    if value < low:
        raise ValueError(f"{name} must be ≥ {low}, got {value}")
    return value
