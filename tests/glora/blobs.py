"""A task without files, and short trainings on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import glora
from glora.runs.config import RunConfig
from glora.runs.folder import Run
from glora.runs.settings import AlphaSettings, TrainingSettings


@dataclass(frozen=True)
class Blobs:
    """Two Gaussian clouds: a task without files. It keeps a diary of the batches it handed out."""

    size_: int = 60
    noise: float = 0.5
    poison: int | None = None  # the number of the batch whose loss is not finite
    diary: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    main_metric = "accuracy"
    greater_is_better = True
    heads = ("head",)

    def check(self) -> None: ...

    def build_model(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 8), nn.Tanh())
        return _Net(body)

    def size(self, split: str) -> int:
        return self.size_

    def batch(self, split: str, indices: Sequence[int], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        offset = {"train": 0, "validation": 1000, "test": 2000}.get(split, 0)
        self.diary.append((split, tuple(indices)))
        x = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(offset + i)) for i in indices])
        y = torch.tensor([i % 2 for i in indices])
        x = x + 2.0 * y[:, None]
        if generator is not None:
            x = x + self.noise * torch.randn(x.shape, generator=generator)
        return {"x": x, "y": y}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        poisoned = self.poison is not None and len(self.diary) >= self.poison
        return loss * float("nan") if poisoned else loss

    def weight(self, batch: dict[str, Tensor]) -> float:
        return len(batch["y"])

    @torch.no_grad()
    def metrics(self, model: nn.Module, split: str, *, batch_size: int = 64) -> dict[str, float]:
        model.eval()
        batch = self.batch(split, range(self.size(split)))
        correct = model(batch["x"]).argmax(1) == batch["y"]
        model.train()
        return {"accuracy": 100.0 * float(correct.float().mean())}


class _Net(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


#: Where a fresh process finds this module and the package.
ROOT = str(Path(__file__).parents[2])
SETTINGS = TrainingSettings(steps=24, batch_size=8, lr=1e-2, alpha=AlphaSettings(every=3, lr=1e-2), device="cpu")


def prepared(task: Blobs, **options: Any) -> nn.Module:
    model = task.build_model(0)
    config = glora.presets.alpha_lora(rank=2, target="body", modules_to_save=("head",), **options)
    glora.attach(model, config, generator=torch.Generator().manual_seed(0))
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def make_run(folder: Path, settings: TrainingSettings, *, resume: bool = False) -> Run:
    config = RunConfig(task={"name": "blobs"}, method={"name": "alpha_lora"}, training=settings, out=str(folder))
    return Run.create(config, resume=resume).start()


RESUMABLE = replace(SETTINGS, steps=30, evaluate_every=5, save_every=2, log_every=4)
LONG = replace(SETTINGS, steps=240, evaluate_every=60, save_every=10, log_every=4)
