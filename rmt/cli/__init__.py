"""The command line: ``rmt predict``, ``simulate``, ``sweep``, ``fit``."""

from __future__ import annotations

from rmt.cli.exits import run


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code. What it needs is imported here, where Ctrl-C ends quietly."""

    def command() -> int:
        from rmt.cli.commands import main

        return main(argv)

    return run("rmt", command)


__all__ = ["main"]
