"""Training step of each method of the vision study at ViT-S size, as a multiple of LoRA's with as many parameters.

Twelve blocks of width 384 with random weights, 32 images of 56 px, the structures of ``glora.vtab`` at its budget.
Steps (forward, backward, AdamW) are taken in turn. A searched subnet costs what a random one does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import glora
from benchmarks.glora_layer import DEVICE, clock, training_step
from benchmarks.timing import interleaved, row
from paper_checks.statistics.threads import one_thread

METHODS = ("lora", "alpha_lora", "glora_fixed", "glora_random", "bitfit", "ssf", "full")
SIDE, BATCH, ROUNDS = 56, 32, 7


def vit() -> nn.Module:
    """A ViT-S/14 with random weights, the same at every call, and a head for ten classes."""
    from transformers import Dinov2Config, Dinov2Model

    from glora.tasks.vision.models import wrap

    torch.manual_seed(0)
    backbone = Dinov2Model(Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12))
    return wrap(backbone, 10, side=SIDE, generator=torch.Generator().manual_seed(0))


def adapted(method: str) -> nn.Module:
    """The model as the study trains it with a method."""
    from paper_checks.studies.vision.methods import configuration
    from paper_checks.studies.vision.study import BUDGET

    model = vit()
    if method == "full":
        model.requires_grad_(True)
    else:
        generator = torch.Generator().manual_seed(0)
        glora.attach(model, configuration(method, BUDGET, vit, ["head"]), generator=generator)
    return model.to(DEVICE).train()


def measure() -> list[dict[str, Any]]:
    """Seconds of LoRA's step, and each method's as a multiple of it."""
    from paper_checks.studies.vision.methods import label

    with one_thread(DEVICE == "cpu"):
        images = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        steps = [training_step(adapted(method), images) for method in METHODS]
        seconds = dict(zip(METHODS, interleaved(*steps, rounds=ROUNDS, clock=clock), strict=True))
    size = f"ViT-S at {SIDE} px, {BATCH} images"
    return [
        row(f"{size}: LoRA, seconds a training step", seconds["lora"]),
        *(row(f"{size}: {label(m)} / LoRA", seconds[m] / seconds["lora"]) for m in METHODS if m != "lora"),
    ]
