"""Is merged GLoRA as fast as the model it was made from?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from paper_checks.core import Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.vision.study import Study


class VtabMerging(Study):
    """See the module's docstring."""

    id = "glora.vtab_merging"
    claim = "After merging, GLoRA costs nothing at inference."
    short = "After merging GLoRA costs nothing at inference."
    shown = ("merged / base", "of the base's time")
    scale = "ViT-S/14 on a CPU"
    where = "GLoRA, Section 2.4 (structural re-parameterisation)"
    rule = (
        "Forward passes of the base model, an attached random subnet and its merged copy are timed in turn, 40 times "
        "each. Reproduced if the median ratio merged / base lies within 0.95 to 1.05, else not reproduced; the "
        "unmerged ratio is reported."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return ("latency-vit",)

    def cell(self, context: Context, kind: str, task: str, words: Sequence[str]) -> Figures:
        """Seconds a batch of 8 images: the base model, GLoRA in the layers, GLoRA merged; interleaved."""
        import torch

        import glora

        data = self._task(context, self.plan.tasks[0])
        batch = data.batch("validation", range(8))["pixel_values"]
        base, tuned = data.build_model(0).eval(), data.build_model(0).eval()
        glora.attach(tuned, self._config(context, data, "glora_random", 0))
        merged = glora.merged_copy(tuned).eval()
        seconds: dict[str, list[float]] = {"base": [], "unmerged": [], "merged": []}
        with torch.no_grad():
            for _ in range(41):
                for name, model in zip(seconds, (base, tuned, merged), strict=True):
                    start = time.perf_counter()
                    model(batch)
                    seconds[name].append(time.perf_counter() - start)
        ratios = {name: np.array(seconds[name][1:]) / np.array(seconds["base"][1:]) for name in ("unmerged", "merged")}
        return {
            "seconds": {name: float(np.median(values[1:])) for name, values in seconds.items()},
            "ratio": {name: float(np.median(values)) for name, values in ratios.items()},
            "error": {name: float(1.2533 * values.std() / np.sqrt(len(values))) for name, values in ratios.items()},
        }

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        figures = cells.get("latency-vit")
        if figures is None:
            return Outcome(Verdict.NOT_RUN, "the latency has not been measured")
        ratio, error = figures["ratio"], figures["error"]
        free = 0.95 <= ratio["merged"] <= 1.05
        rows = (
            Row("merged / base, time of a forward pass", None, ratio["merged"], error["merged"]),
            Row("unmerged / base", None, ratio["unmerged"], error["unmerged"]),
        )
        summary = f"merged {ratio['merged']:.3f} of the base model's time, unmerged {ratio['unmerged']:.2f}"
        return Outcome(Verdict.REPRODUCED if free else Verdict.NOT_REPRODUCED, summary, rows)


CHECK = VtabMerging()
