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
    OURS_HOLDS = "ours: holds"  #: a claim of our own that no paper makes
    OURS_FAILS = "ours: fails"
    NOT_SEEN = "not seen at this size"  #: a small study of networks against a claim about large ones


#: Words for a claim of our own: nothing of a paper is reproduced.
OURS = {Verdict.REPRODUCED: Verdict.OURS_HOLDS, Verdict.NOT_REPRODUCED: Verdict.OURS_FAILS}
#: Words for a study of small networks, which cannot speak of the paper's size.
SMALL = {Verdict.NOT_REPRODUCED: Verdict.NOT_SEEN}


@dataclass(frozen=True)
class Row:
    """One figure of ours beside the paper's.

    ``paper`` is what the paper printed for this very quantity, else None; ``error`` is one standard error of ours
    (None: exact).
    """

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
