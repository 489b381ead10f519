"""Accuracy when the trained α is replaced by aα + b: the adapter belongs to the scale it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.statistics.paired import Paired, paired
from paper_checks.studies.glue.comparison import CLAIMED
from paper_checks.studies.glue.comparison import FAIR as STUDY
from rmt.plot import COLOURS, dots, legend, name_axes, panels

#: The paper's accuracies on RTE (Fig. 5) by (a, b).
PAPER = {(1.0, 0.0): 77.62, (0.667, 0.167): 78.34, (0.667, 0.0): 63.5, (1.333, 0.0): 63.2}
PAPER |= {(1.0, 0.333): 71.1, (1.0, -0.333): 61.0}
#: The least that the paper loses by one of the tested changes, in points.
LEAST = 6.5
TESTED = ((0.667, 0.0), (1.333, 0.0), (1.0, -0.333), (1.0, 0.333))


class GlueAffine(Check):
    """See the module's docstring."""

    id = "alpha_lora.glue_affine"
    claim = "Rescaling or shifting the trained α by a third costs accuracy: the overall scale must stay."
    where = "α-LoRA, Fig. 5 (RTE, RoBERTa-base)"
    rule = (
        "From the α-LoRA run with seed 0 of alpha_lora.glue_fair on each task, on the development set: the loss of "
        "accuracy by a = 2/3, a = 4/3, b = ±1/3, with its 95 % interval over examples (paired). A task whose trained "
        "model does not beat the majority class by two standard errors has nothing to lose and is left out. Reproduced "
        "if every interval lies above 0; not reproduced if one lies below 6.5 points, the least that the paper loses; "
        "else, or with a task missing, undecided."
    )
    needs = ("finished cells of alpha_lora.glue_fair",)

    def cells(self, context: Context) -> Sequence[str]:
        return tuple(STUDY.study.tasks)

    def compute(self, context: Context, cell: str) -> Figures:
        stored = STUDY.finished(context.out).get(STUDY.study.finals(cell, CLAIMED)[0], {})
        if "affine" not in stored:
            raise NotAvailable(f"needs the first α-LoRA run of {STUDY.id} on {cell}; run that check first")
        return {"points": stored["affine"], "majority": stored["majority"]}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows, sentences = [], []
        losses: list[Paired] = []
        for task, figures in cells.items():
            runs = _by_point(figures)
            for point, run in runs.items():
                label = f"{task.upper()}: accuracy (%) at a = {point[0]:g}, b = {point[1]:g} (paper: RTE)"
                rows.append(Row(label, PAPER.get(point), *_accuracy(run)))
            best, error = _accuracy(runs[1.0, 0.0])
            if best - figures["majority"] <= 2 * error:
                sentences.append(
                    f"{task.upper()}: {best:.1f} % do not beat the majority ({figures['majority']:.1f} %)."
                )
                continue
            drops = {point: paired([runs[1.0, 0.0]], [runs[point]]) for point in TESTED}
            losses += drops.values()
            shown = ", ".join(
                f"{drop.mean:+.1f} [{drop.interval[0]:+.1f}, {drop.interval[1]:+.1f}] at ({a:g}, {b:g})"
                for (a, b), drop in drops.items()
            )
            sentences.append(f"{task.upper()}: of {best:.1f} % are lost {shown}.")
        missing = len(cells) < len(STUDY.study.tasks)
        if missing:
            sentences.append("Not complete: a task is missing.")
        verdict = Verdict.UNDECIDED
        if losses and not missing:
            if all(loss.interval[0] > 0 for loss in losses):
                verdict = Verdict.REPRODUCED
            elif any(loss.interval[1] < LEAST for loss in losses):
                verdict = Verdict.NOT_REPRODUCED
        return Outcome(verdict, " ".join(sentences), tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Accuracy along a and along b."""
        figure, axes = panels(2, width=4.2, height=3.0)
        for axis, fixed, label in ((axes[0, 0], 1, "factor a (b = 0)"), (axes[0, 1], 0, "shift b (a = 1)")):
            for colour, (task, figures) in zip(COLOURS, cells.items(), strict=False):
                runs = {p: run for p, run in _by_point(figures).items() if p[fixed] == (1.0, 0.0)[fixed]}
                x = sorted(p[1 - fixed] for p in runs)
                y, errors = zip(*(_accuracy(runs[p]) for p in sorted(runs)), strict=True)
                dots(axis, x, y, errors, colour=colour, label=task.upper())
                axis.axhline(figures["majority"], color=colour, linewidth=0.7, linestyle=":")
            name_axes(axis, label, "accuracy (%)")
            legend(axis)
        return figure


def _by_point(figures: Figures) -> dict[tuple[float, float], Figures]:
    """The answers at each (a, b), with (1, 0) for α as trained."""
    return {(point["a"], point["b"]): point for point in figures["points"]}


def _accuracy(run: Figures) -> tuple[float, float]:
    """Accuracy in percent with its binomial standard error."""
    share = run["correct"].count("1") / len(run["correct"])
    return 100 * share, 100 * float(np.sqrt(share * (1 - share) / len(run["correct"])))


CHECK = GlueAffine()
