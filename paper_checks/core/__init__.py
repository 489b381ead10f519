"""What a check is, what comes out of it, and how all of them are found."""

from paper_checks.core.check import COMMITTED, LOCAL, Check, Context, versions
from paper_checks.core.discovery import RENAMED, all_checks, papers, select
from paper_checks.core.outcome import OURS, SMALL, Figures, NotAvailable, Outcome, Row, Verdict

__all__ = [
    "COMMITTED",
    "LOCAL",
    "OURS",
    "RENAMED",
    "SMALL",
    "Check",
    "Context",
    "Figures",
    "NotAvailable",
    "Outcome",
    "Row",
    "Verdict",
    "all_checks",
    "papers",
    "select",
    "versions",
]
