"""Transfers between pairs of digits: does the predicted α* ever lose to α = 1?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scipy.special import ndtri

from paper_checks.core import SMALL, Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.real_data import TRANSFERS, case, digits_transfer
from rmt.plot import COLOURS, dots, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN = 0.5  #: points of loss that hardly matter


class DigitsAlphaStar(Check):
    """See the module's docstring; the cells are those of ``alpha_lora.digits``."""

    id = "alpha_lora.digits_alpha_star"
    claim = "On images of digits the accuracy at the predicted α* does not lose to that at α = 1."
    short = "On digits the predicted α* never loses to α = 1."
    shown = ("1/7 → 2/7, n = 10: gain", "points, 1/7 → 2/7")
    scale = "8×8 digits (paper: MNIST)"
    words = SMALL
    where = "α-LoRA, MNIST transfers; here the 8×8 digits that scikit-learn ships"
    rule = (
        "Gain of the predicted α* over α = 1 in every case (five transfers, n = 10 and 40), 200 splits each, with "
        "intervals at 95 % for all ten together (Bonferroni: ±2.81 standard errors). Not reproduced if one lies below "
        f"0; reproduced if all lie above a loss of {MARGIN:g} points; else undecided."
    )
    needs = ("scikit-learn",)

    @property
    def home(self) -> str:
        """The cells of the digits."""
        return "alpha_lora.digits"

    def cells(self, context: Context) -> Sequence[str]:
        return TRANSFERS

    def compute(self, context: Context, cell: str) -> Figures:
        return digits_transfer(context, cell)

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        gains = {case(cell, size): size["gain"] for cell, figures in cells.items() for size in figures["sizes"]}
        width = float(ndtri(1 - 0.025 / len(gains)))
        rows = [Row(f"{name}: gain over α = 1 (points)", None, *gain) for name, gain in gains.items()]
        rows += [
            Row(f"{case(cell, size)}: real accuracy at α* = {size['alpha_star']:.2f} (%)", None, *size["best"])
            for cell, figures in cells.items()
            for size in figures["sizes"]
        ]
        lost = [
            f"{name}: {gain:+.2f} [{gain - width * error:+.2f}, {gain + width * error:+.2f}] points"
            for name, (gain, error) in gains.items()
            if gain + width * error < 0
        ]
        close = [name for name, (gain, error) in gains.items() if gain - width * error <= -MARGIN]
        won = sum(gain - width * error > 0 for gain, error in gains.values())
        verdict = Verdict.NOT_REPRODUCED if lost else Verdict.UNDECIDED if close else Verdict.REPRODUCED
        summary = f"α* gains in {won} of {len(gains)} cases and loses in {len(lost)}" + (
            f" ({'; '.join(lost)})." if lost else "."
        )
        if verdict is Verdict.UNDECIDED:
            error = max(gains[name][1] for name in close)
            splits = round(200 * (width * error / MARGIN) ** 2)
            summary += f" A loss of {MARGIN:g} points cannot be excluded in {', '.join(close)}; {splits} splits would."
        return Outcome(verdict, summary, tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        """The gain of every case."""
        gains = {case(cell, size): size["gain"] for cell, figures in cells.items() for size in figures["sizes"]}
        figure, axes = panels(1, width=6.4, height=3.2)
        values, errors = zip(*gains.values(), strict=True)
        dots(axes[0, 0], range(len(gains)), values, errors, colour=COLOURS[0], label=None)
        axes[0, 0].axhline(0.0, color=COLOURS[5], linewidth=0.9)
        axes[0, 0].set_xticks(range(len(gains)), list(gains), rotation=40, ha="right", fontsize=7.5)
        name_axes(axes[0, 0], "", "accuracy at α* − at α = 1 (points)", "gain of the predicted scale, ±2 s.e.")
        return figure


CHECK = DigitsAlphaStar()
