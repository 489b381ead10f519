"""What the vision studies would take on a GPU: one estimate for all of them, from stated numbers; nothing is measured.

Seconds are images × operations an image / operations a second.

- A forward pass of a ViT of width w with b blocks on t tokens (the class token included) has 2 operations a weight and
  token, 2 · 12bw² · t, and attention's 4bt²w.
- A training pass has three times as many: forward, the gradient through the activations, and the gradient of the
  effective weight that an element-wise low-rank A needs. Methods without one do less.
- A GPU is taken to sustain 30 TFLOP/s: a tenth of the bfloat16 peak of an A100, since an adapter that is not merged
  runs as many small kernels. This is an assumption, and hours scale with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SUSTAINED = 30e12  #: operations a second
TRAIN, VALIDATION = 800, 200  #: images of a VTAB-1K task


@dataclass(frozen=True)
class ViT:
    """Shape of a vision transformer."""

    width: int
    blocks: int
    patch: int

    def operations(self, side: int) -> float:
        """Operations of a forward pass on one image of ``side`` × ``side``."""
        tokens = (side // self.patch) ** 2 + 1
        return 24.0 * self.blocks * self.width**2 * tokens + 4.0 * self.blocks * tokens**2 * self.width


VIT_S14, VIT_B16 = ViT(384, 12, 14), ViT(768, 12, 16)


@dataclass(frozen=True)
class Work:
    """Images of a study: trained on (forward and backward, every epoch) and only asked (forward)."""

    trained: int
    asked: int

    def hours(self, vit: ViT, side: int) -> float:
        """GPU hours of this work by the rule of the module."""
        return (3 * self.trained + self.asked) * vit.operations(side) / SUSTAINED / 3600


def study(plan: Any, cells: Sequence[str]) -> Work:
    """Images of a vision study (`paper_checks.studies.vision.study.Plan`); test splits and probes, small, are left out.

    Early stopping of the searches is not counted on.
    """
    finals = sum(cell.startswith("final-") and "-probe-" not in cell for cell in cells)
    rates, supernets = (sum(cell.startswith(kind) for cell in cells) for kind in ("rate-", "supernet-"))
    trained = finals * plan.epochs * (TRAIN + VALIDATION)
    trained += (rates * plan.rate_epochs + supernets * plan.supernet_epochs) * TRAIN
    asked = supernets * len(plan.budgets) * (plan.generations + 1) * plan.population * VALIDATION
    return Work(trained, asked)


def paper_task(test: int = 20_000) -> Work:
    """Images of one task of VTAB-1K by ``configs/glora_vtab.toml``: 500 supernet epochs, 1,050 candidates, 100 epochs.

    Args:
        test: images of the test split, seen by inherited and by retrained weights; about the mean of the 19 tasks.
    """
    return Work(500 * TRAIN + 100 * (TRAIN + VALIDATION), 1050 * VALIDATION + 2 * test)
