"""GLoRA with balanced steps against LoRA on text, both on all linear layers.

paper-checks run glora.glue_balanced --data DIR --out paper_checks/results
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paper_checks.core import SMALL, Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.statistics.paired import paired
from paper_checks.statistics.rates import settle
from paper_checks.studies.glue.study import METHODS, Study, final, score, selection

LORA, GLORA = "lora_all", "glora_all"
LABELS = {LORA: "LoRA of rank 4", GLORA: "GLoRA of rank 1, balanced"}


class GlueBalanced(Check):
    """See the module's docstring."""

    id = "glora.glue_balanced"
    claim = "With balanced steps, GLoRA is more accurate than LoRA of about its size on GLUE tasks (ours)."
    short = "With balanced steps, GLoRA beats LoRA on GLUE."
    scale = "MiniLM-L6, 1,500 and 2,000 examples"
    words = SMALL
    where = "not in the paper, which has no GLUE; here MiniLM-L6, MRPC and SST-2, parts of train"
    rule = (
        "Both on all linear layers, GLoRA (A, B, C low-rank, D, E) of rank 1 with measured steps, LoRA of rank 4 with "
        "raw ones, each at the learning rate that the loss on a part of train chooses from a grid that is extended "
        "while its best lies at an end; three seeds each; the development set is seen once. Reproduced if on both "
        "tasks the 95 % interval of the paired difference over examples and seeds lies above 0, not reproduced if one "
        "lies below, else undecided; undecided while a run is missing."
    )
    needs = ("data/glue", "models/minilm-l6", "about 2 hours of one CPU core")
    study = Study(tasks={"mrpc": 1500, "sst2": 2000}, methods=(LORA, GLORA))

    def cells(self, context: Context) -> Sequence[str]:
        tasks, methods = self.study.tasks, self.study.methods
        rates = [cell for task in tasks for method in methods for cell in self.study.rates(task, method)]
        return [*rates, *(f"{t}.{m}.seed{s}" for s in range(self.study.seeds) for t in tasks for m in methods)]

    def compute(self, context: Context, cell: str) -> Figures:
        task, method, step = cell.split(".", 2)
        if step.startswith("rate"):
            return selection(self.study, context, task, method, float(step[4:]))
        grid = METHODS[method].rates
        rate = settle(grid, lambda rate: score(self.need(context, f"{task}.{method}.rate{rate:g}")))
        return final(self.study, context, task, method, rate, int(step[4:]))

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows, sentences, signs, missing = [], [], [], 0
        for task in self.study.tasks:
            runs = {m: [cells.get(cell) for cell in self.study.finals(task, m)] for m in self.study.methods}
            for method, found in runs.items():
                done = [figures for figures in found if figures]
                missing += len(found) - len(done)
                if done:
                    accuracy = float(np.mean([figures["accuracy"] for figures in done]))
                    rows.append(Row(f"{task.upper()}: {LABELS[method]} (%)", None, accuracy))
                    rows.append(Row(f"{task.upper()}: {LABELS[method]}: rate", None, done[0]["rate"]))
                    rows.append(Row(f"{task.upper()}: {LABELS[method]}: parameters", None, done[0]["parameters"]))
            pairs = [(one, other) for one, other in zip(runs[GLORA], runs[LORA], strict=True) if one and other]
            if len(pairs) > 1:
                found = paired([one for one, _ in pairs], [other for _, other in pairs])
                low, high = found.interval
                signs.append((low > 0) - (high < 0))
                sentences.append(f"{task.upper()}: GLoRA − LoRA {found.text} points")
        summary = "; ".join(sentences) or "no pair of seeds is finished yet"
        if missing:
            summary += f"; {missing} final runs are missing"
            return Outcome(Verdict.UNDECIDED, summary, tuple(rows))
        if -1 in signs:
            return Outcome(Verdict.NOT_REPRODUCED, summary, tuple(rows))
        verdict = Verdict.REPRODUCED if all(sign > 0 for sign in signs) else Verdict.UNDECIDED
        return Outcome(verdict, summary, tuple(rows))


CHECK = GlueBalanced()
