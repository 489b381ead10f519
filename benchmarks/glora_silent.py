"""What "nothing silent" costs and whether it cries wolf: a training step beside a former one, and a sweep of certify.

    ADAPT_FORMER=/path/to/a/former/checkout python -m benchmarks glora_silent

With ``ADAPT_FORMER`` the training step of ViT-S at 56 px is timed in pairs with that of the former checkout in one
process, and the two models' losses must agree in every bit. The sweep certifies healthy adapters, every structure of a
layer on models with dropout, a tied scale, a layer called twice and one never called; each must be proved.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import glora
from benchmarks.timing import row
from glora.tuning import probe
from tests.museum import models

ARCHITECTURES = (
    *("t5", "bloom", "mamba", "falcon_mamba", "wavlm", "dinov2"),
    *("resnet", "qwen2", "gpt2", "bert", "llama", "encoder"),
)
PAIRS = 48
BATCH = 8


def measure() -> list[dict[str, Any]]:
    """Rows of the sweep, and of the cost where there is a former checkout."""
    former = os.environ.get("ADAPT_FORMER")
    return sweep() + (cost(former) if former else [])


# ---------------------------------------------------------------------------------------------------------- the sweep


class Healthy(nn.Module):
    """Dropout, a layer called twice, one never called, a normalisation with running statistics."""

    def __init__(self, norm: bool, bias: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6, bias=bias), nn.Linear(6, 6, bias=bias)
        self.unused = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6) if norm else nn.Identity()
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, 6) → the same shape."""
        return self.two(torch.tanh(self.norm(self.one(self.dropout(self.one(x))))))


def sweep() -> list[dict[str, Any]]:
    """Every structure of a layer on a model that goes round through norm, bias and dtype; presets on real models."""
    count = false = unchecked = warned = 0
    for name, model, batch in (*structures(), *architectures()):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.2 * torch.randn_like(parameter))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for training in (True, False):
                probe.call(model.train(training), batch)
        alarms = [str(warning.message) for warning in caught if "past their adapters" in str(warning.message)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A bias that is added where the architecture has none is lost when it loads, as `glora.export` warns.
            certificate = glora.certify(model, batch, quick=name.endswith(", glora"))
        count += 1
        warned += bool(alarms)
        false += certificate.holds is False
        unchecked += certificate.holds is None
        if not certificate.holds or alarms:
            print(name, certificate, *alarms, sep="\n", file=sys.stderr)
    return [
        row("healthy adapters certified", count, at_least=200),
        row("of them called false", false, at_most=0),
        row("of them not to be checked", unchecked, at_most=0),
        row("of them warned of at their first calls", warned, at_most=0),
    ]


def structures() -> Iterator[tuple[str, nn.Module, probe.Batch]]:
    """A healthy model with each structure of a layer."""
    for number, config in enumerate(glora.all_layer_configs(rank=2, dropout=0.1)):
        torch.manual_seed(number)
        dtype = (torch.float32, torch.float64, torch.bfloat16)[number % 3]
        model = Healthy(norm=number % 2 == 0, bias=number % 5 != 0).to(dtype)
        fields: dict[str, Any] = {**config.to_dict(), "D": config.D if number % 5 else "none"}
        if all(fields.get(part, "none") == "none" for part in "ABCDE"):
            continue
        glora.attach(model, glora.GLoRAConfig(**fields))
        yield config.summary, model, torch.randn(8, 6, dtype=dtype)


def architectures() -> Iterator[tuple[str, nn.Module, probe.Batch]]:
    """Tiny models of real architectures with three presets each."""
    ids: probe.Batch = {"input_ids": models.ids()}
    batches: dict[str, probe.Batch] = {
        "dinov2": models.images(),
        "resnet": models.images(16),
        "wavlm": models.wave(),
        "encoder": torch.randn(3, 5, 8),
    }
    for name in [
        "t5",
        "bloom",
        "mamba",
        "falcon_mamba",
        "wavlm",
        "dinov2",
        "resnet",
        "qwen2",
        "gpt2",
        "bert",
        "llama",
        "encoder",
    ]:
        for preset in (glora.presets.lora, glora.presets.alpha_lora, glora.presets.glora):
            model = getattr(models, name)()
            target = r"convolution$" if name == "resnet" else "all-linear"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # D without a bias
                glora.attach(model, preset(2, target=target))
            yield f"{name}, {preset.__name__}", model, batches.get(name, ids)


# ----------------------------------------------------------------------------------------------------------- the cost


def cost(former: str) -> list[dict[str, Any]]:
    """Median ratio of the steps, now to former, with its 95 % interval, for LoRA, α-LoRA and GLoRA."""
    base = _vit()
    now, before = _step_maker("glora", None), _step_maker("glora", former)
    rows = []
    for name in ("lora", "alpha_lora", "glora"):
        new, old = now(copy.deepcopy(base), name), before(copy.deepcopy(base), name)
        same = all(new() == old() for _ in range(3))
        ratios = []
        for pair in range(PAIRS):
            times = {}
            for key, step in ((0, new), (1, old)) if pair % 2 else ((1, old), (0, new)):
                start = time.process_time()
                step()
                times[key] = time.process_time() - start
            ratios.append(times[0] / times[1])
        draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        rows += [
            row(f"{name}: losses agree in every bit", float(same), at_least=1),
            row(f"{name}: step, now / former, median of {PAIRS} pairs", float(np.median(ratios))),
            row(f"{name}: … lower end of its 95 % interval", float(low)),
            row(f"{name}: … upper end of its 95 % interval", float(high), at_most=1.03),
            row(f"{name}: operators a step, now / former", _operators(new) / _operators(old), at_most=1.0),
        ]
    return rows


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=56,
        patch_size=14,
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
    )
    return ViTForImageClassification(config)


def _step_maker(package: str, folder: str | None) -> Callable[[nn.Module, str], Callable[[], float]]:
    """Makes training steps with the package of a checkout, whose modules are put aside again."""
    aside = {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == package} if folder else {}
    if folder:
        sys.path.insert(0, folder)
    try:
        attach = importlib.import_module(package).attach  # the facade loads it now, while the folder is in the path
        presets = importlib.import_module(f"{package}.presets")
    finally:
        if folder:
            sys.path.remove(folder)
            for key in [key for key in sys.modules if key.split(".")[0] == package]:
                del sys.modules[key]
            sys.modules.update(aside)

    def make(model: nn.Module, preset: str) -> Callable[[], float]:
        generator = torch.Generator().manual_seed(0)
        attach(model, getattr(presets, preset)(8), generator=generator)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        x = torch.randn(BATCH, 3, 56, 56, generator=torch.Generator().manual_seed(1))
        model.train()

        def step() -> float:
            optimizer.zero_grad()
            loss = model(pixel_values=x).logits.square().mean()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return step

    return make


def _operators(step: Callable[[], float]) -> int:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as trace:
        step()
    return sum(event.count for event in trace.key_averages() if event.key.startswith("aten::"))
