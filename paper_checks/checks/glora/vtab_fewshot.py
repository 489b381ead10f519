"""Does GLoRA beat LoRA with a handful of images a class?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import Context, Figures, Outcome, Row
from paper_checks.statistics.intervals import standard_error
from paper_checks.studies.vision.methods import label, style
from paper_checks.studies.vision.statistics import decide, paired
from paper_checks.studies.vision.study import Study, answers
from rmt.plot import legend, name_axes, panels

SHOTS = (1, 2, 4, 8, 16)
FEW_SHOT = ("probe", "lora", "glora_searched")


class VtabFewShot(Study):
    """See the module's docstring."""

    id = "glora.vtab_fewshot"
    claim = "GLoRA is more accurate than LoRA with 1 to 16 images a class."
    where = "GLoRA, Figure 3 (few-shot); here cifar10, ViT-S/14 at 56 px"
    rule = (
        "1, 2, 4, 8 and 16 images a class, three draws each, learning rates and the searched structure from the full "
        "training set (which favours GLoRA: its structure has seen 1,000 labels). Reproduced (not reproduced) if the "
        "95 % interval of the paired difference, averaged over the five sizes, over draws and test images lies above "
        "(below) 0; else undecided."
    )

    def cells(self, context: Context) -> Sequence[str]:
        first = [cell for cell in self.runs(FEW_SHOT) if "cifar10" in cell and not cell.startswith("final")]
        few = [
            f"few-cifar10-{method}-k{shots}-s{seed}"
            for seed in range(self.plan.seeds)
            for shots in SHOTS
            for method in FEW_SHOT
        ]
        return [*dict.fromkeys(first), *few]

    def cell(self, context: Context, kind: str, task: str, words: Sequence[str]) -> Figures:
        """So many images a class, drawn by the seed; the learning rate is that of the full training set."""
        if kind != "few":
            return super().cell(context, kind, task, words)
        method, shots, seed = words[0], int(words[1][1:]), int(words[2][1:])
        few = self._task(context, task).few(shots, seed)
        if method == "probe":
            return self._probe(few, "train", "test", seed)
        rate = self._best_rate(context, task, method)
        # As many steps as 200 images a class would need in an epoch or two, whatever the shots.
        epochs = max(4, 100 * self.plan.batch_size // few.size("train"))
        model, figures = self._tune(context, few, method, epochs, rate, seed, "train")
        return {**figures, **answers(few, model, "test")}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows = []
        for shots in SHOTS:
            for method in FEW_SHOT:
                values = _accuracies(cells, method, shots)
                if values:
                    name = f"{label(method)}, {shots} a class (test %)"
                    rows.append(Row(name, None, float(np.mean(values)), standard_error(values)))
        difference = paired(cells, "glora_searched", "lora", "few")
        verdict, summary = decide(difference, "searched GLoRA − LoRA, few-shot, mean over shots", 1)
        if below := _not_above_the_probe(cells):
            summary += f"; NOT above the linear probe: {below}"
        return Outcome(verdict, summary, tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Test accuracy against images a class; bars are two standard errors over draws."""
        figure, axes = panels(1)
        axis, drawn = axes[0, 0], False
        for place, method in enumerate(FEW_SHOT):
            runs = {shots: values for shots in SHOTS if (values := _accuracies(cells, method, shots))}
            if not runs:
                continue
            means = [float(np.mean(values)) for values in runs.values()]
            errors = [2 * (standard_error(values) or 0.0) for values in runs.values()]
            # A little apart, so that bars do not cover one another.
            x = [shots * 1.04 ** (place - 1) for shots in runs]
            axis.errorbar(x, means, yerr=errors, capsize=2, markersize=4, linewidth=1.2, **style(method))
            drawn = True
        if not drawn:
            return None
        axis.set_xscale("log", base=2)
        axis.set_xticks(SHOTS, [str(shots) for shots in SHOTS])
        name_axes(axis, "images a class", "test accuracy (%)", "cifar10, learning rates of the full training set")
        legend(axis)
        return figure


def _not_above_the_probe(cells: Mapping[str, Figures]) -> str:
    """Which methods are not better than the probe, and at how many images a class; as the end of a sentence."""
    found: dict[str, list[int]] = {}
    for method in FEW_SHOT[1:]:
        for shots in SHOTS:
            ours, probe = (_accuracies(cells, name, shots) for name in (method, "probe"))
            if ours and probe and np.mean(ours) <= np.mean(probe):
                found.setdefault(method, []).append(shots)
    return "; ".join(f"{label(method)} at {', '.join(map(str, shots))}" for method, shots in found.items())


def _accuracies(cells: Mapping[str, Figures], method: str, shots: int) -> list[float]:
    """Test accuracy of every draw of so many images a class."""
    prefix = f"few-cifar10-{method}-k{shots}-"
    return [figures["accuracy"] for cell, figures in cells.items() if cell.startswith(prefix)]


CHECK = VtabFewShot()
