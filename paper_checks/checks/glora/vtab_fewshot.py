"""Does GLoRA beat LoRA with a handful of images a class?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import COMMITTED, SMALL, Context, Figures, Outcome, Row
from paper_checks.statistics.intervals import standard_error
from paper_checks.statistics.rates import settle
from paper_checks.studies.vision.balanced import SecondRow, again
from paper_checks.studies.vision.methods import label, style
from paper_checks.studies.vision.statistics import decide, paired
from paper_checks.studies.vision.study import Study, answers
from rmt.plot import legend, name_axes, panels

SHOTS = (1, 2, 4, 8, 16)
OWN = "fewown"  #: kind of the cells whose learning rate was chosen at their own number of images
FEW_SHOT = ("probe", "lora", "glora_searched")


class VtabFewShot(Study):
    """See the module's docstring."""

    id = "glora.vtab_fewshot"
    claim = "GLoRA is more accurate than LoRA with 1 to 16 images a class."
    short = "GLoRA beats LoRA with 1 to 16 images a class."
    shown = ("searched GLoRA − LoRA, rates of the full", "points, rates of the full set")
    scale = "ViT-S/14 at 56 px (paper: ViT-B/16)"
    words = SMALL
    where = "GLoRA, Figure 3 (few-shot); here cifar10, ViT-S/14 at 56 px"
    rule = (
        "1, 2, 4, 8 and 16 images a class, three draws each; each method has a learning rate of its own at each size, "
        "chosen on val200 with the first draw; the searched structure is that of the full training set (which favours "
        "GLoRA: it has seen 1,000 labels). Reproduced (not reproduced) if the 95 % interval of the paired difference "
        "on this task, averaged over the five sizes, over draws and test images lies above (below) 0; else undecided. "
        "Runs with the rates of the full training set are reported and decide nothing."
    )

    def cells(self, context: Context) -> Sequence[str]:
        first = [cell for cell in self.runs(FEW_SHOT) if "cifar10" in cell and not cell.startswith("final")]
        few = [
            f"{kind}-cifar10-{method}-k{shots}-s{seed}"
            for kind in ("few", OWN)
            for seed in range(self.plan.seeds)
            for shots in SHOTS
            for method in FEW_SHOT
            if kind == "few" or method != "probe"  # which has no rate to choose
        ]
        return [*dict.fromkeys(first), *few]

    def cell(self, context: Context, kind: str, task: str, words: Sequence[str]) -> Figures:
        """So many images a class, drawn by the seed; the rate is that of the full training set, or of this size."""
        if kind not in ("few", OWN, f"{OWN}rate"):
            return super().cell(context, kind, task, words)
        method, shots = words[0], int(words[1][1:])
        if kind == f"{OWN}rate":
            few = self._task(context, task).few(shots, 0)
            rate = float("-".join(words[2:]))
            model, figures = self._tune(context, few, method, self._epochs(few), rate, 0, "train")
            return {**figures, "validation": few.metrics(model, "validation")["accuracy"]}
        seed = int(words[2][1:])
        few = self._task(context, task).few(shots, seed)
        if method == "probe":
            return self._probe(few, "train", "test", seed)
        if kind == OWN:
            name = f"{OWN}rate-{task}-{method}-k{shots}"
            rate = settle(
                self.plan.rates, lambda rate: self.need(context, f"{name}-{rate:g}")["validation"], self.plan.beyond
            )
        else:
            rate = self._best_rate(context, task, method)
        model, figures = self._tune(context, few, method, self._epochs(few), rate, seed, "train")
        return {**figures, **answers(few, model, "test")}

    def _epochs(self, few: Any) -> int:
        """As many steps as 200 images a class would need in an epoch or two, whatever the shots."""
        return max(4, 100 * self.plan.batch_size // few.size("train"))

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows = []
        for shots in SHOTS:
            for method in FEW_SHOT:
                values = _accuracies(cells, method, shots)
                if values:
                    name = f"{label(method)}, {shots} a class (test %)"
                    rows.append(Row(name, None, float(np.mean(values)), standard_error(values)))
        old = paired(cells, "glora_searched", "lora", "few")
        whole = all(cell in cells for cell in self.cells(Context(out=COMMITTED)) if cell.startswith(f"{OWN}-"))
        own = paired(cells, "glora_searched", "lora", OWN) if whole else None
        verdict, summary = decide(own, "searched GLoRA − LoRA, few-shot, rates of their own, mean over shots", 1)
        if old is not None:
            rows.append(Row("searched GLoRA − LoRA, rates of the full training set (points)", None, old.text))
            summary += f"; with the rates of the full training set {old.text}, which decides nothing"
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
        legend(axis, loc="lower right")
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


class Balanced(SecondRow, VtabFewShot):
    """The same with balanced steps."""

    id = "glora.vtab_fewshot_balanced"
    claim = "With balanced steps, GLoRA is more accurate than LoRA with 1 to 16 images a class."
    short = "With balanced steps, GLoRA beats LoRA with 1 to 16 images a class."
    rule = again(VtabFewShot.rule)
    kind = "fewown"


CHECK = VtabFewShot()
SECOND = Balanced()
