"""Accuracy and second moment against the penalty γ, from the ridgeless limit to the source alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import rmt
from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.synthetic import ALLOWANCE_IN_WORDS, Z_LIMIT, brief, plain, z_score
from rmt.plot import COLOURS, dots, legend, line, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Target samples of each panel: p < n, p = n (the peak of double descent), p > n.
SIZES = {"p-below-n": 1200, "p-equals-n": 400, "p-above-n": 100}
SETTING: dict[str, Any] = {
    "N": 5000,
    "p": 400,
    "mu": 1.5,
    "mu_perp": 1.0,
    "beta": 0.8,
    "gamma_source": 1.0,
}
GAMMAS = np.logspace(-6, 3, 19)
LINE = np.logspace(-6, 3, 91)
SCALES = (0.0, 1.0, 2.0)


class Regularisation(Check):
    """See the module's docstring."""

    id = "alpha_lora.regularisation"
    claim = "Theory predicts accuracy and second moment of the score for every penalty γ from 1e-6 to 1e3."
    short = "Theory predicts accuracy for every penalty γ."
    shown = ("p-equals-n: largest |z| of second moment", "largest |z|")
    scale = "p = 400, γ from 1e-6 to 1e3"
    where = "α-LoRA, figures of accuracy and second moment against γ"
    rule = (
        "Reproduced if at 19 penalties and α = 0, 1, 2, for p < n, p = n and p > n, accuracy and "
        f"second moment have |z| ≤ {Z_LIMIT:g} against simulation, else not reproduced; "
        f"{ALLOWANCE_IN_WORDS}."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return list(SIZES)

    def compute(self, context: Context, cell: str) -> Figures:
        setting = rmt.Transfer(**SETTING, n=SIZES[cell], gamma=GAMMAS)
        one = rmt.Transfer(**SETTING, n=SIZES[cell], gamma=1.0)
        simulation = rmt.simulate(one, 100 if context.quick else 1000, context.seed_for(self.id, cell), gamma=GAMMAS)
        score, line = rmt.theory(setting), rmt.theory(rmt.Transfer(**SETTING, n=SIZES[cell], gamma=LINE))
        curves = []
        for alpha in SCALES:
            accuracy, second = simulation.accuracy(alpha), simulation.second_moment(alpha)
            expected, moment = score.accuracy(alpha), score.second_moment(alpha)
            curves.append(
                {
                    "alpha": alpha,
                    "accuracy": {"theory": brief(line.accuracy(alpha), 5), **plain(accuracy)},
                    "second_moment": {"theory": brief(line.second_moment(alpha), 5), **plain(second)},
                    "raw_z": float(max(np.max(np.abs(accuracy.z(expected))), np.max(np.abs(second.z(moment))))),
                    "z_accuracy": brief(z_score(accuracy, expected, setting, accuracy=True), 4),
                    "z_second_moment": brief(z_score(second, moment, setting), 4),
                }
            )
        return {"draws": simulation.draws, "n": SIZES[cell], "curves": curves}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows = []
        for cell, figures in cells.items():
            for quantity in ("accuracy", "second_moment"):
                worst = max(float(np.max(np.abs(curve[f"z_{quantity}"]))) for curve in figures["curves"])
                rows.append(Row(f"{cell}: largest |z| of {quantity.replace('_', ' ')}", None, worst))
        worst = max(float(row.ours) for row in rows)
        raw = max(curve["raw_z"] for figures in cells.values() for curve in figures["curves"])
        return Outcome(
            Verdict.REPRODUCED if worst <= Z_LIMIT else Verdict.NOT_REPRODUCED,
            f"The largest |z| is {worst:.2f} over {len(cells)} sizes, 19 penalties, three scales and two "
            f"quantities ({raw:.1f} before the allowance).",
            tuple(rows),
        )

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        figure, axes = panels(len(cells), 2, width=3.6, height=2.7)
        for column, figures in zip(axes.T, cells.values(), strict=True):
            for axis, quantity in zip(column, ("accuracy", "second_moment"), strict=True):
                for colour, curve in zip(COLOURS, figures["curves"], strict=False):
                    values = curve[quantity]
                    line(axis, LINE, values["theory"], colour=colour, label=f"α = {curve['alpha']:g}")
                    dots(axis, GAMMAS, values["value"], values["stderr"], colour=colour, label="")
                axis.set_xscale("log")
                name_axes(axis, "γ", quantity.replace("_", " "), f"p = {SETTING['p']}, n = {figures['n']}")
            column[1].set_yscale("log")
        legend(axes[0, 0])
        return figure


CHECK = Regularisation()
