"""Pictures of configurations and searches (matplotlib, imported when used)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glora.config import TENSORS
from glora.model.report import Report
from glora.search.loop import SearchResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Light to dark: how much of a tensor a structure uses.
SHADES = {"none": "#f1f3f5", "scalar": "#c3d3e6", "vector": "#6f95c4", "lora": "#1b4f8a"}


def structures(report: Report) -> Figure:
    """Which structure each support tensor of each layer has, and the parameters of each layer type.

    Args:
        report: what `glora.attach` or `glora.count_parameters` returns.

    Returns:
        A matplotlib Figure: a map (layers × A … E), and bars by layer type.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    layers = report.layers
    figure = Figure(figsize=(8.5, max(2.8, 0.13 * len(layers) + 1.2)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    colours = {name: tuple(int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5)) for name, shade in SHADES.items()}
    image = np.array([[colours[getattr(layer.config, tensor)] for tensor in TENSORS] for layer in layers])
    left.imshow(image.reshape(len(layers), len(TENSORS), 3), aspect="auto", interpolation="nearest")
    left.set_xticks(range(len(TENSORS)), TENSORS)
    left.set_yticks(range(len(layers)), [_short(layer.name) for layer in layers], fontsize=min(8, 380 / len(layers)))
    left.set_title("structure of each support tensor", fontsize=9)
    left.legend(
        handles=[Patch(color=shade, label=name) for name, shade in SHADES.items()],
        loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=4, fontsize=7, frameon=False,
    )  # fmt: skip
    totals: dict[str, np.ndarray] = {}
    for layer in layers:
        counts = np.array([layer.parameters[tensor] for tensor in TENSORS])
        totals[layer.type] = totals.get(layer.type, np.zeros(len(TENSORS))) + counts
    bottom = np.zeros(len(totals))
    for number, tensor in enumerate(TENSORS):
        heights = np.array([counts[number] for counts in totals.values()])
        right.bar(list(totals), heights, bottom=bottom, label=tensor, color=_TENSOR_COLOURS[number])
        bottom += heights
    right.set_ylabel("parameters", fontsize=9)
    right.set_title("parameters by layer type and tensor", fontsize=9)
    right.tick_params(labelsize=8)
    right.spines[["top", "right"]].set_visible(False)
    right.legend(fontsize=7.5, frameon=False)
    return figure


def progress(found: SearchResult) -> Figure:
    """The best candidate inside the budget so far, over the course of a search.

    Beside it stands every candidate that was asked to the end, those outside the budget (knapsack's) included.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axis = figure.subplots()
    exact = [candidate for candidate in found.candidates if candidate.exact]
    numbers = [candidate.number for candidate in exact]
    values = np.array([found.value(candidate) for candidate in exact])
    best = np.maximum if found.metric == "accuracy" else np.minimum
    inside = np.array([found.budget.holds(candidate.parameters) for candidate in exact])
    axis.plot(numbers, values, ".", color="#8d99a6", markersize=4, label="candidates asked to the end")
    axis.step(
        np.array(numbers)[inside], best.accumulate(values[inside]), where="post", color="#d1495b",
        label="best inside the budget so far",
    )  # fmt: skip
    axis.set_xlabel("candidate", fontsize=9)
    axis.set_ylabel(f"validation {found.metric}{' (%)' if found.metric == 'accuracy' else ''}", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7.5, frameon=False)
    return figure


_TENSOR_COLOURS: Sequence[str] = ("#1b4f8a", "#d1495b", "#2a9d6f", "#e09f3e", "#6a4c93")


def _short(name: str) -> str:
    """The last parts of a layer's name, its number included: ``3.mlp.fc1``."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[-1] :]) if numbers else name
