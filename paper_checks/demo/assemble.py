"""``make demo``: predict and simulate one setting, run every check quickly, write one page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from paper_checks.core import Check, Context, Outcome
from paper_checks.demo.example import example
from paper_checks.report import page
from paper_checks.report.claims import claims_sections
from paper_checks.report.page import Section
from rmt._files import write_atomic


def text() -> Section:
    """α-LoRA on a tiny text task."""
    from paper_checks.demo import text

    return text.text()


def vision() -> Section:
    """GLoRA's search on a tiny image task."""
    from paper_checks.demo import vision

    return vision.section()


#: Parts of the page before the claims, in order. Each imports what it needs when it is called.
SECTIONS: list[Callable[[], Section]] = [example, text, vision]


def write_demo(checks: list[Check], context: Context, run: Callable[[Check, Context], Outcome | None]) -> Path:
    """Run ``checks`` by ``run`` into ``context.out/results`` and write ``context.out/index.html``.

    ``run`` is given so that the command line can report progress and failures its own way; it returns None
    for a check that failed.
    """
    sections = [section() for section in SECTIONS]
    results = context.out / "results"
    inner = replace(context, out=results, quick=True)
    outcomes = {check.id: run(check, inner) for check in checks}
    sections += claims_sections(checks, results)
    absent = []
    for name, outcome in outcomes.items():
        reasons = ("it failed; the terminal shows where",) if outcome is None else outcome.missing
        absent += [[page.escape(name), page.escape(reason)] for reason in reasons]
    if absent:
        sections.append(Section("missing", "Not run here, or only in part", page.table(["check", "why"], absent)))
    lead = (
        "<p>Everything below was computed by <code>make demo</code> on this machine: small samples, "
        "the same rules as the full runs whose results the repository keeps (docs/claims.html). Lines "
        "are theory, dots are simulation or measurement with bars of two standard errors.</p>"
    )
    return write_atomic(context.out / "index.html", page.page("Rescale and adapt: the demo", lead, sections))
