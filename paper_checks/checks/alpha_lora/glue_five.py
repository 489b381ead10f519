"""RTE, QNLI and MNLI of the α-LoRA paper: with SST-2 and MRPC of `glue_fair` five of its six tasks.

    paper-checks run alpha_lora.glue_five --data DIR --out paper_checks/results

Cells come in the order of their value: LoRA and α-LoRA with α trained along first, Algorithm 1 and GLoRA with balanced
steps after.
"""

from __future__ import annotations

from collections.abc import Sequence

from paper_checks.core import Context
from paper_checks.studies.glue.comparison import GlueFair
from paper_checks.studies.glue.study import Study


class GlueFive(GlueFair):
    """See the module's docstring."""

    id = "alpha_lora.glue_five"
    claim = "α-LoRA, α trained along, beats LoRA on RTE, QNLI and MNLI at equal work and with tuned learning rates."
    short = "α-LoRA beats LoRA on RTE, QNLI and MNLI, α trained along."
    shown = ("MNLI: α-LoRA − LoRA over", "points, MNLI")
    scale = "MiniLM-L6, 2,000 examples a task (paper: RoBERTa-base)"
    where = "α-LoRA, Table 2 (six tasks, RoBERTa-base); here MiniLM-L6, RTE, QNLI and MNLI, 2,000 examples of train"
    rule = (
        "As alpha_lora.glue_fair with three seeds a rate, and α trained along instead of Algorithm 1, which is "
        "reported beside it at the rate that the loss chose."
    )
    needs = ("data/glue", "models/minilm-l6", "about 8 hours of one CPU core (estimated)")
    claimed = "alpha_joint"
    study = Study(
        tasks={"rte": 2000, "qnli": 2000, "mnli": 2000},
        methods=("lora", "alpha_joint", "alpha_scheduled", "glora_balanced"),
        curve_seeds=3,
    )

    def cells(self, context: Context) -> Sequence[str]:
        if context.quick:
            return ["rte.lora.rate0.002", "rte.lora.seed0"]
        return self.study.cells()


CHECK = GlueFive()
