"""Checks that cost nothing, to test the machinery around checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import Check, Context, Figures, NotAvailable, Outcome, Row, Verdict


class Fake(Check):
    """Three cells; each draws a number from its seed. ``log`` counts what was computed."""

    id = "alpha_lora.fake"
    claim = "Numbers are <small> & positive."
    where = "nowhere"
    rule = "Reproduced if every number is below 1."
    needs = ()

    def __init__(self, name: str = "fake") -> None:
        self.id = f"alpha_lora.{name}"
        self.log: list[str] = []

    def cells(self, context: Context) -> Sequence[str]:
        return ["c", "a", "b"]

    def compute(self, context: Context, cell: str) -> Figures:
        self.log.append(cell)
        return {"number": np.random.default_rng(context.seed_for(self.id, cell)).random()}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        good = all(figures["number"] < 1 for figures in cells.values())
        rows = tuple(Row(f"number of {cell}", 0.5, figures["number"], 0.1) for cell, figures in cells.items())
        return Outcome(Verdict.REPRODUCED if good else Verdict.NOT_REPRODUCED, "All | small.", rows)


class Interrupted(Fake):
    """Stopped by the user in its second cell, until ``patient`` is set."""

    patient = False

    def compute(self, context: Context, cell: str) -> Figures:
        if cell == "a" and not self.patient:
            raise KeyboardInterrupt
        return super().compute(context, cell)


class Crashing(Fake):
    """Fails in its second cell."""

    def compute(self, context: Context, cell: str) -> Figures:
        if cell == "a":
            raise RuntimeError("a bug")
        return super().compute(context, cell)


class Lacking(Fake):
    """Two of its cells, or all, need data."""

    def __init__(self, name: str = "lacking", everything: bool = False) -> None:
        super().__init__(name)
        self.everything = everything

    def compute(self, context: Context, cell: str) -> Figures:
        if self.everything or cell != "c":
            raise NotAvailable("needs a data folder; set ADAPT_SHARED or give --data DIR")
        return super().compute(context, cell)


class Drawn(Fake):
    """Has a plot."""

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        from rmt.plot import panels

        figure, axes = panels(1)
        axes[0, 0].plot([figures["number"] for figures in cells.values()])
        return figure
