"""The size of the search space, of the supernet and of its subnets on ViT-B/16."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from glora import presets
from glora.config import all_layer_configs
from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict

# (out, in) of the linear layers of a ViT-B/16 block with timm's fused qkv; there are 12 blocks.
LAYERS = {"qkv": (2304, 768), "proj": (768, 768), "fc1": (3072, 768), "fc2": (768, 3072)}
BLOCKS = 12
# Published sizes of searched models in millions, with the rank they probably have (inferred).
PUBLISHED = {8: 0.86, 4: 0.44, 2: 0.29}
SUPERNET = {2: 0.885, 4: 1.604, 8: 3.042, 16: 5.917}  # recomputed from the official code
Z_LIMIT = 2.0


class ParameterCounts(Check):
    """See the module's docstring."""

    id = "glora.parameter_counts"
    claim = (
        "Every layer has 432 configurations, so ViT-B/16 has 432^48 subnets; the searched models have .29, .44 "
        "and .86 M parameters."
    )
    short = "A layer has 432 structures; the published sizes are a random subnet's."
    shown = ("configurations of a layer", "structures")
    scale = "ViT-B/16's shapes, as the paper"
    where = "GLoRA, Section 2 and VTAB table; supernet sizes recomputed from the official code"
    rule = (
        "Reproduced if a layer has 432 different structures, the supernet has .885, 1.604, 3.042 and 5.917 M "
        "parameters at rank 2, 4, 8, 16, and each published size is one of a subnet: within "
        f"{Z_LIMIT:g} standard deviations of a uniformly random one at rank 2, 4, 8; else not reproduced."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return ["counts"]

    def compute(self, context: Context, cell: str) -> Figures:
        supernet, mean, deviation = {}, {}, {}
        for rank in SUPERNET:
            largest = presets.glora(rank).layer
            supernet[rank] = BLOCKS * sum(sum(largest.count(*shape).values()) for shape in LAYERS.values())
            sizes = {
                name: [sum(config.count(*shape).values()) for config in all_layer_configs(rank=rank)]
                for name, shape in LAYERS.items()
            }
            means = {name: sum(values) / len(values) for name, values in sizes.items()}
            mean[rank] = BLOCKS * sum(means.values())
            # Layers are drawn independently, so variances add.
            squares = (sum((v - means[name]) ** 2 for v in sizes[name]) / len(sizes[name]) for name in sizes)
            deviation[rank] = math.sqrt(BLOCKS * sum(squares))
        layers = BLOCKS * len(LAYERS)
        structures = len(set(all_layer_configs()))
        return {
            "structures": structures,
            "layers": layers,
            "log10_subnets": layers * math.log10(structures),
            "supernet": supernet,
            "mean": mean,
            "deviation": deviation,
        }

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        figures = cells["counts"]
        supernet, mean, deviation = (
            {int(rank): value / 1e6 for rank, value in figures[key].items()}
            for key in ("supernet", "mean", "deviation")
        )
        z = {rank: (size - mean[rank]) / deviation[rank] for rank, size in PUBLISHED.items()}
        holds = (
            figures["structures"] == 432
            and all(round(supernet[rank], 3) == size for rank, size in SUPERNET.items())
            and all(abs(value) <= Z_LIMIT for value in z.values())
        )
        rows = [
            Row("configurations of a layer", 432, figures["structures"]),
            Row("log10 of the number of subnets", None, figures["log10_subnets"]),
            *(
                Row(f"supernet at rank {rank}, M (official code: {size:g})", None, supernet[rank])
                for rank, size in SUPERNET.items()
            ),
            *(
                Row(f"random subnet at rank {rank}, M (± standard deviation)", size, mean[rank], deviation[rank])
                for rank, size in PUBLISHED.items()
            ),
        ]
        return Outcome(
            Verdict.REPRODUCED if holds else Verdict.NOT_REPRODUCED,
            f"{figures['structures']} structures a layer, 10^{figures['log10_subnets']:.0f} subnets; published sizes "
            f"lie {', '.join(f'{z[rank]:+.1f} (r = {rank})' for rank in sorted(z))} standard deviations from a "
            "random subnet's mean.",
            tuple(rows),
        )


CHECK = ParameterCounts()
