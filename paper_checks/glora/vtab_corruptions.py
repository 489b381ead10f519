"""Does GLoRA keep more accuracy than LoRA on corrupted images?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import Context, Figures, Outcome, Row, Verdict
from paper_checks.glora.vtab_methods import label, style
from paper_checks.glora.vtab_statistics import Difference, decide
from paper_checks.glora.vtab_study import Study
from rmt.plot import name_axes, panels


class VtabCorruptions(Study):
    """See the module's docstring."""

    id = "glora.vtab_corruptions"
    claim = "GLoRA generalises better than LoRA to images from elsewhere."
    where = "GLoRA, Table 3 (ImageNet to -V2, -Sketch, -A, -R); here five corruptions at severities 3 and 5"
    rule = (
        "The tuned models of one seed are judged on 300 test images under five corruptions at two severities. "
        "Reproduced (not reproduced) if the 95 % t-interval of the paired difference of mean corrupted accuracy over "
        "tasks and corruptions lies above (below) 0; else, or with a task missing, undecided. The corruptions of a "
        "task share its images, so the interval is optimistic; it speaks of these corruptions, not of ImageNet's "
        "shifts."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return [
            cell
            for cell in dict.fromkeys(self.runs(("lora", "glora_searched")))
            if cell.endswith("s0") or "rate" in cell
        ]

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        from scipy.stats import t as student

        rows, differences, both = [], [], 0
        finals = _corrupted(cells)
        for cell, found in finals.items():
            task, method = cell.split("-")[1:3]
            corrupted = [value for name, value in found.items() if name != "clean"]
            rows.append(Row(f"{task}: {label(method)}, corrupted (%)", None, float(np.mean(corrupted))))
            rows.append(Row(f"{task}: {label(method)}, clean, the same images (%)", None, found["clean"]))
            twin = finals.get(f"final-{task}-lora-s0")
            if method == "glora_searched" and twin:
                differences += [found[name] - twin[name] for name in found if name != "clean"]
                both += 1
        if not differences:
            return Outcome(Verdict.UNDECIDED, "no pair of runs of searched GLoRA and LoRA is finished yet", tuple(rows))
        mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1) / np.sqrt(len(differences)))
        width = float(student.ppf(0.975, len(differences) - 1)) * error
        difference = Difference(mean, error, mean - width, mean + width, len(differences))
        verdict, summary = decide(difference, "searched GLoRA − LoRA under corruption")
        if both < len(self.plan.tasks):
            verdict, summary = Verdict.UNDECIDED, f"{summary}; {both} of {len(self.plan.tasks)} tasks are done"
        return Outcome(verdict, summary, tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Accuracy of each method under each corruption; bars are the binomial standard error twice."""
        finals = _corrupted(cells)
        tasks = sorted({cell.split("-")[1] for cell in finals})
        if not tasks:
            return None
        figure, axes = panels(len(tasks), width=4.6, height=4.0)
        for axis, task in zip(axes[0], tasks, strict=True):
            runs = {cell.split("-")[2]: found for cell, found in finals.items() if cell.split("-")[1] == task}
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


def _corrupted(cells: Mapping[str, Figures]) -> dict[str, dict[str, float]]:
    """Accuracies under corruption of the final runs that have them."""
    return {cell: f["corruptions"] for cell, f in cells.items() if cell.startswith("final") and f.get("corruptions")}


def _words(name: str) -> str:
    """``gaussian_noise-3`` as it stands below an axis."""
    kind, _, severity = name.partition("-")
    return f"{kind.replace('_', ' ')}, {severity}" if severity else kind


CHECK = VtabCorruptions()
