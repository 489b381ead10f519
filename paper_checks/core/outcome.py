"""What comes out of a check: its figures, its verdict, and the rows to show."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Figures = dict[str, Any]


class Verdict(StrEnum):
    """What the figures say about the claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    CORRECTED = "corrected"  #: the paper's formula is wrong and ours holds
    BY_CONSTRUCTION = "shown by construction"
    UNDECIDED = "undecided"  #: the interval holds both the claim and its negation
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Row:
    """One figure of the paper beside ours. ``error`` is one standard error of ours (None: exact)."""

    name: str
    paper: float | str | None
    ours: float | str
    error: float | None = None


@dataclass(frozen=True)
class Outcome:
    """Verdict of a check, the sentence that explains it with figures, and the rows to show."""

    verdict: Verdict
    summary: str
    rows: tuple[Row, ...] = ()
    missing: tuple[str, ...] = ()  #: why some cells could not run here; filled in by :meth:`Check.run`


class NotAvailable(ValueError):
    """Something the check needs (data, a GPU, a package) is not there; the message says how to get it."""
