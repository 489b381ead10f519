"""Figure 2: the optimal scale against the alignment of source and target, from p ≪ n to p ≫ n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import rmt
from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.synthetic import ALLOWANCE_IN_WORDS, Z_LIMIT, plain, z_score
from rmt.plot import COLOURS, dots, legend, line, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIMENSIONS = (2, 20, 200, 2000)  # with n = 200: p/n from .01 to 10
SAMPLES = 200
SMALLEST = 20  # p = 2 is far from the limit and has no room for the sampler: theory only
LINE = np.linspace(0.01, 0.99, 50)  # alignments of the curves
DOTS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


class Figure2(Check):
    """See the module's docstring."""

    id = "alpha_lora.figure2"
    claim = "The optimal scale grows with the alignment of source and target, whatever p/n."
    short = "α* grows with the alignment of source and target."
    shown = ("ridge, p = 2000: α* at alignment 0.9", "α*, p = 2,000, alignment .9")
    scale = "p = 20 to 2,000, as the paper"
    where = "α-LoRA, Figure 2"
    rule = (
        "Reproduced if, for the ridge source and for the arbitrary one, the predicted α* increases "
        "over 50 alignments for every p, and simulated α* at five alignments agrees with it for p ≥ "
        f"{SMALLEST} (|z| ≤ {Z_LIMIT:g}); else not reproduced. {ALLOWANCE_IN_WORDS}. Up to which "
        "alignment a larger p also means a larger α* is reported beside it."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return ["arbitrary", "ridge"]

    def compute(self, context: Context, cell: str) -> Figures:
        draws = 250 if context.quick else 2000
        curves = []
        for p in DIMENSIONS:
            star = rmt.theory(_setting(cell, p, LINE)).alpha_star
            record: dict[str, Any] = {"p": p, "alpha_star": star, "dots": []}
            for alignment in DOTS if p >= SMALLEST else ():
                setting = _setting(cell, p, float(alignment))
                seed = context.seed_for(self.id, cell, f"{p} {alignment:g}")
                estimate = rmt.simulate(setting, draws, seed).alpha_star
                predicted = rmt.theory(setting).alpha_star
                z = float(z_score(estimate, predicted, setting))
                dot = {"alignment": alignment, "theory": predicted, **plain(estimate), "z": z}
                record["dots"].append(dot)
            curves.append(record)
        return {"draws": draws, "alignment": LINE, "curves": curves}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows, increasing, worst, ordered = [], True, 0.0, []
        for cell, figures in cells.items():
            stars = np.array([curve["alpha_star"] for curve in figures["curves"]])  # (p, alignment)
            increasing &= bool(np.all(np.diff(stars, axis=1) > 0))
            by_size = np.all(np.diff(stars, axis=0) > 0, axis=0)  # (alignment,)
            until = figures["alignment"][int(np.argmin(by_size)) - 1] if not by_size.all() else 1.0
            ordered.append(f"{until:.2f} ({cell})")
            rows.append(Row(f"{cell}: largest alignment up to which a larger p has a larger α*", None, until))
            for curve in figures["curves"]:
                worst = max([worst, *(abs(dot["z"]) for dot in curve["dots"])])
                for dot in curve["dots"]:
                    name = f"{cell}, p = {curve['p']}: α* at alignment {dot['alignment']:g}"
                    rows.append(Row(f"{name} (theory {dot['theory']:.4g})", None, dot["value"], dot["stderr"]))
        return Outcome(
            Verdict.REPRODUCED if increasing and worst <= Z_LIMIT else Verdict.NOT_REPRODUCED,
            f"α* {'increases' if increasing else 'does not increase'} with alignment for every p; "
            f"simulated α* has a largest |z| of {worst:.2f}. A larger p means a larger α* only up to "
            f"alignment {' and '.join(ordered)}; beyond it the order turns.",
            tuple(rows),
        )

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        figure, axes = panels(len(cells), width=4.2, height=3.2)
        for axis, (cell, figures) in zip(axes[0], cells.items(), strict=True):
            for colour, curve in zip(COLOURS, figures["curves"], strict=False):
                label = f"p/n = {curve['p'] / SAMPLES:g}"
                line(axis, figures["alignment"], curve["alpha_star"], colour=colour, label=label)
                points = curve["dots"]
                columns = [[dot[key] for dot in points] for key in ("alignment", "value", "stderr")]
                dots(axis, *columns, colour=colour, label="")
            axis.set_yscale("log")
            x = "β" if cell == "ridge" else "cosine of w̃ and m"
            name_axes(axis, x, "α*", f"{cell} source (n = {SAMPLES}, γ = 1)")
        legend(axes[0, 0])
        return figure


def _setting(cell: str, p: int, alignment: Any) -> rmt.Transfer:
    """The paper's settings: unit means, γ = γ̃ = 1, N = 2000 for the ridge source."""
    common: dict[str, Any] = {"p": p, "n": SAMPLES, "gamma": 1.0}
    if cell == "ridge":
        return rmt.Transfer(**common, N=2000, gamma_source=1.0, mu=1.0, mu_perp=1.0, beta=alignment)
    return rmt.Transfer(**common, mu_target=1.0, source=rmt.FixedSource(overlap=alignment, norm2=1.0))


CHECK = Figure2()
