"""Does the search find better subnets than chance does?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paper_checks.core import Context, Figures, Outcome, Row
from paper_checks.statistics.intervals import standard_error
from paper_checks.studies.vision.methods import label
from paper_checks.studies.vision.statistics import decide, paired, searches, table
from paper_checks.studies.vision.study import Study


class VtabSearch(Study):
    """See the module's docstring."""

    id = "glora.vtab_search"
    claim = "The subnet that evolution finds is better than a random subnet of the same size."
    where = "GLoRA, Section 2.5 (evolutionary search); no ablation against random subnets is reported"
    rule = (
        "Both subnets are trained afresh on train800val200 at learning rates chosen alike, a new random subnet for "
        "each seed. Reproduced (not reproduced) if the 95 % interval of the paired test difference lies above "
        "(below) 0; else undecided. Inherited weights are reported beside it, and how many validation images the "
        "searches asked: merging, caching and early stopping select what asking every image of every candidate does."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return list(dict.fromkeys(self.runs(("glora_searched", "glora_random"))))

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        difference = paired(cells, "glora_searched", "glora_random")
        verdict, summary = decide(difference, "searched − random subnet", len(self.plan.tasks))
        rows = []
        if difference is not None:
            rows.append(Row("searched − random (points, 95 % interval)", None, difference.text))
        results = table(cells)
        for (task, method), values in results.items():
            if method in ("glora_searched", "glora_random", "glora_inherited"):
                rows.append(Row(f"{task}: {label(method)} (test %)", None, sum(values) / len(values)))
        found: list[Figures] = []
        leaks: list[float] = []
        for cell, figures in cells.items():
            if not cell.startswith("supernet"):
                continue
            for size, one in searches(figures).items():
                name = cell.removeprefix("supernet-").replace("-s", ", seed ") + (f", {size}" if size else "")
                best = one["search"]["validation_accuracy"]
                rows.append(Row(f"{name}: best on val200 with inherited weights (%)", None, best))
                found.append(one["search"])
                leaks.append(best - one["inherited"]["accuracy"])
        if leaks:
            # The released scripts report on the 200 images they select on.
            name = "reporting on the images searched on would add (points, inherited weights)"
            rows.append(Row(name, None, float(np.mean(leaks)), standard_error(leaks)))
        return Outcome(verdict, summary + _savings(found), (*rows, *_rows(found)))


def _share(found: Sequence[Figures], part: str, whole: str) -> float:
    """A sum over searches as a fraction of another."""
    return sum(one[part] for one in found) / sum(one[whole] for one in found)


def _savings(found: Sequence[Figures]) -> str:
    """What the searches saved, as the end of a sentence."""
    if not found:
        return ""
    asked = _share(found, "images", "images_of_plain_evaluation")
    return f"; {len(found)} searches asked {asked:.0%} of the images that plain evaluation asks"


def _rows(found: Sequence[Figures]) -> list[Row]:
    """The savings in figures."""
    if not found:
        return []
    plain = 1 / _share(found, "images", "images_of_plain_evaluation")
    return [
        Row("searches: images of plain evaluation / images asked", None, plain),
        Row("searches: candidates answered from earlier ones (%)", None, 100 * _share(found, "cached", "candidates")),
        Row("searches: candidates stopped early (%)", None, 100 * _share(found, "stopped", "candidates")),
        Row("searches: candidates each", None, sum(one["candidates"] for one in found) / len(found)),
    ]


CHECK = VtabSearch()
