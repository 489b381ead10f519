"""The vision study a second time, with balanced steps: what does GLoRA do against LoRA if every tensor trains?

    paper-checks run glora.vtab_balanced --data DIR --out paper_checks/results

Resumable cell by cell; about four hours of one core for three seeds. The protocol is `glora.vtab`'s, but GLoRA's
tensors have measured steps (`glora.layer.steps`), the grids have factors of 2 to 2.5, LoRA's the same points, and the
supernet's rate is chosen on val200 by the mean over 20 random subnets of the budget. LoRA's steps are raw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paper_checks.core import SMALL, Context, Figures, Outcome, Row
from paper_checks.studies.vision.methods import label
from paper_checks.studies.vision.statistics import decide, paired, table
from paper_checks.studies.vision.study import Plan, Study

#: The order is that of their value: LoRA, fixed and searched come first.
METHODS = ("lora", "glora_fixed", "glora_searched", "glora_random", "ssf", "bitfit")
GOAL = -1.0  #: points: searched GLoRA is "at LoRA's level" if the interval lies above


class VtabBalanced(Study):
    """See the module's docstring."""

    id = "glora.vtab_balanced"
    claim = "With balanced steps, searched GLoRA beats LoRA at equal parameters on VTAB-1K-shaped tasks."
    where = "GLoRA, Table 1 (VTAB-1K), whose tensors share a rate; here ViT-S/14 at 56 px with steps of our own"
    rule = (
        "Rates are chosen on val200 from a grid in factors of 2 to 2.5 that is extended while its best lies at an end; "
        "test is looked at once. Reproduced (not reproduced) if the 95 % interval of the paired test difference, "
        f"searched GLoRA minus LoRA, lies above (below) 0; else undecided. Whether it lies above {GOAL:g} point is "
        "reported, and whether each method's best rate lies within a factor 2.5 of LoRA's."
    )
    short = "With balanced steps, searched GLoRA beats LoRA of the same size."
    scale = "ViT-S/14 at 56 px (paper: ViT-B/16)"
    words = SMALL
    needs = ("data/vtab", "models/vit-s14", "PyTorch, transformers and Pillow", "about 4 h of one core")
    plan = Plan(
        rates=(5e-4, 1e-3, 2e-3, 5e-3),
        supernet_rates=(4e-4, 1e-3, 2.5e-3),
        extra=("ssf", "bitfit"),
        steps="balanced",
    )

    @property
    def home(self) -> str:
        """A folder of its own: another study."""
        return self.id

    def cells(self, context: Context) -> Sequence[str]:
        first = [f"suprate-{task}-{rate:g}" for task in self.plan.tasks for rate in self.plan.supernet_rates]
        return list(dict.fromkeys([*first, *self.runs(METHODS)]))

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        difference = paired(cells, "glora_searched", "lora")
        verdict, summary = decide(difference, "searched GLoRA − LoRA", len(self.plan.tasks))
        rows = []
        if difference is not None:
            above = "yes" if difference.interval[0] > GOAL else "no"
            rows.append(Row("searched GLoRA − LoRA (points, 95 % interval)", None, difference.text))
            rows.append(Row(f"the interval lies above {GOAL:g} point", None, above))
        for (task, method), values in table(cells).items():
            rows.append(Row(f"{task}: {label(method)} (test %)", None, float(np.mean(values))))
        for task in self.plan.tasks:
            best = {method: rate for method in METHODS if (rate := best_rate(cells, task, method)) is not None}
            for method, rate in best.items():
                share = f" ({rate / best['lora']:.2g} × LoRA's)" if "lora" in best else ""
                rows.append(Row(f"{task}: best rate of {label(method)} on val200", None, f"{rate:g}{share}"))
        return Outcome(verdict, summary, tuple(rows))


def best_rate(cells: Mapping[str, Figures], task: str, method: str) -> float | None:
    """The rate with the best validation accuracy among the cells there are; the smallest of equals."""
    found = [
        (-figures["validation"], figures["lr"])
        for cell, figures in cells.items()
        if cell.startswith(f"rate-{task}-{method}-")
    ]
    return min(found)[1] if found else None


CHECK = VtabBalanced()
