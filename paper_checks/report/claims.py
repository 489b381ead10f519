"""From stored results to the claims page (HTML) and the claims table of the README (Markdown). Computes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paper_checks.core import COMMITTED, Check, Outcome, Row, Verdict, papers, rules
from paper_checks.report import page
from paper_checks.report.page import Section, escape, number
from rmt._files import write_atomic

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"

#: The papers, by group of checks, in the order of the page.
SHOWN_ROWS = 12  # longer tables are folded

_STYLES = {
    Verdict.REPRODUCED: "good",
    Verdict.OURS_HOLDS: "good",
    Verdict.BY_CONSTRUCTION: "good",
    Verdict.CORRECTED: "fixed",
    Verdict.NOT_REPRODUCED: "bad",
    Verdict.OURS_FAILS: "bad",
    Verdict.NOT_SEEN: "bad",
}

#: Beside the word, for the eye.
ICONS = {
    Verdict.REPRODUCED: "✔",
    Verdict.BY_CONSTRUCTION: "✔",
    Verdict.OURS_HOLDS: "✔",
    Verdict.CORRECTED: "✎",
    Verdict.NOT_REPRODUCED: "✘",
    Verdict.OURS_FAILS: "✘",
    Verdict.NOT_SEEN: "✘",
    Verdict.UNDECIDED: "?",
    Verdict.NOT_RUN: "–",
}

#: What each verdict means, for the reader of the page.
MEANINGS = {
    Verdict.REPRODUCED: "our figures agree with the paper's by the stated rule",
    Verdict.CORRECTED: "the paper's formula is wrong, ours holds",
    Verdict.NOT_REPRODUCED: "our figures contradict the claim by the stated rule",
    Verdict.NOT_SEEN: "a small study does not show it; it says nothing about the paper's size",
    Verdict.BY_CONSTRUCTION: "an identity that a program verifies",
    Verdict.OURS_HOLDS: "a claim of our own, which no paper makes, holds by the stated rule",
    Verdict.OURS_FAILS: "a claim of our own does not hold",
    Verdict.UNDECIDED: "the error bar holds both the claim and its negation, or the cells that decide are missing",
    Verdict.NOT_RUN: "something it needs is missing",
}

#: The answer in plain words, before any figure.
_ANSWERS = {
    Verdict.REPRODUCED: "Yes.",
    Verdict.CORRECTED: "Yes, with another formula than the paper's.",
    Verdict.NOT_REPRODUCED: "No.",
    Verdict.NOT_SEEN: "Not at the size we could test.",
    Verdict.BY_CONSTRUCTION: "Yes, by construction.",
    Verdict.OURS_HOLDS: "Yes; the claim is ours, not a paper's.",
    Verdict.OURS_FAILS: "No; the claim is ours, not a paper's.",
    Verdict.UNDECIDED: "We cannot tell yet.",
    Verdict.NOT_RUN: "Nobody has run it yet.",
}

_FILTER = """<script>
document.querySelectorAll("nav button").forEach(function (button) {
  button.onclick = function () {
    var wanted = button.dataset.verdict;
    document.querySelectorAll("nav button").forEach(function (one) {
      one.setAttribute("aria-pressed", one === button);
    });
    document.querySelectorAll("[data-verdict-is]").forEach(function (one) {
      one.hidden = wanted !== "" && one.dataset.verdictIs !== wanted;
    });
  };
});
</script>"""


@dataclass
class Plots:
    """Plots that go into files beside the page, so that it opens before they are fetched.

    Attributes:
        folder: their folder, relative to the page.
        files: file name → PNG, filled while the page is rendered.
    """

    folder: str
    files: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, figure: Any, alternative: str) -> str:
        """Keep a matplotlib Figure as ``name``.png; returns the HTML that shows it."""
        data, size = page.png(figure)
        self.files[f"{name}.png"] = data
        return page.linked_image(f"{self.folder}/{name}.png", size, alternative)

    def write(self, page_file: Path) -> None:
        """Write the files beside ``page_file`` and remove plots of claims that are no more."""
        folder = page_file.parent / self.folder
        for name, data in self.files.items():
            write_atomic(folder / name, data)
        for group in papers():
            for old in folder.glob(f"{group}.*.png"):
                if old.name not in self.files:
                    old.unlink()


def badge(verdict: Verdict) -> str:
    """The verdict as a coloured label."""
    return f'<span class="badge {_STYLES.get(verdict, "")}">{escape(verdict)}</span>'


def claims_sections(checks: Iterable[Check], folder: Path = COMMITTED, plots: Plots | None = None) -> list[Section]:
    """A summary and one section a paper, from the results below ``folder``; plots are inline, or go to ``plots``."""
    checks = list(checks)
    outcomes = {check.id: check.recall(folder) for check in checks}
    rows = [
        [
            f'<a href="#{escape(check.id)}">{escape(check.short or check.claim)}</a>',
            badge(outcomes[check.id].verdict),
            escape(check.number(outcomes[check.id])),
            escape(check.scale),
        ]
        for check in checks
    ]
    marks = [f'data-verdict-is="{escape(outcomes[check.id].verdict)}"' for check in checks]
    used = [verdict for verdict in MEANINGS if verdict in {outcome.verdict for outcome in outcomes.values()}]
    meanings = "; ".join(f"{badge(verdict)} {MEANINGS[verdict]}" for verdict in used)
    head = ["claim", "verdict", "one figure, 95 % interval", "tested on"]
    summary = (
        _navigation(checks, outcomes)
        + page.table(head, rows, style="score", marks=marks)
        + f'<p class="soft">{meanings}.</p>'
    )
    sections = [Section("claims", "The claims and what became of them", summary)]
    for group, (_, title) in papers().items():
        members = [check for check in checks if check.id.split(".")[0] == group]
        if members:
            body = "\n".join(_claim(check, outcomes[check.id], folder, plots) for check in members)
            sections.append(Section(group, title, body))
    last = sections[-1]
    return [*sections[:-1], Section(last.anchor, last.title, last.body + _FILTER)]


def _navigation(checks: list[Check], outcomes: Mapping[str, Outcome]) -> str:
    """Links to the parts of the page, and a filter by verdict (all claims are shown where scripts do not run)."""
    groups = [group for group in papers() if any(check.id.startswith(f"{group}.") for check in checks)]
    links = [f'<a href="#{group}">{papers()[group][0]}</a>' for group in groups]
    counts = {verdict: sum(o.verdict == verdict for o in outcomes.values()) for verdict in MEANINGS}
    buttons = [f'<button data-verdict="" aria-pressed="true">all {len(checks)}</button>']
    buttons += [
        f'<button data-verdict="{escape(verdict)}" aria-pressed="false">{escape(verdict)} {count}</button>'
        for verdict, count in counts.items()
        if count
    ]
    return f'<nav><a href="#claims">list</a>{"".join(links)}{"".join(buttons)}</nav>'


def claims_page(checks: Iterable[Check], folder: Path = COMMITTED, plots: Plots | None = None) -> str:
    """The whole claims page; plots are inline, or go to ``plots``."""
    lead = (
        "<p>Each claim of the papers is a program with a rule fixed in words. This page is rendered "
        "from the figures those programs stored, with their seeds and versions; no verdict is written "
        "by hand. Lines are theory, dots are simulation or measurement with bars of two standard "
        "errors; ± in the tables is one standard error. A rule that was changed after results existed keeps its "
        "predecessor and the reason beside it. To contest a verdict, see docs/contest.md.</p>"
    )
    return page.page("The papers' claims, checked", lead, claims_sections(checks, folder, plots))


def _claim(check: Check, outcome: Outcome, folder: Path, plots: Plots | None) -> str:
    figure_shown = check.number(outcome)
    answer = f"<b>{_ANSWERS[outcome.verdict]}</b> " + (escape(f"{figure_shown}.") if figure_shown else "")
    tested = f" · tested on {escape(check.scale)}" if check.scale else ""
    parts = [
        f'<article id="{escape(check.id)}" data-verdict-is="{escape(outcome.verdict)}">',
        f"<h3>{badge(outcome.verdict)} {escape(check.claim)}</h3>",
        f'<p class="answer">{answer}</p>',
        f'<p class="soft">{escape(check.where)}{tested} · <code>paper-checks run {escape(check.id)}</code></p>',
        f"<p>{escape(outcome.summary)}</p>",
        "<details><summary>rule, plot and figures</summary>",
        f'<p class="rule"><b>Rule.</b> {escape(check.rule)}</p>',
    ]
    records = check.records(folder)
    if records:
        parts += [f'<p class="rule">{escape(line)}</p>' for line in _history(check, records, folder)]
        figure = check.draw({cell: record["figures"] for cell, record in records.items()})
        if figure is not None:
            alternative = f"plot of the figures behind: {check.claim}"
            parts.append(plots.add(check.id, figure, alternative) if plots else page.image(figure, alternative))
    if outcome.rows:
        parts.append(_rows(outcome.rows))
    if records:
        parts.append(f'<p class="soft">{escape(_provenance(records))}</p>')
    elif check.needs:
        parts.append(f'<p class="soft">needs {escape(", ".join(check.needs))}</p>')
    return "\n".join([*parts, "</details>", "</article>"])


def _rows(rows: tuple[Row, ...]) -> str:
    lines = [
        [
            escape(row.name),
            escape(number(row.paper)) if row.paper is not None else "",
            escape(number(row.ours, row.error)),
        ]
        for row in rows
    ]
    printed = any(row.paper is not None for row in rows)
    if not printed:  # an empty column says nothing
        lines = [[name, ours] for name, _, ours in lines]
    content = page.table(["figure", *(["paper"] if printed else []), "ours"], lines, numbers=(1, 2))
    if len(rows) <= SHOWN_ROWS:
        return content
    return f"<details><summary>all {len(rows)} figures</summary>\n{content}\n</details>"


def _history(check: Check, records: Mapping[str, Mapping[str, Any]], folder: Path) -> list[str]:
    """When the rule took its present form, why, and how many cells are older; nothing where no rule was frozen."""
    entries = rules.history(folder).get(check.id, [])
    if not entries:
        return []
    older, now = len(rules.older_cells(check, records, entries)), rules.present_form(entries)
    before = f"{older} of its {len(records)} cells were there before" if older else "all of its cells came after"
    lines = [f"Rule frozen on {now.time[:10]}; {before}."]
    if len(entries) > 1:
        words = {True: "Note of", False: "Rule changed on"}
        lines += [f"{words[entry.same]} {entry.time[:10]}: {entry.why}" for entry in entries[1:]]
    if any(not entry.same for entry in entries[1:]):
        lines.append(f"First rule ({entries[0].time[:10]}): {entries[0].rule}")
    return lines


def _provenance(records: Mapping[str, Mapping[str, Any]]) -> str:
    kinds = {"quick" if record["quick"] else "full" for record in records.values()}
    seeds = sorted({record["seed"] for record in records.values()})
    seconds = sum(record["seconds"] for record in records.values())
    versions = next(iter(records.values()))["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in versions if name != "rescale-and-adapt")
    return (
        f"{' and '.join(sorted(kinds))} run, {len(records)} cells, seed {', '.join(map(str, seeds))}, "
        f"{seconds:.0f} s; {libraries}"
    )


def markdown_table(checks: Iterable[Check], folder: Path = COMMITTED, link: str = "docs/claims.html") -> str:
    """The claims table of the README, from the results below ``folder``."""
    lines = ["| verdict | claim | one figure |", "| --- | --- | --- |"]
    for check in checks:
        outcome = check.recall(folder)
        claim = f"[{check.short or check.claim}]({link}#{check.id})"
        cells = (f"{ICONS.get(outcome.verdict, '')} {outcome.verdict}".strip(), claim, check.number(outcome))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def replace_between_markers(text: str, table: str, name: str = "README.md") -> str:
    """``text`` with what stands between the claims markers replaced by ``table``.

    Raises:
        ValueError: a marker is missing, or they stand in the wrong order.
    """
    start, stop = text.find(BEGIN), text.find(END)
    if start < 0 or stop < start:
        raise ValueError(f"{name} must hold the lines {BEGIN} and {END}, in this order; add them")
    return f"{text[: start + len(BEGIN)]}\n{table}\n{text[stop:]}"


def write_report(
    checks: Iterable[Check], results: Path = COMMITTED, out: Path = Path("docs/claims.html"), readme: Path | None = None
) -> Path:
    """Write the claims page to ``out``, its plots into a folder of that name, and the table of ``readme`` if given.

    Raises:
        ValueError: the README is missing or lacks the markers (nothing is written then).
    """
    checks = list(checks)
    updated = None
    if readme is not None:
        if not readme.is_file():
            raise ValueError(f"file {str(readme)!r} does not exist; run this in the repository, or give --no-readme")
        updated = replace_between_markers(
            readme.read_text(encoding="utf-8"), markdown_table(checks, results), str(readme)
        )
    plots = Plots(out.stem)
    text = claims_page(checks, results, plots)
    plots.write(out)
    path = write_atomic(out, text)
    if readme is not None and updated is not None:
        write_atomic(readme, updated)
    return path
