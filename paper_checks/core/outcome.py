"""What comes out of a check: its figures, its verdict, and the rows to show."""

from __future__ import annotations

import math
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

    @property
    def interval(self) -> str:
        """Our figure with its 95 % interval, where it has a standard error, as text."""
        if isinstance(self.ours, str):
            return _plain(self.ours)
        if not self.error or not math.isfinite(self.error):
            whole = self.ours == round(self.ours) or abs(self.ours) >= 100
            return number(self.ours) if whole else _plain(f"{self.ours:.3g}")
        width = 1.96 * self.error
        digits = max(-math.floor(math.log10(width)), 0)
        low, high = (f"{value:.{digits}f}" for value in (self.ours - width, self.ours + width))
        return f"{self.ours:.{digits}f} [{low}, {high}]".replace("-", "−")


@dataclass(frozen=True)
class Outcome:
    """Verdict of a check, the sentence that explains it with figures, and the rows to show."""

    verdict: Verdict
    summary: str
    rows: tuple[Row, ...] = ()
    missing: tuple[str, ...] = ()  #: why some cells could not run here; filled in by :meth:`Check.run`


class NotAvailable(ValueError):
    """Something the check needs (data, a GPU, a package) is not there; the message says how to get it."""


def number(value: Any, error: float | None = None) -> str:
    """A figure in as many digits as its standard error deserves (two digits of the error), or five without one.

    Whole numbers and large ones are written out with commas.
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    value = float(value)
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")
    if error is None or not math.isfinite(error) or error == 0:
        large = 1e4 <= abs(value) < 1e15
        return _plain(f"{value:,.0f}" if large else f"{value:.5g}") + (" ± 0" if error == 0 else "")
    decimals = max(1 - math.floor(math.log10(error)), 0)
    if decimals > 8:
        return _plain(f"{value:.5g} ± {error:.1g}")
    return _plain(f"{value:,.{decimals}f} ± {error:,.{decimals}f}")


def _plain(text: str) -> str:
    return text.replace("-", "−")
