"""What T, α's learning rate, the held-out fraction and the official overlap do to α-LoRA, on MRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paper_checks.core import Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.glora.glue_cells import METHODS, best_rate, train_one
from paper_checks.glora.glue_fair import CHECK as STUDY
from paper_checks.glora.glue_fair import CLAIMED
from rmt.plot import dots, name_axes, panels

TASK, SEEDS = "mrpc", 2
BASE = "base"
#: Changes of ``[training.alpha]``, in the order of their value; the base has T = 10, lr = 5e-3, fraction = .2.
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "T1": {"every": 1},
    "T20": {"every": 20},
    "overlap": {"source": "overlap"},
    "lr0.02": {"lr": 2e-2},
    "lr0.001": {"lr": 1e-3},
    "fraction0.05": {"fraction": 0.05},
    "fraction0.4": {"fraction": 0.4},
    "decay0.1": {"decay": 0.1},
}


class GlueSensitivity(Check):
    """See the module's docstring."""

    id = "glora.glue_sensitivity"
    claim = "How α is trained (T, its learning rate, the held-out fraction) hardly matters."
    where = "α-LoRA uses T = 1 in one table and 20 in another without a word; reviewers 2 and 4 ask"
    rule = (
        "Accuracy on the validation part of MRPC's training examples, two seeds, learning rate of the adapter as "
        "chosen in glora.glue_fair. Not reproduced if a variant differs from the base by more than three "
        "standard errors (binomial, of a difference of two runs, over two seeds); reproduced if all differences "
        "are below one point and within three standard errors; else, or with cells missing, undecided."
    )
    needs = ("data/glue", "models/minilm-l6", "finished cells of glora.glue_fair", "about 75 CPU minutes")

    def cells(self, context: Context) -> Sequence[str]:
        if context.quick:
            return [f"{BASE}.seed0"]
        return [f"{variant}.seed{seed}" for variant in VARIANTS for seed in range(SEEDS)]

    def compute(self, context: Context, cell: str) -> Figures:
        variant, _, seed = cell.rpartition(".seed")
        finished = STUDY.finished(context.out)
        tried = {cell: finished[cell] for cell in STUDY.study.rates(TASK, CLAIMED) if cell in finished}
        if len(tried) < len(STUDY.study.rates(TASK, CLAIMED)):
            raise NotAvailable(f"needs the learning rates of {STUDY.id} on {TASK}; run that check first")
        done = train_one(
            STUDY.study,
            context,
            TASK,
            METHODS[CLAIMED],
            best_rate(tried),
            context.seed_for(self.id, seed),
            split="train",
            alpha=VARIANTS[variant],
        )
        metrics = done.result.history[-1]["validation"]
        return {
            "accuracy": metrics["accuracy"],
            "loss": metrics["loss"],
            "examples": done.task.size("validation"),
            "steps": done.result.steps,
            "alpha_steps": done.result.alpha_steps,
            "passes": done.result.passes,
            "train_seconds": done.result.seconds,
        }

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        table = _table(cells)
        rows = [
            Row(f"{variant}: accuracy on validation (%), {count} seeds", None, mean, error)
            for variant, (mean, error, count) in table.items()
        ]
        planned = len(VARIANTS) * SEEDS
        if len(cells) < planned or BASE not in table:
            return Outcome(Verdict.UNDECIDED, f"Not complete: {len(cells)} of {planned} cells.", tuple(rows))
        mean, error, _ = table[BASE]
        gaps = {v: (m - mean, float(np.hypot(e, error))) for v, (m, e, _) in table.items() if v != BASE}
        variant, (gap, _) = max(gaps.items(), key=lambda item: abs(item[1][0]))
        summary = f"The largest change is {gap:+.1f} points ({variant}); the base has {mean:.1f} %."
        if any(abs(gap) > 3 * error for gap, error in gaps.values()):
            return Outcome(Verdict.NOT_REPRODUCED, summary, tuple(rows))
        small = all(abs(gap) < 1.0 for gap, _ in gaps.values())
        return Outcome(Verdict.REPRODUCED if small else Verdict.UNDECIDED, summary, tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Accuracy of every variant."""
        table = _table(cells)
        figure, axes = panels(1, width=6.0, height=3.0)
        means, errors, _ = zip(*table.values(), strict=True)
        dots(axes[0, 0], range(len(table)), means, errors, label=None)
        axes[0, 0].set_xticks(range(len(table)), list(table), rotation=30, fontsize=8)
        name_axes(axes[0, 0], "", "accuracy on validation (%)", "MRPC, one change at a time")
        return figure


def _table(cells: Mapping[str, Figures]) -> dict[str, tuple[float, float, int]]:
    """Mean accuracy in percent, its binomial standard error, and the number of seeds, by variant."""
    found = {}
    for variant in VARIANTS:
        runs = [figures for cell, figures in cells.items() if cell.rpartition(".seed")[0] == variant]
        if runs:
            mean = float(np.mean([figures["accuracy"] for figures in runs]))
            share, examples = mean / 100, sum(figures["examples"] for figures in runs)
            found[variant] = (mean, 100 * float(np.sqrt(share * (1 - share) / examples)), len(runs))
    return found


CHECK = GlueSensitivity()
