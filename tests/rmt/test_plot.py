"""Plots draw theory as a line and simulation as dots; they own no global state."""

from __future__ import annotations

import numpy as np
import pytest
from cases import ridge

import rmt

matplotlib = pytest.importorskip("matplotlib")
from rmt import plot  # noqa: E402

BASE = ridge(100, 20, 30, 1.5, 1, 0.6, 0.4, 1.0)


def test_curve_has_line_dots_and_the_optimum():
    figure = plot.curve(BASE, np.linspace(-2, 4, 50), simulation=rmt.simulate(BASE, 50))
    axes = figure.axes[0]
    assert len(axes.lines[0].get_xdata()) == 50
    assert len(axes.containers) == 1  # error bars
    assert any(text.get_text() == "α*" for text in axes.texts)
    with pytest.raises(ValueError, match="quantity must be one of"):
        plot.curve(BASE, [0.0], quantity="beauty")


def test_sweep_curves(tmp_path):
    settings = rmt.grid(BASE, {"gamma": [0.01, 0.1, 1.0], "beta": [0.0, 0.5]})
    rows = rmt.run_sweep(settings, tmp_path, alpha=[0, 1], draws=10).rows
    axes = plot.sweep_curves(rows, "gamma").axes[0]
    labels = axes.get_legend_handles_labels()[1]
    assert len(labels) == 4
    assert "β = 0.5, α = 1" in labels
    assert axes.get_xscale() == "log"
    with pytest.raises(ValueError, match="x must be a column"):
        plot.sweep_curves(rows, "colour")


def test_star_map():
    axes = plot.star_map(BASE, ("beta", np.linspace(0.05, 1, 20)), ("gamma", np.geomspace(0.01, 100, 15))).axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "alignment β"


def test_plotting_leaves_pyplot_alone():
    import sys

    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_legends_go_below_the_curves():
    figure, axes = plot.panels(2)
    for axis in axes[0]:
        plot.line(axis, [0, 1], [0, 1])
        plot.legend(axis)
    plot.legends_below(figure)
    assert [len(one.get_texts()) for one in figure.legends] == [1]
    assert not any(axis.get_legend() for axis in figure.axes)
    figure, axes = plot.panels(2)
    for axis, label in zip(axes[0], "ab", strict=True):
        plot.line(axis, [0, 1], [0, 1], label=label)
        plot.legend(axis)
    plot.legends_below(figure)
    figure.draw_without_rendering()
    left, right = (one.get_window_extent() for one in figure.legends)
    assert left.x1 < right.x0
    assert max(left.y1, right.y1) < min(axis.get_tightbbox().y0 for axis in axes[0])
