"""House style of the plots: theory is a line, simulation is dots with error bars (±2 standard errors)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: One colour a series, told apart in grey print and by the colour-blind.
COLOURS = ("#1b4f8a", "#d1495b", "#2a9d6f", "#e09f3e", "#6a4c93", "#5c6b73")
GREY = "#8d99a6"


def panels(columns: int, rows: int = 1, *, width: float = 3.6, height: float = 3.0) -> tuple[Figure, Any]:
    """A figure of ``rows`` × ``columns`` axes of ``width`` × ``height`` inches, and the array of its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.tick_params(labelsize=8)
        axis.title.set_fontsize(9)
    return figure, axes


def name_axes(axis: Axes, x: str, y: str, title: str = "") -> None:
    """Axis labels and title in the house sizes."""
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.set_title(title, fontsize=9)


def theory(axis: Axes, x: ArrayLike, y: ArrayLike, *, colour: str = COLOURS[0], label: str = "theory") -> None:
    """A line for a prediction."""
    axis.plot(np.asarray(x, dtype=float), np.asarray(y, dtype=float), color=colour, linewidth=1.4, label=label)


def dots(
    axis: Axes,
    x: ArrayLike,
    y: ArrayLike,
    error: ArrayLike,
    *,
    colour: str = COLOURS[1],
    label: str = "simulation",
) -> None:
    """Dots with bars of ±2 standard errors for what was measured."""
    axis.errorbar(
        np.asarray(x, dtype=float),
        np.asarray(y, dtype=float),
        yerr=2.0 * np.asarray(error, dtype=float),
        fmt="o",
        markersize=3.2,
        color=colour,
        ecolor=colour,
        elinewidth=1.0,
        capsize=2,
        label=label,
        zorder=3,
    )


def legend(axis: Axes, **options: Any) -> None:
    """A small legend without a frame."""
    axis.legend(fontsize=7.5, frameon=False, **options)
