"""Is merged GLoRA as fast as the model it was made from?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paper_checks.core import Context, Figures, Outcome, Row, Verdict
from paper_checks.glora.vtab_study import Study


class VtabMerging(Study):
    """See the module's docstring."""

    id = "glora.vtab_merging"
    claim = "After merging, GLoRA costs nothing at inference."
    where = "GLoRA, Section 2.4 (structural re-parameterisation)"
    rule = (
        "Forward passes of the base model, an attached random subnet and its merged copy are timed in turn, 40 times "
        "each. Reproduced if the median ratio merged / base lies within 0.95 to 1.05, else not reproduced; the "
        "unmerged ratio is reported."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return ("latency-vit",)

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        figures = cells.get("latency-vit")
        if figures is None:
            return Outcome(Verdict.NOT_RUN, "the latency has not been measured")
        ratio, error = figures["ratio"], figures["error"]
        free = 0.95 <= ratio["merged"] <= 1.05
        rows = (
            Row("merged / base, time of a forward pass", 1.0, ratio["merged"], error["merged"]),
            Row("unmerged / base", None, ratio["unmerged"], error["unmerged"]),
        )
        summary = f"merged {ratio['merged']:.3f} of the base model's time, unmerged {ratio['unmerged']:.2f}"
        return Outcome(Verdict.REPRODUCED if free else Verdict.NOT_REPRODUCED, summary, rows)


CHECK = VtabMerging()
