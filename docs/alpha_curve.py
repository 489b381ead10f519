"""Draw the README's picture: accuracy against the scale for three alignments, theory as lines, simulation as dots."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np

import rmt
from rmt import plot
from rmt._files import write_atomic

SETTING = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)


def main() -> None:
    """Write docs/alpha_curve.png."""
    figure, grid = plot.panels(1, width=7.2, height=3.6)
    axes = grid[0, 0]
    alpha, at = np.linspace(-4, 8, 300), np.linspace(-4, 8, 13)
    for index, beta in enumerate((0.8, 0.4, -0.4)):
        setting = replace(SETTING, beta=beta)
        score, simulation = rmt.theory(setting), rmt.simulate(setting, draws=2000, seed=0)
        colour = plot.COLOURS[index]
        plot.line(axes, alpha, score.accuracy(alpha), colour=colour, label=f"β = {beta:g}: α* = {score.alpha_star:.2f}")
        estimate = simulation.accuracy(at)
        plot.dots(axes, at, estimate.value, estimate.stderr, colour=colour, label=None)
        axes.plot(score.alpha_star, score.best_accuracy, "*", color=colour, markersize=11, markeredgecolor="white")
    for x, name in ((0, "target-only"), (1, "plain")):
        axes.axvline(x, color=plot.GREY, linewidth=0.8, zorder=0)
        axes.text(
            x + 0.06, 0.06, name, transform=axes.get_xaxis_transform(), fontsize=7.5, color=plot.GREY, rotation=90
        )
    plot.name_axes(axes, "scale α of the frozen source weights", "test accuracy")
    plot.legend(axes, loc="center right", bbox_to_anchor=(1.0, 0.45))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130, metadata={"Software": None})
    write_atomic(Path(__file__).with_suffix(".png"), picture.getvalue())


if __name__ == "__main__":
    main()
