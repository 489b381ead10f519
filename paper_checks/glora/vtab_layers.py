"""Where does the search put its parameters?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import Context, Figures, Outcome, Row, Verdict
from paper_checks.glora.vtab_study import Study
from rmt.plot import COLOURS, legend, name_axes, panels


class VtabLayers(Study):
    """See the module's docstring."""

    id = "glora.vtab_layers"
    claim = "The search gives MLP layers more parameters than attention layers."
    where = "GLoRA, figure on the distribution of searched parameters (cited from memory, unverified)"
    rule = (
        "A wide layer costs more whatever is chosen, so the share of parameters in MLP layers is compared with that "
        "of random subnets of the same budget. Reproduced (not reproduced) if the mean share over searches is above "
        "(below) the random mean by two standard errors; else undecided. The standard error is that of the random "
        "share over the number of searches."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return [f"supernet-{task}-s{seed}" for seed in range(self.plan.seeds) for task in self.plan.tasks]

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        layers = [figures["layers"] for cell, figures in cells.items() if cell.startswith("supernet")]
        if not layers:
            return Outcome(Verdict.UNDECIDED, "no search is finished yet")
        share = float(np.mean([layer["mlp_share"] for layer in layers]))
        chance = float(np.mean([layer["random_mlp_share"] for layer in layers]))
        error = float(np.mean([layer["random_spread"] for layer in layers]) / np.sqrt(len(layers)))
        z = (share - chance) / max(error, 1e-12)
        verdict = Verdict.REPRODUCED if z > 2 else Verdict.NOT_REPRODUCED if z < -2 else Verdict.UNDECIDED
        rows = (
            Row("share of parameters in MLP layers, searched", "more than half", share, error),
            Row("the same in random subnets of that budget", None, chance),
        )
        summary = (
            f"{share:.1%} of the parameters of {len(layers)} searched subnets lie in MLP layers, {chance:.1%} of "
            f"random ones' ({z:+.1f} standard errors)"
        )
        if verdict is Verdict.UNDECIDED and z:
            summary += f"; about {int(np.ceil(len(layers) * (2 / z) ** 2))} searches would decide a shift of this size"
        return Outcome(verdict, summary, rows)

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        layers = {cell: figures["layers"] for cell, figures in cells.items() if cell.startswith("supernet")}
        if not layers:
            return None
        figure, axes = panels(1, width=5.2)
        axis, names = axes[0, 0], list("ABCDE")
        for number, (cell, layer) in enumerate(layers.items()):
            counts = [layer["by_tensor"][name] / 1e3 for name in names]
            axis.plot(names, counts, "o-", color=COLOURS[number % len(COLOURS)], label=cell.removeprefix("supernet-"))
        name_axes(axis, "support tensor", "parameters (thousand)", "where the searched subnets spend their budget")
        legend(axis)
        return figure


CHECK = VtabLayers()
