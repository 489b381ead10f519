"""The ``paper-checks`` command."""

from __future__ import annotations

from collections.abc import Sequence

from rmt.cli.exits import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. What it needs is imported here, where Ctrl-C ends quietly."""

    def command() -> int:
        from paper_checks.cli.commands import main

        return main(argv)

    kept = "interrupted; finished cells are kept, the same command goes on from there"
    return run("paper-checks", command, interrupted=kept)


__all__ = ["main"]
