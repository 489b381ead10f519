"""The command line: ``rmt predict``, ``simulate``, ``sweep``, ``fit``."""

from rmt.cli.commands import main

__all__ = ["main"]
