"""Run the benchmarks: every module here with ``measure() -> list of rows``, or those named on the command line."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Print a table (or JSON) of figure, bar and verdict; exit code 1 when a bar is missed."""
    names = [info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)]) if info.name != "__main__"]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="example: python -m benchmarks rmt_theory --json",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(names)} (default: all)")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.names) - set(names))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; known: {', '.join(names)}")
    rows = []
    for name in arguments.names or names:
        print(f"measuring {name} …", file=sys.stderr)
        for row in importlib.import_module(f"benchmarks.{name}").measure():
            rows.append({"benchmark": name, **row})
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print(f"{'figure':<74}{'measured':>12}  {'bar':<12}")
        for row in rows:
            mark = "" if row["met"] is None else ("met" if row["met"] else "MISSED")
            print(f"{row['figure']:<74}{row['value']:>12.4g}  {row['bar'] or 'reported':<12}{mark}")
    return 1 if any(row["met"] is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
