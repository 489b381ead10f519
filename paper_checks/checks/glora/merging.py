"""Re-parameterisation: the adapter goes into the base weights exactly, and inference costs nothing more."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

import glora
from glora.config import A_PRODUCTS, all_layer_configs
from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.statistics.threads import one_thread
from paper_checks.statistics.timing import ratio_error

EXACT = 1e-6
LATENCY = 0.02


class Merging(Check):
    """See the module's docstring."""

    id = "glora.merging"
    claim = "All support tensors merge into the frozen weight and bias exactly; inference costs nothing more."
    short = "All support tensors merge exactly."
    shown = ("largest relative error of a merged layer's output", "largest relative error")
    scale = "864 structures"
    where = "GLoRA, Section 2 (structural re-parameterisation)"
    rule = (
        f"Reproduced if, over the 432 structures in both readings of W0 A, merged float32 layers differ from the "
        f"float64 formula by ≤ {EXACT:g} (relative, weights and outputs), unmerging restores every bit, merged "
        f"and base models need the same FLOPs, and the ratio of their CPU times is within {LATENCY:g} of 1 or "
        "within two standard errors of that; else not reproduced."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return ["exactness", "latency"]

    def compute(self, context: Context, cell: str) -> Figures:
        seed = context.seed_for(self.id, cell)
        if cell == "exactness":
            import torch

            with torch.no_grad():
                return _exactness(seed, every=12 if context.quick else 1)
        return _latency(seed, 20 if context.quick else 200)

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        exact, latency = cells.get("exactness"), cells.get("latency")
        holds = True
        rows: list[Row] = []
        said: list[str] = []
        if exact:
            holds &= max(exact["weight_error"], exact["output_error"]) <= EXACT and exact["bits_restored"]
            rows += [
                Row("largest relative error of a merged weight or bias", None, exact["weight_error"]),
                Row("largest relative error of a merged layer's output", None, exact["output_error"]),
                Row("structures whose weights come back bit for bit", None, exact["structures"]),
            ]
            said.append(f"{exact['structures']} structures merge with error ≤ {exact['output_error']:.1e}")
        if latency:
            holds &= latency["flops_merged"] == latency["flops_base"]
            holds &= abs(latency["ratio"] - 1) <= LATENCY + 2 * latency["error"]
            rows += [
                Row("inference time, merged / base", None, latency["ratio"], latency["error"]),
                Row("inference FLOPs, merged / base", None, latency["flops_merged"] / latency["flops_base"]),
                Row("inference time, not merged / base", None, latency["unmerged_ratio"]),
            ]
            said.append(f"merged inference takes {latency['ratio']:.3f} of the base's time")
        return Outcome(Verdict.REPRODUCED if holds else Verdict.NOT_REPRODUCED, "; ".join(said) + ".", tuple(rows))


def _exactness(seed: int, every: int) -> Figures:
    """Every structure (or every `every`-th) merged in float32 and held against float64."""
    import torch
    from torch import nn

    from glora.layer.wrappers import AdaptedLayer

    generator = torch.Generator().manual_seed(seed)
    weight_error = output_error = 0.0
    restored, structures = True, 0
    x = torch.randn(32, 24, generator=generator)
    for a_product in A_PRODUCTS:
        for config in itertools.islice(all_layer_configs(rank=4, a_product=a_product), 0, None, every):
            base = nn.Linear(24, 40).requires_grad_(False)
            layer = AdaptedLayer(base)
            layer.add("a", config, generator)
            layer.select("a")
            for parameter in layer.adapters.parameters():
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
            original = base.weight.clone(), base.bias.clone()
            # The formula in float64, by a layer of that precision with the same numbers.
            exact = AdaptedLayer(nn.Linear(24, 40, dtype=torch.float64).requires_grad_(False))
            exact.add("a", config, generator)
            exact.base.load_state_dict(base.state_dict())
            exact.adapters.load_state_dict(layer.adapters.state_dict())
            weight, bias = exact.adapters["a"].effective(exact.base)  # type: ignore[operator]
            layer.swap_in("a", layer.merged_parameters("a"))
            for merged, wanted in ((base.weight, weight), (base.bias, bias)):
                weight_error = max(weight_error, float((merged - wanted).abs().max() / wanted.abs().max()))
            wanted = nn.functional.linear(x.double(), weight, bias)
            output_error = max(output_error, float((layer(x) - wanted).norm() / wanted.norm()))
            layer.swap_out()
            restored &= torch.equal(base.weight, original[0]) and torch.equal(base.bias, original[1])
            structures += 1
    return {
        "weight_error": weight_error,
        "output_error": output_error,
        "bits_restored": restored,
        "structures": structures,
    }


@one_thread()
def _latency(seed: int, rounds: int) -> Figures:
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(seed)
    base = nn.Sequential(nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384)).eval()
    model = copy.deepcopy(base)
    glora.attach(model, glora.presets.glora(8, steps="raw"))
    plain = glora.merged_copy(model)
    x = torch.randn(8, 50, 384)
    flops = []
    times: list[list[float]] = [[], [], []]
    with torch.no_grad():
        for one in (base, plain):
            with FlopCounterMode(display=False) as counter:
                one(x)
            flops.append(counter.get_total_flops())
        for index in range(rounds):
            # In turn and in changing order; CPU time, so that other programs do not count.
            for which in np.roll(np.arange(3), index):
                one = (base, plain, model)[which]
                start = time.process_time()
                one(x)
                times[which].append(time.process_time() - start)
    return {
        "ratio": median(times[1]) / median(times[0]),
        "error": ratio_error(times[1], times[0]),
        "unmerged_ratio": median(times[2]) / median(times[0]),
        "flops_base": flops[0],
        "flops_merged": flops[1],
        "rounds": rounds,
    }


CHECK = Merging()
