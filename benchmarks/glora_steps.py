"""What steps cost: a training step of a balanced structure against the same structure raw.

Seconds are noisy on a machine with other programs, so the operators that both run are counted beside them: an operator
of these sizes costs microseconds, a layer's training step milliseconds.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import glora
from benchmarks.timing import row

PAIRS = 48
DIM, HIDDEN, TOKENS, DEPTH = 384, 1536, 544, 2  # blocks of a ViT-S on 32 images of 56 px
STRUCTURES: dict[str, dict[str, Any]] = {
    "fixed GLoRA (A, B, C low-rank, D, E)": {"A": "lora", "B": "lora", "C": "lora", "D": "vector", "E": "vector"},
    "vectors (A, B, C, D, E)": {"A": "vector", "B": "vector", "C": "vector", "D": "vector", "E": "vector"},
    "SSF": {"A": "vector", "D": "vector", "tie_a_d": True, "E": "vector"},
    "BitFit": {"E": "vector"},
}
#: Operators that compute nothing.
VIEWS = ("view", "expand", "aten.t.", "detach", "alias", "squeeze", "select", "slice")


def measure() -> list[dict[str, Any]]:
    """Upper end of the 95 % interval of the median ratio, balanced over raw, from interleaved pairs."""
    torch.set_num_threads(1)
    found = []
    for name, fields in STRUCTURES.items():
        found.append(row(f"training step, {name}: balanced / raw, upper 95 %", high(fields), at_most=1.03))
        raw, balanced = (operators(model(fields, steps, blocks=1)) for steps in ("raw", "balanced"))
        found.append(row(f"operators a layer, {name}: balanced − raw", (balanced - raw) / 2, at_most=4))
    return found


def model(fields: dict[str, Any], steps: str, blocks: int = DEPTH) -> nn.Module:
    """Blocks of two layers with a structure, its steps measured if they are balanced."""
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Linear(DIM, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, DIM)) for _ in range(blocks)]
    found = nn.Sequential(*parts)
    glora.attach(found, glora.GLoRAConfig(rank=4, steps=steps, **fields))
    if steps == "balanced":
        glora.balance(found, torch.randn(TOKENS, DIM))
    return found


class _Counter(TorchDispatchMode):
    """Counts the operators that run inside its ``with`` block."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not any(name in str(func) for name in VIEWS)
        return func(*args, **(kwargs or {}))


def operators(model: nn.Module) -> int:
    """Operators of one training step."""
    with _Counter() as counter:
        model(torch.randn(8, DIM)).square().mean().backward()
    return counter.count


def high(fields: dict[str, Any]) -> float:
    """The upper end for one structure."""
    x = torch.randn(TOKENS, DIM)
    models = [model(fields, steps) for steps in ("raw", "balanced")]

    def once(one: nn.Module) -> float:
        start = time.process_time()  # other programs do not count
        one(x).square().mean().backward()
        return time.process_time() - start

    for one in models:
        once(one)
    ratios = []
    for number in range(PAIRS):
        order = models if number % 2 else models[::-1]
        times = {id(one): once(one) for one in order}
        ratios.append(times[id(models[1])] / times[id(models[0])])
    draws = np.random.default_rng(0).choice(ratios, (2000, PAIRS))
    return float(np.quantile(np.median(draws, axis=1), 0.975))
