"""Accuracy when the trained α is replaced by aα + b: the adapter belongs to the scale it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from paper_checks.core import SMALL, Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.statistics.paired import Paired, answers, paired, paired_values
from paper_checks.studies.glue.comparison import CLAIMED, MIDDLE
from paper_checks.studies.glue.comparison import FAIR as STUDY
from rmt.plot import COLOURS, dots, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The paper's accuracies on RTE (Fig. 5) by (a, b).
PAPER = {(1.0, 0.0): 77.62, (0.667, 0.167): 78.34, (0.667, 0.0): 63.5, (1.333, 0.0): 63.2}
PAPER |= {(1.0, 0.333): 71.1, (1.0, -0.333): 61.0}
TESTED = ((0.667, 0.0), (1.333, 0.0), (1.0, -0.333), (1.0, 0.333))
SEEDS = 3
NOTHING = 1.0  #: points of loss below which the scale may be said not to matter


class GlueAffine(Check):
    """See the module's docstring."""

    id = "alpha_lora.glue_affine"
    claim = "Rescaling or shifting the trained α by a third costs accuracy: the overall scale must stay."
    short = "Rescaling the trained α by a third costs accuracy."
    shown = ("loss by a third", "points lost")
    scale = "MiniLM-L6 (paper: RoBERTa-base)"
    words = SMALL
    where = "α-LoRA, Fig. 5 (RTE, RoBERTa-base)"
    rule = (
        "From three α-LoRA runs of alpha_lora.glue_fair on each task, at the middle learning rate: what is lost on the "
        "development set by a = 2/3, a = 4/3 and b = ±1/3, mean of the four, then of the tasks; 95 % t-interval over "
        "examples and seeds (paired). A task whose trained model does not beat the majority class by two standard "
        "errors has nothing to lose and is left out. Reproduced if the interval lies above 0, whatever the size of the "
        "loss, which is reported beside the paper's; not reproduced if it lies below 1 point; else, or with fewer than "
        "three seeds of a task, undecided. Larger changes (a = 0, a = 1/2, b = ±2/3) are reported."
    )
    needs = ("finished cells of alpha_lora.glue_fair",)

    def cells(self, context: Context) -> Sequence[str]:
        return [f"{task}.seed{seed}" for seed in range(SEEDS) for task in STUDY.study.tasks]

    def compute(self, context: Context, cell: str) -> Figures:
        task, _, seed = cell.partition(".seed")
        name = f"{task}.{CLAIMED}.at{MIDDLE:g}.seed{seed}"
        stored = STUDY.finished(context.out).get(name, {})
        if "affine" not in stored:
            raise NotAvailable(f"needs the cell {name} of {STUDY.id}; run that check first")
        return {"points": stored["affine"], "majority": stored["majority"]}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows = [
            Row(f"RTE, RoBERTa-base: accuracy (%) at a = {a:g}, b = {b:g}", value, "–")
            for (a, b), value in PAPER.items()
        ]
        sentences: list[str] = []
        losses: list[Paired] = []
        seeds = []
        for task, runs in _by_task(cells).items():
            seeds.append(len(runs))
            for point, value, error in _curve(runs):
                rows.append(
                    Row(f"{task.upper()}: accuracy (%) at a = {point[0]:g}, b = {point[1]:g}", None, value, error)
                )
            (best, error), majority = _accuracy(runs, (1.0, 0.0)), runs[0]["majority"]
            if best - majority <= 2 * error:
                sentences.append(f"{task.upper()}: {best:.1f} % do not beat the majority ({majority:.1f} %).")
                continue
            by_point = [_by_point(run) for run in runs]
            kept = answers([points[1.0, 0.0] for points in by_point])
            lost = [kept - answers([points[point] for points in by_point]) for point in TESTED]
            losses.append(paired_values(100 * np.mean(lost, axis=0)))
            single = [paired([p[1.0, 0.0] for p in by_point], [p[point] for p in by_point]) for point in TESTED]
            shown = ", ".join(f"{drop.text} at ({a:g}, {b:g})" for (a, b), drop in zip(TESTED, single, strict=True))
            sentences.append(f"{task.upper()}: of {best:.1f} % are lost {shown}.")
        few = len(seeds) < len(STUDY.study.tasks) or min(seeds) < SEEDS
        if few:
            least = min(seeds) if len(seeds) == len(STUDY.study.tasks) else 0
            sentences.append(f"Not complete: {least} of {SEEDS} seeds on every task.")
        if not losses:
            return Outcome(Verdict.UNDECIDED, " ".join(sentences), tuple(rows))
        loss = mean_of(losses)
        low, high = loss.interval
        verdict = Verdict.UNDECIDED
        if not few and low > 0:
            verdict = Verdict.REPRODUCED
        elif not few and high < NOTHING:
            verdict = Verdict.NOT_REPRODUCED
        summary = f"A change by a third costs {loss.text} points on average (the paper: 6.5 to 16.6 on RTE)"
        if verdict is Verdict.UNDECIDED and low <= 0:
            summary += f"; {loss.needed}"
        rows.append(
            Row("loss by a third, mean of four changes and of the tasks (points, 95 % interval)", None, loss.text)
        )
        return Outcome(verdict, " ".join([f"{summary}.", *sentences]), tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        """Accuracy along a and along b."""
        figure, axes = panels(2, width=4.2, height=3.2)
        for axis, fixed, label in ((axes[0, 0], 1, "factor a (b = 0)"), (axes[0, 1], 0, "shift b (a = 1)")):
            for colour, (task, runs) in zip(COLOURS, _by_task(cells).items(), strict=False):
                found = [
                    (p[1 - fixed], value, error) for p, value, error in _curve(runs) if p[fixed] == (1.0, 0.0)[fixed]
                ]
                x, y, errors = zip(*sorted(found), strict=True)
                dots(axis, x, y, errors, colour=colour, label=f"{task.upper()}, {len(runs)} seeds")
                majority = runs[0]["majority"]
                axis.axhline(majority, color=colour, linewidth=0.7, linestyle=":", label=f"{task.upper()}, majority")
            name_axes(axis, label, "accuracy (%)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7.5, frameon=False)
        return figure


def mean_of(losses: Sequence[Paired]) -> Paired:
    """The mean over tasks, whose examples are others and whose seeds are their own."""
    parts = [replace(p, variance=p.variance / len(losses) ** 2) for loss in losses for p in loss.parts]
    return Paired(float(np.mean([loss.mean for loss in losses])), tuple(parts), sum(loss.examples for loss in losses))


def _by_task(cells: Mapping[str, Figures]) -> dict[str, list[Figures]]:
    """Runs by task; the cells named after a task alone are of an earlier rule (one seed, a smaller rate)."""
    found: dict[str, list[Figures]] = {}
    for task in STUDY.study.tasks:
        seeds = [cells[cell] for seed in range(SEEDS) if (cell := f"{task}.seed{seed}") in cells]
        if runs := seeds or [cells[cell] for cell in (task,) if cell in cells]:
            found[task] = runs
    return found


def _curve(runs: Sequence[Figures]) -> list[tuple[tuple[float, float], float, float]]:
    """(a, b), accuracy in percent and its standard error."""
    return [(point, *_accuracy(runs, point)) for point in _by_point(runs[0])]


def _by_point(figures: Figures) -> dict[tuple[float, float], Figures]:
    """The answers at each (a, b), with (1, 0) for α as trained."""
    return {(point["a"], point["b"]): point for point in figures["points"]}


def _accuracy(runs: Sequence[Figures], point: tuple[float, float]) -> tuple[float, float]:
    """Mean accuracy in percent at (a, b) with its standard error over examples and seeds."""
    found = paired_values(100 * answers([_by_point(run)[point] for run in runs]))
    return found.mean, found.error


CHECK = GlueAffine()
