"""The vision study at a GPU's size: 224 px, three tasks, three budgets, 100 epochs, five seeds; not run yet.

    paper-checks run glora.vtab_gpu --data DIR

The budgets are .05, .1 and .2 million parameters. α-LoRA of rank 1 on all 72 linear layers has .124 million already, so
LoRA, α-LoRA and fixed GLoRA adapt query and value here (LoRA's published .29 million on ViT-B are rank 8 on these two);
subnets may take any layer. One supernet a task and seed is searched at each budget.

Expected cost: 35.8 million images forward and backward through a ViT-S/14 at 224 px and 9.4 million forward, about 13
GPU hours in all by the estimate of `paper_checks.studies.vision.gpu_hours` (98 px: 2.3). Nothing of this is measured.
"""

from __future__ import annotations

from paper_checks.core import SMALL, Context, Figures, NotAvailable
from paper_checks.studies.vision.comparison import VtabStudy
from paper_checks.studies.vision.methods import EXTRA, QUERY_VALUE
from paper_checks.studies.vision.study import Plan


class VtabGPU(VtabStudy):
    """See the module's docstring; claim and statistics are those of `VtabStudy`."""

    id = "glora.vtab_gpu"
    short = "GLoRA, searched, beats LoRA on three tasks at 224 px."
    scale = "ViT-S/14 at 224 px (paper: ViT-B/16)"
    words = SMALL
    where = "GLoRA, Table 1 (VTAB-1K); here ViT-S/14 at 224 px on three VTAB-1K-shaped tasks"
    rule = (
        "Protocol and intervals as in glora.vtab, on three tasks at each of three budgets. Reproduced if at every "
        "budget the interval of the paired difference, searched GLoRA minus LoRA, lies above 0; not reproduced if at "
        "one it lies below; else undecided."
    )
    needs = ("data/vtab", "models/vit-s14", "a GPU", "about 13 GPU hours (estimated, not measured)")
    plan = Plan(
        tasks=("cifar10", "dtd10", "gtsrb"),
        side=224,
        seeds=5,
        rate_epochs=30,
        epochs=100,
        supernet_epochs=300,
        batch_size=64,
        generations=20,
        population=50,
        precision="bfloat16",
        budgets=(50_000, 100_000, 200_000),
        target=QUERY_VALUE,
        extra=EXTRA,
    )

    @property
    def home(self) -> str:
        """A folder of its own: another study."""
        return self.id

    def compute(self, context: Context, cell: str) -> Figures:
        try:
            import torch
        except ImportError:
            raise NotAvailable("needs PyTorch; pip install 'rescale-and-adapt[hf,learn]'") from None
        if not torch.cuda.is_available():
            raise NotAvailable("needs a GPU; glora.vtab is the study at a CPU's size")
        return super().compute(context, cell)


CHECK = VtabGPU()
