"""What does reporting on the images that a search selected on add?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from paper_checks.core import OURS, Context, Figures, Outcome, Row, Verdict
from paper_checks.statistics.intervals import interval
from paper_checks.statistics.power import Part, needed
from paper_checks.studies.vision.statistics import searches
from paper_checks.studies.vision.study import Study
from rmt.plot import COLOURS, dots, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class VtabLeak(Study):
    """See the module's docstring; the cells are the supernets of ``glora.vtab_search``."""

    id = "glora.vtab_leak"
    claim = "Reporting on the images that the search selected on, as released code does, overstates accuracy."
    short = "Reporting on the images searched on overstates accuracy."
    shown = ("val200 − test (points", "")
    scale = "ViT-S/14 at 56 px, two tasks"
    where = "Not in the paper; its released scripts select and report on the same 200 images, or search on test"
    words = OURS
    rule = (
        "Per search: accuracy of the chosen subnet with inherited weights on val200, which chose it, less that on "
        "test. Reproduced (not reproduced) if the 95 % t-interval of the mean over tasks, over three searches each, "
        "lies above (below) 0; else undecided. The difference holds what the selection adds and what val200 and test "
        "differ by for any subnet."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return [f"supernet-{task}-s{seed}" for seed in range(self.plan.seeds) for task in self.plan.tasks]

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        gaps = leaks(cells)
        rows = [
            Row(f"{task}: val200 − test, seed {seed} (points)", None, gap)
            for task, values in gaps.items()
            for seed, gap in enumerate(values)
        ]
        if len(gaps) < len(self.plan.tasks) or min(map(len, gaps.values())) < 2:
            return Outcome(Verdict.UNDECIDED, "fewer than two searches of a task are finished", tuple(rows))
        arrays = [np.array(values) for values in gaps.values()]
        mean, half, _ = interval(arrays)
        text = f"{mean:+.1f} points [{mean - half:+.1f}, {mean + half:+.1f}] from {sum(map(len, arrays))} searches"
        rows.append(Row("val200 − test (points, 95 % interval)", None, text))
        if abs(mean) > half:
            return Outcome(Verdict.REPRODUCED if mean > 0 else Verdict.NOT_REPRODUCED, text, tuple(rows))
        variance = sum(gap.var(ddof=1) / len(gap) for gap in arrays) / len(arrays) ** 2
        freedom = sum(map(len, arrays)) - len(arrays)
        parts = [Part("seeds", float(variance), freedom, min(map(len, arrays)))]
        return Outcome(Verdict.UNDECIDED, f"{text}; {needed(mean, parts)}", tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        """The difference of every search."""
        gaps = leaks(cells)
        if not gaps:
            return None
        figure, axes = panels(1, width=4.6, height=2.8)
        for place, values in enumerate(gaps.values()):
            dots(axes[0, 0], [place] * len(values), values, [0.0] * len(values), colour=COLOURS[place], label=None)
        axes[0, 0].axhline(0.0, color=COLOURS[5], linewidth=0.9)
        axes[0, 0].set_xticks(range(len(gaps)), list(gaps))
        axes[0, 0].set_xlim(-0.5, len(gaps) - 0.5)
        name_axes(axes[0, 0], "", "val200 − test (points)", "a dot a search, inherited weights")
        return figure


def leaks(cells: Mapping[str, Figures]) -> dict[str, list[float]]:
    """Accuracy on val200 less that on test of every search's subnet, by task."""
    found: dict[str, list[float]] = {}
    for cell, figures in sorted(cells.items()):
        if cell.startswith("supernet-"):
            for one in searches(figures).values():
                gap = one["search"]["validation_accuracy"] - one["inherited"]["accuracy"]
                found.setdefault(cell.split("-")[1], []).append(gap)
    return found


CHECK = VtabLeak()
