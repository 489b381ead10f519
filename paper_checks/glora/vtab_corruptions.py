"""Does GLoRA keep more accuracy than LoRA on corrupted images?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paper_checks.core import Context, Figures, Outcome, Row, Verdict
from paper_checks.glora.vtab_statistics import Difference, decide
from paper_checks.glora.vtab_study import Study


class VtabCorruptions(Study):
    """See the module's docstring."""

    id = "glora.vtab_corruptions"
    claim = "GLoRA generalises better than LoRA to images from elsewhere."
    where = "GLoRA, Table 3 (ImageNet to -V2, -Sketch, -A, -R); here five corruptions at severities 3 and 5"
    rule = (
        "The tuned models of one seed are judged on 300 test images under five corruptions at two severities. "
        "Reproduced (not reproduced) if the 95 % t-interval of the paired difference of mean corrupted accuracy over "
        "tasks and corruptions lies above (below) 0; else undecided. The corruptions of a task share its images, so "
        "the interval is optimistic; it speaks of these corruptions, not of ImageNet's shifts."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return [
            cell
            for cell in dict.fromkeys(self.runs(("lora", "glora_searched")))
            if cell.endswith("s0") or "rate" in cell
        ]

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        from scipy.stats import t as student

        rows, differences = [], []
        finals = {
            cell: f["corruptions"] for cell, f in cells.items() if cell.startswith("final") and f.get("corruptions")
        }
        for cell, found in finals.items():
            task, method = cell.split("-")[1:3]
            corrupted = [value for name, value in found.items() if name != "clean"]
            rows.append(Row(f"{task}: {method}, corrupted (%)", None, float(np.mean(corrupted))))
            rows.append(Row(f"{task}: {method}, clean, the same images (%)", None, found["clean"]))
            twin = finals.get(f"final-{task}-lora-s0")
            if method == "glora_searched" and twin:
                differences += [found[name] - twin[name] for name in found if name != "clean"]
        if not differences:
            return Outcome(Verdict.UNDECIDED, "no pair of runs of searched GLoRA and LoRA is finished yet", tuple(rows))
        mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1) / np.sqrt(len(differences)))
        width = float(student.ppf(0.975, len(differences) - 1)) * error
        difference = Difference(mean, error, mean - width, mean + width, len(differences))
        verdict, summary = decide(difference, "searched GLoRA − LoRA under corruption")
        return Outcome(verdict, summary, tuple(rows))


CHECK = VtabCorruptions()
