"""The ``glora init`` command: look at data and model, write a run file to begin with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "look at your data and write a run file for it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the subcommand its arguments."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a table (CSV, TSV, JSONL, Parquet), a folder of tables or of pictures, or a data set of the hub",
    )
    parser.add_argument("--model", help="hub name or folder of the pretrained model (default: a small one of the hub)")
    parser.add_argument(
        "--text", action="append", default=[], metavar="COLUMN", help="column of the text; twice for pairs"
    )
    parser.add_argument("--label", metavar="COLUMN", help="column of the label")
    parser.add_argument("--out", metavar="FILE.toml", help="the file to write (default: the data's name)")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Look, and write the file; returns what was seen and the text to print."""
    from glora._files import write_atomic
    from glora.tasks.own.look import look, toml

    stem = Path(arguments.data).stem or "run"
    out = Path(arguments.out or f"{stem}.toml")
    if out.exists() and not arguments.force:
        raise ValueError(f"--out {str(out)!r} exists; give another name, or --force to write over it")
    seen = look(arguments.data, arguments.model, text=arguments.text, label=arguments.label)
    write_atomic(out, toml(seen, f"runs/{out.stem}"))
    lines = [f"{name + ':':<10} {fact}" for name, fact in seen.seen.items()]
    lines += [f"note:      {warning}" for warning in seen.warnings]
    lines += [f"written:   {out}", f"next:      glora tune {out}"]
    answer = {"file": str(out), "task": dict(seen.task), "training": dict(seen.training), "seen": dict(seen.seen),
              "warnings": list(seen.warnings)}  # fmt: skip
    return answer, "\n".join(lines)
