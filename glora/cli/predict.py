"""The ``glora predict`` command: labels for new texts and pictures, printed as they come."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from typing import Any

HELP = "label new texts or pictures with a tuned adapter"
#: Exit code where some inputs could not be read; the others were labelled.
UNREADABLE = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the subcommand its arguments."""
    parser.add_argument("folder", metavar="RUN|ADAPTER", help="folder of a run or of its adapter")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="pictures or folders of them; tables with the task's columns, or .txt with a text a line",
    )
    parser.add_argument("--model", help="where the base model lies now")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="inputs at once (default 32)")
    parser.add_argument("--csv", action="store_true", help="print CSV: source, label, a column a class, error")


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Print a line an input; returns the counts and what is left to print."""
    from glora._files import to_json
    from glora.tuning.predict import Predictor

    if arguments.csv and arguments.json:
        raise ValueError("give --csv or --json, not both")
    predictor = Predictor(arguments.folder, arguments.model)
    classes = predictor.task.class_names
    if arguments.csv:
        _print_csv(["source", "label", *classes, "error"])
    labelled = unreadable = 0
    for answer in predictor(arguments.files, batch_size=arguments.batch_size):
        unreadable += answer.error is not None
        labelled += answer.error is None
        if arguments.json:
            fields = {"source": answer.source, "label": answer.label, "probabilities": answer.probabilities}
            print(to_json(fields | ({"error": answer.error} if answer.error else {})), flush=True)
        elif arguments.csv:
            shares = [f"{answer.probabilities[name]:.6g}" if answer.probabilities else "" for name in classes]
            _print_csv([answer.source, "" if answer.label is None else answer.label, *shares, answer.error or ""])
        elif answer.error is not None:
            print(f"{answer.source}\tunreadable: {answer.error}")
        else:
            share = f"\t{answer.probabilities[str(answer.label)]:.3f}" if answer.probabilities else ""
            label = f"{answer.label:.6g}" if isinstance(answer.label, float) else answer.label
            print(f"{answer.source}\t{label}{share}", flush=True)
    print(f"{labelled} labelled, {unreadable} unreadable", file=sys.stderr)
    code = UNREADABLE if unreadable else 0
    return {"labelled": labelled, "unreadable": unreadable, "exit_code": code, "printed": True}, ""


def _print_csv(cells: list[Any]) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    print(line.getvalue(), end="", flush=True)
