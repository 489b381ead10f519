"""A check whose methods differ in what they cost by a known amount; measured in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glora.runs.settings import AlphaSettings, TrainingSettings
from paper_checks.core import Context, NotAvailable
from paper_checks.studies.cost import Subject

WIDE = 2048  #: numbers of the wide method: 2048² = 16 MiB, four times with gradient and Adam's two states


class Numbers:
    """Regression onto zero; its examples have lengths, and it writes down which were asked for."""

    main_metric, greater_is_better, heads = "loss", False, ()

    def __init__(self, diary: Path | None = None) -> None:
        self.diary = diary

    def build_model(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 8)).requires_grad_(False)

    def size(self, split: str) -> int:
        return 40

    def length(self, split: str, index: int) -> int:
        return index

    def batch(self, split: str, indices: Sequence[int], generator: Any = None) -> dict[str, torch.Tensor]:
        if self.diary is not None:
            with self.diary.open("a") as file:
                file.write(f"{split} {sorted(indices)}\n")
        return {"x": torch.ones(len(indices), 8)}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(batch["x"]).square().mean()

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return len(batch["x"])

    def metrics(self, model: nn.Module, split: str, *, batch_size: int = 64) -> dict[str, float]:
        raise AssertionError("nothing is evaluated")


class Costed:
    """Methods "lora" (a few numbers), "wide" and "absent"."""

    def subject(self, context: Context, method: str) -> Subject:
        if method == "absent":
            raise NotAvailable("needs the moon")
        settings = TrainingSettings(epochs=3, batch_size=4, evaluate_every=5, device="cpu", alpha=AlphaSettings())

        def adapt(model: nn.Module) -> nn.Module:
            model[0].requires_grad_(True)
            if method == "wide":
                model.append(nn.Linear(8, WIDE, bias=False))
                model.append(nn.Linear(WIDE, WIDE, bias=False))
            return model

        return Subject(Numbers(context.out / "diary.txt"), settings, adapt)
