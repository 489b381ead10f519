"""What steps cost: a training step of a balanced structure against the same structure raw."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn

import glora
from benchmarks.timing import row

PAIRS = 48
DIM, HIDDEN, TOKENS, DEPTH = 384, 1536, 544, 2  # blocks of a ViT-S on 32 images of 56 px
STRUCTURES: dict[str, dict[str, Any]] = {
    "fixed GLoRA (A, B, C low-rank, D, E)": {"A": "lora", "B": "lora", "C": "lora", "D": "vector", "E": "vector"},
    "vectors (A, B, C, D, E)": {"A": "vector", "B": "vector", "C": "vector", "D": "vector", "E": "vector"},
    "SSF": {"A": "vector", "D": "vector", "tie_a_d": True, "E": "vector"},
}


def measure() -> list[dict[str, Any]]:
    """Upper end of the 95 % interval of the median ratio, balanced over raw, from interleaved pairs."""
    torch.set_num_threads(1)
    return [row(f"training step, {name}: balanced / raw, upper 95 %", high(fields), at_most=1.03)
            for name, fields in STRUCTURES.items()]  # fmt: skip


def high(fields: dict[str, Any]) -> float:
    """The upper end for one structure."""
    x = torch.randn(TOKENS, DIM)
    models = []
    for steps in ("raw", "balanced"):
        torch.manual_seed(0)
        blocks = [nn.Sequential(nn.Linear(DIM, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, DIM)) for _ in range(DEPTH)]
        model = nn.Sequential(*blocks)
        glora.attach(model, glora.GLoRAConfig(rank=4, steps=steps, **fields))
        if steps == "balanced":
            glora.balance(model, x)
        models.append(model)

    def once(model: nn.Module) -> float:
        start = time.process_time()  # other programs do not count
        model(x).square().mean().backward()
        return time.process_time() - start

    for model in models:
        once(model)
    ratios = []
    for number in range(PAIRS):
        order = models if number % 2 else models[::-1]
        times = {id(model): once(model) for model in order}
        ratios.append(times[id(models[1])] / times[id(models[0])])
    draws = np.random.default_rng(0).choice(ratios, (2000, PAIRS))
    return float(np.quantile(np.median(draws, axis=1), 0.975))
