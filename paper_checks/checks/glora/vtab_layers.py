"""Where does the search put its parameters?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import SMALL, Context, Figures, Outcome, Row, Verdict
from paper_checks.statistics.power import Part, needed
from paper_checks.studies.vision.balanced import SecondRow, again
from paper_checks.studies.vision.study import Study
from rmt.plot import COLOURS, GREY, legend, name_axes, panels

#: Linear layers of a block of ViT-S by the last part of their names: outputs and inputs.
SHAPES = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (384, 384)),
    "fc1": (1536, 384),
    "fc2": (384, 1536),
}
BLOCKS = 12


class VtabLayers(Study):
    """See the module's docstring."""

    id = "glora.vtab_layers"
    claim = "The search gives MLP layers more parameters than attention layers."
    short = "The search gives MLP layers more parameters than attention."
    shown = ("share of parameters in MLP", "of parameters (chance: .552)")
    scale = "ViT-S/14 at 56 px (paper: ViT-B/16)"
    words = SMALL
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
            Row("share of parameters in MLP layers, searched", None, share, error),
            Row("the same in random subnets of that budget", None, chance),
        )
        summary = (
            f"{share:.1%} of the parameters of {len(layers)} searched subnets lie in MLP layers, {chance:.1%} of "
            f"random ones' ({z:+.1f} standard errors)"
        )
        if verdict is Verdict.UNDECIDED:
            seeds = max(len(layers) // len(self.plan.tasks), 1)
            summary += f"; {needed(share - chance, [Part('seeds', error**2, 399.0, seeds)])}"
        return Outcome(verdict, summary, rows)

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Parameters by layer type, as in the paper, and by support tensor."""
        found = {cell: figures for cell, figures in cells.items() if cell.startswith("supernet")}
        if not found:
            return None
        figure, axes = panels(2, width=4.6)
        tables = np.array([by_type(one["config"]) for one in found.values()]) / 1e3  # (searches, types, tensors)
        mean, places = tables.mean(axis=0), np.arange(len(SHAPES))
        bottom = np.zeros(len(SHAPES))
        for tensor, heights, colour in zip("ABCDE", mean.T, COLOURS, strict=False):
            axes[0, 0].bar(places, heights, bottom=bottom, color=colour, width=0.6, label=tensor)
            bottom += heights
        spread = 2 * tables.sum(axis=2).std(axis=0, ddof=1) / np.sqrt(len(tables)) if len(tables) > 1 else None
        axes[0, 0].errorbar(places, bottom, yerr=spread, fmt="none", ecolor="k", capsize=3, linewidth=1)
        chance = random_by_type(self.plan.budgets[0]) / 1e3
        axes[0, 0].plot(places, chance, "D", color=GREY, markersize=4, label="random subnets")
        axes[0, 0].set_xticks(places, [name.removesuffix("_proj") for name in SHAPES])
        number = f"{len(found)} search{'es' if len(found) > 1 else ''}"
        name_axes(axes[0, 0], "layer type", "parameters (thousand)", f"by layer type, mean of {number}")
        legend(axes[0, 0], ncols=2)
        tasks = sorted({cell.split("-")[1] for cell in found})
        for number_of_task, task in enumerate(tasks):
            counts = [f["layers"]["by_tensor"] for cell, f in found.items() if cell.split("-")[1] == task]
            x = np.arange(5) + 0.2 * (number_of_task - (len(tasks) - 1) / 2)
            for place, one in enumerate(counts):
                y = [one[name] / 1e3 for name in "ABCDE"]
                text = task if place == 0 else None
                axes[0, 1].plot(x, y, "o", color=COLOURS[number_of_task % len(COLOURS)], markersize=4, label=text)
        axes[0, 1].set_xticks(range(5), list("ABCDE"))
        name_axes(axes[0, 1], "support tensor", "parameters (thousand)", "by support tensor, a dot a search")
        legend(axes[0, 1])
        return figure


def by_type(config: Mapping[str, Any]) -> NDArray[np.int64]:
    """Parameters of a stored subnet by layer type and support tensor, shape (types of `SHAPES`, 5)."""
    from glora.config import GLoRAConfig

    subnet = GLoRAConfig.from_dict(config)
    found = np.zeros((len(SHAPES), 5), dtype=np.int64)
    for name in subnet.target if isinstance(subnet.target, tuple) else ():
        kind = name.rpartition(".")[2]
        found[list(SHAPES).index(kind)] += list(subnet.layer_for(name).count(*SHAPES[kind]).values())
    return found


def random_by_type(budget: int, draws: int = 50) -> NDArray[np.float64]:
    """What the layer types receive on average in random subnets of the budget, shape (types of `SHAPES`,)."""
    from glora.engines.random import random_subnet
    from glora.engines.space import Budget, SearchLayer, SearchSpace

    layers = [SearchLayer(f"{block}.{kind}", *shape) for block in range(BLOCKS) for kind, shape in SHAPES.items()]
    space, rng = SearchSpace(tuple(layers), 4), np.random.default_rng(0)
    sizes = [space.gene_costs(random_subnet(space, Budget.around(budget), rng)).sum(axis=1) for _ in range(draws)]
    return np.mean(sizes, axis=0).reshape(BLOCKS, len(SHAPES)).sum(axis=0)


class Balanced(SecondRow, VtabLayers):
    """The same with balanced steps."""

    id = "glora.vtab_layers_balanced"
    claim = "With balanced steps, the search gives MLP layers more parameters than attention layers."
    short = "With balanced steps, the search gives MLP layers more parameters than attention."
    rule = again(VtabLayers.rule)
    kind = "supernet"


CHECK = VtabLayers()
SECOND = Balanced()
