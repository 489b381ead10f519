"""The ``glora search`` command."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``search`` to the subcommands of ``glora``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "search",
        help="train a supernet, search it within a budget of parameters, retrain what was found",
        description="Train a supernet, search it on validation within a budget, retrain the found subnet on train + "
        "validation, and evaluate inherited and retrained weights on test once.",
        epilog="example: glora search configs/glora_vtab_cpu.toml --set task.folder=DATA --set task.model=MODEL",
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="run file with method.name = 'supernet'")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="change a value of the file")
    parser.add_argument("--resume", action="store_true", help="continue the run in its folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from glora.search_run import SearchRun
    from glora.settings import read

    try:
        config = read(arguments.config, arguments.set)
        search_run = SearchRun(config, resume=arguments.resume)
        result = search_run.all(progress=sys.stderr.isatty())
    except ValueError as error:
        print(f"glora search: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        found, test = result["search"], {name: result[name]["test"] for name in ("inherited", "retrained")}
        print(f"found     {found['parameters']:,} parameters, {found['validation_accuracy']:.1%} on validation")
        print(f"          {found['candidates']} candidates, {found['stopped']} stopped early, {found['cached']} cached")
        for name, metrics in test.items():
            print(f"{name:<9} {', '.join(f'{key} {value:.4g}' for key, value in metrics.items())} on test")
        print(f"folder    {search_run.folder}")
    return 0
