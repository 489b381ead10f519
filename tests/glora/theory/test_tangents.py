"""Features of a linearised network are finite differences of its margins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from glora.theory.tangents import margins, margins_at, tangents


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Deep(nn.Module):
    """Two linear layers, the second a head; `smooth` puts a nonlinearity between them."""

    def __init__(self, width: int = 5, classes: int = 1, smooth: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.middle = nn.Tanh() if smooth else nn.Identity()
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        hidden = self.middle(self.first(x))
        return self.head(hidden.mean(dim=1) if hidden.dim() == 3 else hidden)


def few(n: int = 12, classes: int = 2, tokens: int | None = None):
    shape = (n, 6) if tokens is None else (n, tokens, 6)
    return [(torch.randn(shape, dtype=torch.float64), torch.arange(n) % classes)]


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("tokens", [None, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_features_are_finite_differences(classes, tokens, tied):
    model = Deep(classes=classes, smooth=True).double()
    batches = few(classes=max(classes, 2), tokens=tokens)
    found = tangents(model, ["first", "head"], batches, tied_bias=tied)
    for layer in found.layers:
        weight = model.get_submodule(layer.name).weight
        step = torch.randn_like(weight)
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                weight.add_(sign * 1e-5 * step)
                values.append(margins_at(model, {layer.name: 1.0}, batches))
                weight.sub_(sign * 1e-5 * step)
        difference = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close(layer.features @ step.flatten(), difference, rtol=1e-6, atol=1e-8)
        up, down = (margins_at(model, {layer.name: 1 + e}, batches, tied_bias=tied) for e in (1e-5, -1e-5))
        torch.testing.assert_close(layer.source, (up - down) / 2e-5, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(layer.own, layer.source)
        assert layer.exact == (layer.name == "head")


def test_margins():
    scores = torch.tensor([[1.0, 3.0, 2.0], [4.0, 0.0, 1.0]])
    torch.testing.assert_close(margins(scores, torch.tensor([1, 2]))[0], torch.tensor([0.5, -1.5]))
    torch.testing.assert_close(margins(scores[:, :2], torch.tensor([1, 1]))[0], torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(margins(scores[:, :1], torch.tensor([-1, 1]))[0], torch.tensor([-1.0, 4.0]))
