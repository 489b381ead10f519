"""The ``glora`` command."""

from __future__ import annotations

import argparse


def build_parser() -> argparse.ArgumentParser:
    """The parser of the ``glora`` command."""
    return argparse.ArgumentParser(prog="glora", description=__doc__)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    build_parser().parse_args(argv)
    return 0
