"""Does the search find better subnets than chance does?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paper_checks.core import Context, Figures, Outcome, Row
from paper_checks.glora.vtab_statistics import decide, paired, table
from paper_checks.glora.vtab_study import Study


class VtabSearch(Study):
    """See the module's docstring."""

    id = "glora.vtab_search"
    claim = "The subnet that evolution finds is better than a random subnet of the same size."
    where = "GLoRA, Section 2.5 (evolutionary search); no ablation against random subnets is reported"
    rule = (
        "Both subnets are trained afresh on train800val200 at learning rates chosen alike, a new random subnet for "
        "each seed. Reproduced (not reproduced) if the 95 % interval of the paired test difference lies above "
        "(below) 0; else undecided. Inherited weights are reported beside it."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return list(dict.fromkeys(self.runs(("glora_searched", "glora_random"))))

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        difference = paired(cells, "glora_searched", "glora_random")
        verdict, summary = decide(difference, "searched − random subnet")
        rows = []
        if difference is not None:
            rows.append(Row("searched − random (points)", None, difference.mean, difference.error))
        results = table(cells)
        for (task, method), values in results.items():
            if method in ("glora_searched", "glora_random", "glora_inherited"):
                rows.append(Row(f"{task}: {method} (test %)", None, sum(values) / len(values)))
        for cell, figures in cells.items():
            if cell.startswith("supernet"):
                accuracy = figures["search"]["validation_accuracy"]
                rows.append(Row(f"{cell}: best on val200 with inherited weights (%)", None, accuracy))
        return Outcome(verdict, summary, tuple(rows))


CHECK = VtabSearch()
