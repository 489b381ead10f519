"""A stored check shown in a notebook: verdict, summary, plot and, if asked, its figures. Computes nothing."""

from __future__ import annotations

from paper_checks.core import COMMITTED, select
from paper_checks.report.page import number


def show(name: str, *, rows: bool = False) -> None:
    """Display the check with the id ``name`` from its committed cells; ``rows`` prints every figure below."""
    from IPython.display import Markdown, display

    (check,) = select([name])
    outcome, cells = check.recall(), check.finished(COMMITTED)
    display(Markdown(f"**{check.claim}**  \n*{check.where}*  \nVerdict: **{outcome.verdict}**. {outcome.summary}"))
    figure = check.draw(cells) if cells else None
    if figure is not None:
        figure.set_dpi(80)  # keeps the notebook small
        display(figure)
    for row in outcome.rows if rows else ():
        paper = f" (paper: {number(row.paper)})" if row.paper is not None else ""
        print(f"{row.name}: {number(row.ours, row.error)}{paper}")
