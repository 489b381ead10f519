"""Does GLoRA beat LoRA with a handful of images a class?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paper_checks.core import Context, Figures, Outcome, Row
from paper_checks.glora.vtab_statistics import decide, paired, standard_error
from paper_checks.glora.vtab_study import FEW_SHOT, SHOTS, Study


class VtabFewShot(Study):
    """See the module's docstring."""

    id = "glora.vtab_fewshot"
    claim = "GLoRA is more accurate than LoRA with 1 to 16 images a class."
    where = "GLoRA, Figure 3 (few-shot); here cifar10, ViT-S/14 at 56 px"
    rule = (
        "1, 2, 4, 8 and 16 images a class, three draws each, learning rates and the searched structure from the full "
        "training set. Reproduced (not reproduced) if the 95 % interval of the paired difference over all of them "
        "lies above (below) 0; else undecided."
    )

    def cells(self, context: Context) -> Sequence[str]:
        first = [cell for cell in self.runs(FEW_SHOT) if "cifar10" in cell and not cell.startswith("final")]
        few = [
            f"few-cifar10-{method}-k{shots}-s{seed}"
            for seed in range(self.plan.seeds)
            for shots in SHOTS
            for method in FEW_SHOT
        ]
        return [*dict.fromkeys(first), *few]

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows = []
        for shots in SHOTS:
            for method in FEW_SHOT:
                prefix = f"few-cifar10-{method}-k{shots}-"
                values = [figures["accuracy"] for cell, figures in cells.items() if cell.startswith(prefix)]
                if values:
                    name = f"{method}, {shots} a class (test %)"
                    rows.append(Row(name, None, float(np.mean(values)), standard_error(values)))
        verdict, summary = decide(paired(cells, "glora_searched", "lora", "few"), "searched GLoRA − LoRA, few-shot")
        return Outcome(verdict, summary, tuple(rows))


CHECK = VtabFewShot()
