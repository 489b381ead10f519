"""What is adapted and how many numbers that takes: the answer of `attach` and of `count_parameters`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from torch import nn

from glora.config import TENSORS, LayerConfig
from glora.layer.geometry import op_for
from glora.model.targets import Selection, base_modules


@dataclass(frozen=True)
class LayerReport:
    """One adapted layer.

    Attributes:
        name: name of the layer in the model.
        out_features, in_features: shape of its weight as a matrix.
        config: the structure of its support tensors.
        parameters: trainable parameters of each support tensor.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.alpha_lora(rank=4, target=["0"]))
    >>> report.layers[0].name, report.layers[0].parameters["B"]
    ('0', 192)
    """

    name: str
    out_features: int
    in_features: int
    config: LayerConfig
    parameters: dict[str, int]

    @property
    def total(self) -> int:
        """Trainable parameters of the layer's adapter."""
        return sum(self.parameters.values())

    @property
    def type(self) -> str:
        """The layer's role in the model: the last component of its name that is no number."""
        return next((part for part in reversed(self.name.split(".")) if not part.isdigit()), self.name)


@dataclass(frozen=True)
class Report:
    """The adapted layers of a model; ``str(report)`` is a table.

    Attributes:
        layers: one entry a layer.
        saved: parameters of every module that is trained in full.
        heads: output layers that were left alone.
        unsupported: modules that the pattern matches but that are of no supported type.
        base_parameters: parameters of the model without adapters.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.alpha_lora(rank=4, target=["0"]))
    >>> report.trainable
    224
    """

    layers: tuple[LayerReport, ...]
    saved: dict[str, int]
    heads: tuple[str, ...]
    unsupported: tuple[str, ...]
    base_parameters: int

    @property
    def adapter_parameters(self) -> int:
        """Trainable parameters of the support tensors."""
        return sum(layer.total for layer in self.layers)

    @property
    def trainable(self) -> int:
        """All trainable parameters: support tensors and saved modules."""
        return self.adapter_parameters + sum(self.saved.values())

    @property
    def percentage(self) -> float:
        """Trainable parameters in percent of all parameters, adapters included."""
        return 100 * self.trainable / max(1, self.base_parameters + self.adapter_parameters)

    @property
    def by_layer(self) -> dict[str, int]:
        """Trainable parameters of every layer."""
        return {layer.name: layer.total for layer in self.layers}

    @property
    def by_tensor(self) -> dict[str, int]:
        """Trainable parameters of A … E over all layers."""
        return {name: sum(layer.parameters[name] for layer in self.layers) for name in TENSORS}

    @property
    def by_type(self) -> dict[str, int]:
        """Trainable parameters by the layers' role ("qkv", "fc1" …)."""
        counts: Counter[str] = Counter()
        for layer in self.layers:
            counts[layer.type] += layer.total
        return dict(counts)

    def __str__(self) -> str:
        rows: dict[tuple[str, str, str], list[int]] = {}
        for layer in self.layers:
            # Layers that differ only in their numbers share a line.
            pattern = re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)", "*", layer.name)
            key = (pattern, f"{layer.out_features}×{layer.in_features}", layer.config.summary)
            rows.setdefault(key, []).append(layer.total)
        table = [("layer", "number", "shape", "tensors", "parameters")]
        for (pattern, shape, summary), totals in rows.items():
            table.append((pattern, str(len(totals)), shape, summary, f"{sum(totals):,}"))
        for name, count in self.saved.items():
            table.append((name, "1", "", "trained in full", f"{count:,}"))
        widths = [max(len(row[column]) for row in table) for column in range(5)]
        lines = [
            "  ".join(
                cell.rjust(width) if column in (1, 4) else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        total = self.base_parameters + self.adapter_parameters
        lines.append(f"trainable {self.trainable:,} of {total:,} ({self.percentage:.4f} %)")
        for label, names in (("output layers left alone", self.heads), ("unsupported", self.unsupported)):
            if names:
                lines.append(f"{label}: {', '.join(names)}")
        return "\n".join(lines)


def describe(model: nn.Module, selection: Selection) -> Report:
    """The report of a selection on a model, adapted already or not."""
    modules = dict(base_modules(model))
    layers = []
    for name, config in selection.layers.items():
        op = op_for(modules[name])
        assert op is not None
        rows, cols = op.matrix(modules[name].weight).shape  # type: ignore[arg-type]
        counts = config.count(rows, cols, bias=modules[name].bias is not None)
        layers.append(LayerReport(name, rows, cols, config, counts))
    saved = {name: _size(modules[name]) for name in selection.saved}
    own = {id(p): p.numel() for module in modules.values() for p in module._parameters.values() if p is not None}
    return Report(tuple(layers), saved, selection.heads, selection.unsupported, sum(own.values()))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
