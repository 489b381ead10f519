"""Accuracy when the trained α is replaced by aα + b: the adapter belongs to the scale it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.glora.glue_fair import CHECK as STUDY
from paper_checks.glora.glue_fair import CLAIMED
from rmt.plot import COLOURS, dots, legend, name_axes, panels

#: The paper's accuracies on RTE (Fig. 5) by (a, b).
PAPER = {(1.0, 0.0): 77.62, (0.667, 0.167): 78.34, (0.667, 0.0): 63.5, (1.333, 0.0): 63.2}
PAPER |= {(1.0, 0.333): 71.1, (1.0, -0.333): 61.0}
EXAMPLES = 200
TESTED = ((0.667, 0.0), (1.333, 0.0), (1.0, -0.333), (1.0, 0.333))


class GlueAffine(Check):
    """See the module's docstring."""

    id = "glora.glue_affine"
    claim = "Rescaling or shifting the trained α by a third costs accuracy: the overall scale must stay."
    where = "α-LoRA, Fig. 5 (RTE, RoBERTa-base)"
    rule = (
        "From the α-LoRA run with seed 0 of glora.glue_fair on each task, on the first 200 development examples: "
        "reproduced if each of a = 2/3, a = 4/3, b = ±1/3 loses more than two standard errors (of a difference of two "
        "independent accuracies) on every task; not reproduced if none does on any task; else undecided."
    )
    needs = ("finished cells of glora.glue_fair",)

    def cells(self, context: Context) -> Sequence[str]:
        return tuple(STUDY.study.tasks)

    def compute(self, context: Context, cell: str) -> Figures:
        stored = STUDY.finished(context.out).get(STUDY.study.finals(cell, CLAIMED)[0], {})
        if "affine" not in stored:
            raise NotAvailable(f"needs the first α-LoRA run of {STUDY.id} on {cell}; run that check first")
        return {"points": stored["affine"], "majority": stored["majority"]}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows, sentences = [], []
        lost: list[bool] = []
        for task, figures in cells.items():
            accuracy = _by_point(figures)
            for point, value in accuracy.items():
                label = f"{task.upper()}: accuracy (%) at a = {point[0]:g}, b = {point[1]:g} (paper: RTE)"
                rows.append(Row(label, PAPER.get(point), value, _error(value)))
            best = accuracy[1.0, 0.0]
            drops = {point: best - accuracy[point] for point in TESTED}
            lost += [drop > 2 * np.hypot(_error(best), _error(accuracy[point])) for point, drop in drops.items()]
            shown = ", ".join(f"{drop:+.1f} at ({a:g}, {b:g})" for (a, b), drop in drops.items())
            sentences.append(f"{task.upper()}: of {best:.1f} % are lost {shown}.")
        missing = len(cells) < len(STUDY.study.tasks)
        if missing:
            sentences.append("Not complete: a task is missing.")
        if not missing and all(lost):
            verdict = Verdict.REPRODUCED
        elif not missing and not any(lost):
            verdict = Verdict.NOT_REPRODUCED
        else:
            verdict = Verdict.UNDECIDED
        return Outcome(verdict, " ".join(sentences), tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Accuracy along a and along b."""
        figure, axes = panels(2, width=4.2, height=3.0)
        for axis, fixed, label in ((axes[0, 0], "b", "factor a (b = 0)"), (axes[0, 1], "a", "shift b (a = 1)")):
            free = "a" if fixed == "b" else "b"
            for colour, (task, figures) in zip(COLOURS, cells.items(), strict=False):
                points = sorted(
                    (p[free], p["accuracy"]) for p in figures["points"] if p[fixed] == (0.0 if fixed == "b" else 1.0)
                )
                x, y = np.array(points).T
                dots(axis, x, y, [_error(value) for value in y], colour=colour, label=task.upper())
                axis.axhline(figures["majority"], color=colour, linewidth=0.7, linestyle=":")
            name_axes(axis, label, "accuracy (%)")
            legend(axis)
        return figure


def _by_point(figures: Figures) -> dict[tuple[float, float], float]:
    return {(point["a"], point["b"]): point["accuracy"] for point in figures["points"]}


def _error(percent: float) -> float:
    """Standard error of an accuracy on the examples used, in points."""
    share = percent / 100
    return 100 * float(np.sqrt(max(share * (1 - share), 0.0) / EXAMPLES))


CHECK = GlueAffine()
