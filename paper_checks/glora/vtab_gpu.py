"""The vision study at a GPU's size: 224 px, three tasks, 100 epochs, five seeds; one command, not run yet.

    paper-checks run glora.vtab_gpu --data DIR

Expected cost: about 15 million images forward and backward through a ViT-S at 224 px and as many forward, two to four
hours on one data-centre GPU in bfloat16 (estimated from operation counts, not measured).
"""

from __future__ import annotations

from paper_checks.core import Context, Figures, NotAvailable
from paper_checks.glora.vtab import VtabStudy
from paper_checks.glora.vtab_study import Plan


class VtabGPU(VtabStudy):
    """See the module's docstring; claim, rule and statistics are those of `VtabStudy`."""

    id = study = "glora.vtab_gpu"
    where = "GLoRA, Table 1 (VTAB-1K); here ViT-S/14 at 224 px on three VTAB-1K-shaped tasks"
    needs = ("data/vtab", "models/vit-s14", "a GPU", "about 3 GPU hours")
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
    )

    def compute(self, context: Context, cell: str) -> Figures:
        try:
            import torch
        except ImportError:
            raise NotAvailable("needs PyTorch; pip install 'rescale-and-adapt[hf,learn]'") from None
        if not torch.cuda.is_available():
            raise NotAvailable("needs a GPU; glora.vtab is the study at a CPU's size")
        return super().compute(context, cell)


CHECK = VtabGPU()
