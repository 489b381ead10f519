"""The ``glora search`` command, as `glora.cli` adds it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = "train a supernet, search it within a budget of parameters, retrain what was found"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the subcommand its arguments."""
    parser.add_argument("config", metavar="CONFIG.toml", help="run file with method.name = 'supernet'")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the file; repeat for several"
    )
    parser.add_argument("--resume", action="store_true", help="continue the search in the folder where it stopped")


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Do the search; returns the figures and the text to print."""
    from glora.runs.config import read
    from glora.searching import SearchRun

    search_run = SearchRun(read(arguments.config, arguments.set), resume=arguments.resume)
    result = search_run.all(progress=sys.stderr.isatty())
    found = result["search"]
    accuracy = found.get("validation_accuracy")
    reached = f"loss {found['validation_loss']:.4f}" if accuracy is None else f"{accuracy:.1f} %"
    lines = [
        f"found:     {found['parameters']:,} parameters, {reached} on validation",
        f"           {found['candidates']} candidates, {found['stopped']} stopped early, {found['cached']} cached",
    ]
    for name in ("inherited", "retrained"):
        if result[name] is not None:
            figures = ", ".join(f"{key} {value:.4g}" for key, value in result[name].items())
            lines.append(f"{name + ':':<10} {figures} on test")
    lines.append(f"run:       {search_run.folder} (found.json is a configuration for glora.attach)")
    return {"run": str(search_run.folder), **result}, "\n".join(lines)
