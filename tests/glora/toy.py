"""A toy task for searches: points on a circle, a network of two layers, answers judged one by one."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

import glora
from glora.engines.evolution import Evolution
from glora.engines.space import Budget
from glora.search.supernet import SuperNet


class Net(nn.Module):
    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.second = nn.Linear(16, 12, bias=bias)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.tanh(self.first(x)))))


class Points:
    """Three classes of points; the splits are different draws."""

    main_metric, greater_is_better, heads = "accuracy", True, ("head",)

    def __init__(self, size: int = 60, splits: tuple[str, ...] = ("train", "validation")) -> None:
        self.data = {}
        centres = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
        for number, split in enumerate(splits):
            generator = torch.Generator().manual_seed(number + 1)
            labels = torch.randint(3, (size,), generator=generator)
            self.data[split] = (centres[labels] + 1.2 * torch.randn(size, 6, generator=generator), labels)
        self.reads: list[str] = []

    def size(self, split):
        return len(self.data[split][1])

    def batch(self, split, indices, generator=None):
        self.reads.append(split)
        x, y = self.data[split]
        return {"x": x[list(indices)], "labels": y[list(indices)]}

    def loss(self, model, batch):
        return F.cross_entropy(model(batch["x"]), batch["labels"])

    def weight(self, batch):
        return float(len(batch["labels"]))

    def correct(self, model, batch):
        return model(batch["x"]).argmax(-1) == batch["labels"]

    def metrics(self, model, split, *, batch_size=64):
        x, y = self.data[split]
        with torch.no_grad():
            return {"accuracy": float((model(x).argmax(-1) == y).float().mean())}

    def check(self):
        pass

    def build_model(self, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Net()


def toy_supernet(rank: int = 3, seed: int = 0, *, bias: bool = True, dtype: torch.dtype = torch.float32) -> SuperNet:
    """A supernet with random numbers in every support tensor, as if trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Net(bias).to(dtype)
        supernet = SuperNet(
            model, rank, modules_to_save=["head"], generator=torch.Generator().manual_seed(seed), steps="raw"
        )
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.5 * torch.randn_like(parameter)
    return supernet


def bare(supernet: SuperNet) -> nn.Module:
    """The supernet's base model without it."""
    model = copy.deepcopy(supernet.model)

    glora.detach(model)
    return model


BUDGET = Budget(150, 60)


def evolution(supernet, seed=0, **options):
    settings = {"generations": 5, "population": 12, "parents": 4, "mutations": 6, "crossovers": 6, **options}
    return Evolution(supernet.space, BUDGET, seed=seed, **settings)
