"""Does one learning rate serve every structure once steps are balanced?

Not a claim of the paper. It judges cells of the study of `glora.vtab_balanced`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paper_checks.core import COMMITTED, OURS, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.vision.balanced import ONE_RATE, BalancedStudy
from paper_checks.studies.vision.methods import label

FACTOR = 2.5


class OneRate(BalancedStudy):
    """See the module's docstring."""

    id = "glora.one_rate"
    claim = (
        "With balanced steps, LoRA's learning rate is the best one, within a factor 2.5, for every structure (ours)."
    )
    where = "not in the paper: GLoRA's tensors share one learning rate"
    rule = (
        "On each of two tasks, each structure's best rate on val200 after four epochs (one seed), from a grid in "
        "factors of 2 to 2.5 that is extended while its best lies at an end, over LoRA's. Reproduced if every ratio "
        f"lies within a factor {FACTOR:g} of 1, not reproduced if one does not, undecided while one is missing and "
        "none lies outside. Rates whose accuracies differ by 3 points, the standard error of 200 images, are not told "
        "apart by this, so what is lost at LoRA's rate is reported."
    )
    short = "With balanced steps, LoRA's learning rate serves every structure."
    scale = "ViT-S/14 at 56 px, two tasks"
    words = OURS
    needs = ("data/vtab", "models/vit-s14", "PyTorch, transformers and Pillow", "about 2 h of one core")

    def cells(self, context: Context) -> Sequence[str]:
        return [f"best-{task}-{method}" for method in ONE_RATE for task in self.plan.tasks]

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows, inside, outside, missing = [], 0, [], []
        for cell in self.cells(Context(out=COMMITTED)):
            _, task, method = cell.split("-")
            name, lora = f"{label(method)} on {task}", cells.get(f"best-{task}-lora")
            if cell not in cells or lora is None:
                missing.append(name)
                continue
            ratio = cells[cell]["lr"] / lora["lr"]
            fits = ratio * (1 + 1e-9) >= 1 / FACTOR and ratio <= FACTOR * (1 + 1e-9)
            inside += fits
            if not fits:
                outside.append(f"{name} ({ratio:.2g} ×)")
            found = cells[cell]["validation"]
            rows.append(
                Row(f"{task}: {label(method)}: best rate", None, f"{cells[cell]['lr']:g} ({ratio:.2g} × LoRA's)")
            )
            lost = max(found.values()) - found.get(f"{lora['lr']:g}", float("nan"))
            rows.append(Row(f"{task}: {label(method)}: lost at LoRA's rate (points of val200)", None, lost))
        summary = f"{inside} of {inside + len(outside)} best rates lie within a factor {FACTOR:g} of LoRA's"
        if outside:
            summary += f"; outside: {', '.join(outside)}"
        if missing:
            summary += f"; {len(missing)} not measured: {', '.join(missing)}"
        verdict = Verdict.NOT_REPRODUCED if outside else Verdict.UNDECIDED if missing else Verdict.REPRODUCED
        return Outcome(verdict, summary, tuple(rows))


CHECK = OneRate()
