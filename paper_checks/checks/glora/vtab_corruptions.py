"""Does GLoRA keep more accuracy than LoRA on corrupted images?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import SMALL, Context, Figures, Outcome, Row
from paper_checks.statistics.answers import unpack
from paper_checks.studies.vision.balanced import SecondRow, again
from paper_checks.studies.vision.methods import label, style
from paper_checks.studies.vision.statistics import decide, paired
from paper_checks.studies.vision.study import CORRUPTED, Study
from rmt.plot import name_axes, panels


class VtabCorruptions(Study):
    """See the module's docstring."""

    id = "glora.vtab_corruptions"
    claim = "GLoRA generalises better than LoRA to images from elsewhere."
    short = "GLoRA loses less than LoRA under corruption."
    shown = ("searched GLoRA − LoRA, change", "points beyond the clean gap")
    scale = "ViT-S/14 at 56 px (paper: ViT-B/16)"
    words = SMALL
    where = "GLoRA, Table 3 (ImageNet to -V2, -Sketch, -A, -R); here five corruptions at severities 3 and 5"
    rule = (
        "The tuned models are judged on 300 test images under five corruptions at two severities. What a method loses "
        "on an image, its answers averaged over all corruptions less its answer to the clean image, tells robustness "
        "from accuracy. Reproduced (not reproduced) if the 95 % interval of the paired difference of these losses on "
        "the two tasks, over seeds and test images, says that GLoRA loses less (more); else undecided. Accuracy under "
        "corruption is reported. It speaks of these corruptions, not of ImageNet's shifts."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return list(dict.fromkeys(self.runs(CORRUPTED)))

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows = []
        finals = _corrupted(cells)
        for (task, method), found in _accuracies(finals).items():
            corrupted = [value for name, value in found.items() if name != "clean"]
            rows.append(Row(f"{task}: {label(method)}, corrupted (%)", None, float(np.mean(corrupted))))
            rows.append(Row(f"{task}: {label(method)}, clean, the same images (%)", None, found["clean"]))
        beyond = paired(finals, "glora_searched", "lora", answers=_change)
        verdict, summary = decide(beyond, "searched GLoRA − LoRA, change from clean to corrupted", len(self.plan.tasks))
        raw = paired(finals, "glora_searched", "lora", answers=_under_corruption)
        if beyond is not None and raw is not None:
            rows.append(Row("searched GLoRA − LoRA, change from clean to corrupted (points)", None, beyond.text))
            rows.append(Row("searched GLoRA − LoRA, accuracy under corruption (points)", None, raw.text))
            summary += f"; accuracy under corruption differs by {raw.text}, as the clean one does"
        return Outcome(verdict, summary, tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Accuracy of each method under each corruption, mean over seeds; bars: the images' standard error twice."""
        accuracies = _accuracies(_corrupted(cells))
        tasks = sorted({task for task, _ in accuracies})
        if not tasks:
            return None
        figure, axes = panels(len(tasks), width=4.6, height=4.0)
        for axis, task in zip(axes[0], tasks, strict=True):
            runs = {method: found for (one, method), found in accuracies.items() if one == task}
            names = list(dict.fromkeys(name for found in runs.values() for name in found))
            for place, (method, found) in enumerate(runs.items()):
                x = [names.index(name) + 0.16 * (place - (len(runs) - 1) / 2) for name in found]
                values = np.array(list(found.values()))
                errors = 2 * np.sqrt(values * (100 - values) / self.plan.corrupted)
                axis.errorbar(x, values, yerr=errors, linestyle="", capsize=2, markersize=4, **style(method))
            axis.set_xticks(range(len(names)), [_words(name) for name in names], rotation=60, ha="right")
            name_axes(axis, "", f"accuracy on {self.plan.corrupted} test images (%)", task)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7.5, frameon=False)
        return figure


def _corrupted(cells: Mapping[str, Figures]) -> dict[str, Figures]:
    """The final runs that were judged on corrupted images."""
    return {cell: f for cell, f in cells.items() if cell.startswith("final") and f.get("corruptions")}


def _accuracies(finals: Mapping[str, Figures]) -> dict[tuple[str, str], dict[str, float]]:
    """Accuracy in percent by corruption, mean over seeds, by task and method."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for cell, figures in finals.items():
        task, method = cell.split("-")[1:3]
        shares = {name: 100 * float(unpack(right).mean()) for name, right in figures["corruptions"].items()}
        found.setdefault((task, method), []).append(shares)
    return {key: {name: float(np.mean([run[name] for run in runs])) for name in runs[0]} for key, runs in found.items()}


def _under_corruption(figures: Figures) -> NDArray[np.float64]:
    """How often each image was answered rightly over its corruptions, from 0 to 1."""
    return np.mean([unpack(right) for name, right in figures["corruptions"].items() if name != "clean"], axis=0)


def _change(figures: Figures) -> NDArray[np.float64]:
    """What corruption adds to each image's answer: 0 where nothing is lost, −1 where a right answer is."""
    return _under_corruption(figures) - unpack(figures["corruptions"]["clean"])


def _words(name: str) -> str:
    """``gaussian_noise-3`` as it stands below an axis."""
    kind, _, severity = name.partition("-")
    return f"{kind.replace('_', ' ')}, {severity}" if severity else kind


class Balanced(SecondRow, VtabCorruptions):
    """The same with balanced steps."""

    id = "glora.vtab_corruptions_balanced"
    claim = "With balanced steps, GLoRA generalises better than LoRA to images from elsewhere."
    short = "With balanced steps, GLoRA loses less than LoRA under corruption."
    rule = again(VtabCorruptions.rule)
    kind = "final"


CHECK = VtabCorruptions()
SECOND = Balanced()
