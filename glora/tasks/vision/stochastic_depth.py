"""Stochastic depth: in training whole residual branches are left out for some of the images (Huang et al., 2016).

timm has it built in; this module brings it to the vision transformers of transformers, which either have a module for
it in every block or, as ViT and DeiT do, end both branches of a block in one dropout module.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """``branch · keep / (1 − rate)`` with ``keep`` 0 or 1 for each image; the identity in evaluation.

    Draws from torch's global generator, as dropout does.

    Args:
        rate: probability of leaving the branch out, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(n, …) → the same shape."""
        if not self.training or self.rate == 0.0:
            return branch
        keep = torch.rand((len(branch), *(1,) * (branch.dim() - 1)), device=branch.device) >= self.rate
        return branch * keep / (1.0 - self.rate)

    def extra_repr(self) -> str:
        """What ``print(model)`` says."""
        return f"rate={self.rate:g}"


def add_stochastic_depth(backbone: nn.Module, rate: float, name: str = "backbone") -> None:
    """Give the blocks of a transformers vision model rates that rise evenly from 0 in the first to `rate` in the last.

    Args:
        backbone: changed in place.
        rate: of the last block, in [0, 1); 0 changes nothing.
        name: what messages call the model.

    Raises:
        ValueError: the model's blocks have no place for it.
    """
    if rate == 0.0:
        return
    places = [(block, "drop_path") for block in backbone.modules() if "drop_path" in dict(block.named_children())]
    places = places or [(block, "dropout") for block in backbone.modules() if _ends_in_dropout(block)]
    if not places:
        raise ValueError(
            f"drop_path={rate}: the blocks of model {name!r} have no place for stochastic depth; take a ViT, DeiT, "
            "DINOv2 or BEiT, a model of timm (timm:<name>), or drop_path = 0"
        )
    for (block, place), own in zip(places, torch.linspace(0.0, rate, len(places)).tolist(), strict=True):
        drop: nn.Module = DropPath(own)
        if place == "dropout":
            drop = nn.Sequential(getattr(block, place), drop)
        setattr(block, place, drop)


def _ends_in_dropout(block: nn.Module) -> bool:
    """Whether a block is ViT's: attention and mlp, and one dropout that both branches pass last."""
    children = dict(block.named_children())
    return isinstance(children.get("dropout"), nn.Dropout) and {"attention", "mlp"} <= children.keys()
