"""The ``glora`` command."""

from __future__ import annotations

from glora.cli.exits import run


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code. What it needs is imported here, where Ctrl-C ends quietly."""

    def command() -> int:
        from glora.cli.commands import main

        return main(argv)

    return run("glora", command)


__all__ = ["main"]
