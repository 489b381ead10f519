"""Transfers between pairs of digits: predicted against real test accuracy on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import SMALL, Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.real_data import LINE, SCALES, TRANSFERS, case, digits_transfer
from rmt.plot import COLOURS, dots, line, name_axes, panels

TOLERANCE = 3.0  # points


class Digits(Check):
    """See the module's docstring."""

    id = "alpha_lora.digits"
    claim = "On images of digits the theory predicts the accuracy against α."
    short = "On images of digits the theory predicts accuracy against α."
    shown = ("1/7 → 2/7, n = 40: mean |predicted", "points off, 1/7 → 2/7")
    scale = "five transfers between pairs of 8×8 digits, n = 10 and 40, one source each (paper: MNIST)"
    words = SMALL
    where = "α-LoRA, MNIST transfers; here the 8×8 digits that scikit-learn ships"
    rule = (
        "Reproduced if over five transfers, n = 10 and 40 and eight scales from 0 to 5 the isotropic "
        "prediction (overlap and norm of the actual source, unbiased ‖m‖²) is off by at most "
        f"{TOLERANCE:g} points on average; else not reproduced. The largest error is "
        "reported. Images are far from the model's assumptions (their covariance is not the identity), "
        "so no error bar can be the yardstick. What α* gains is a claim of its own, alpha_lora.digits_alpha_star."
    )
    needs = ("scikit-learn",)

    def cells(self, context: Context) -> Sequence[str]:
        return TRANSFERS

    def compute(self, context: Context, cell: str) -> Figures:
        return digits_transfer(context, cell)

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows, gaps = [], []
        for cell, figures in cells.items():
            for size in figures["sizes"]:
                gap = np.abs(np.array(size["theory"]) - np.array(size["value"]))
                gaps.append(gap)
                rows.append(Row(f"{case(cell, size)}: mean |predicted − real| (points)", None, float(gap.mean())))
        mean, worst = float(np.mean(gaps)), float(np.max(gaps))
        return Outcome(
            Verdict.REPRODUCED if mean <= TOLERANCE else Verdict.NOT_REPRODUCED,
            f"The prediction is off by {mean:.1f} points on average over {len(gaps)} curves and {worst:.1f} at most.",
            tuple(rows),
        )

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        figure, axes = panels(3, 2, width=3.4, height=2.8)
        for axis, (cell, figures) in zip(axes.flat, cells.items(), strict=False):
            for colour, size in zip(COLOURS, figures["sizes"], strict=False):
                line(axis, LINE, size["line"], colour=colour, label=f"theory, n = {size['n']}")
                dots(axis, SCALES, size["value"], size["stderr"], colour=colour, label=f"images, n = {size['n']}")
            name_axes(axis, "α", "test accuracy (%)", " → ".join("/".join(pair) for pair in cell.split("-")))
        for axis in axes.flat[len(cells) :]:
            axis.axis("off")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
        return figure


CHECK = Digits()
