"""The GLUE study at full size: five tasks, eleven methods, five seeds; for a GPU.

α-LoRA with α fixed at 1 has no row of its own: it is LoRA. About a million steps of 32 examples; at 35 ms a step, which
small kernels rather than arithmetic set, that is 11 hours at most.
"""

from __future__ import annotations

from collections.abc import Sequence

from paper_checks.core import SMALL, Context, Figures, NotAvailable
from paper_checks.studies.glue.comparison import GlueFair
from paper_checks.studies.glue.study import Study


class GlueFull(GlueFair):
    """See the module's docstring."""

    id = "alpha_lora.glue_full"
    short = "α-LoRA beats LoRA on five GLUE tasks at full size."
    scale = "MiniLM-L6 (paper: RoBERTa-base)"
    words = SMALL
    where = "α-LoRA, Table 2 (six tasks, RoBERTa-base); here MiniLM-L6, five tasks"
    needs = ("data/glue", "models/minilm-l6", "a GPU, about 11 hours (estimated, not measured)")
    study = Study(
        tasks={"mrpc": None, "rte": None, "sst2": None, "mnli": None, "qnli": None},
        methods=(
            *("lora", "alpha_scheduled", "linear_probe", "alpha_joint", "glora", "dora", "alpha_scalar"),
            *("glora_fixed", "ia3", "bitfit", "full"),
        ),
        seeds=5,
        batch_size=32,
        max_length=512,
        device="auto",
    )

    def cells(self, context: Context) -> Sequence[str]:
        return self.study.cells()[:1] if context.quick else [*self.study.cells(), *self.study.costs()]

    def compute(self, context: Context, cell: str) -> Figures:
        if not _has_gpu():
            raise NotAvailable("needs a GPU (590 runs, about 11 hours there; weeks on a CPU)")
        return super().compute(context, cell)


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


CHECK = GlueFull()
