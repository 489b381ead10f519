"""A door to `glora.training.alpha`: α-LoRA's Algorithm 1, and which layers share a scale."""

from glora.training.alpha import SHARES, AlphaSchedule, alpha_parameters, gradients, share_alpha
from glora.training.batches import BatchOrder, mix, split_for_alpha

__all__ = [
    "SHARES",
    "AlphaSchedule",
    "BatchOrder",
    "alpha_parameters",
    "gradients",
    "mix",
    "share_alpha",
    "split_for_alpha",
]
