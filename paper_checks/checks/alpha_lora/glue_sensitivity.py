"""What T, α's learning rate, the held-out fraction and the official overlap do to α-LoRA, on MRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import OURS, Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.statistics.paired import Paired, paired_values
from paper_checks.statistics.power import needed
from paper_checks.studies.glue.comparison import CLAIMED
from paper_checks.studies.glue.comparison import FAIR as STUDY
from paper_checks.studies.glue.study import METHODS, train_one
from rmt.plot import COLOURS, dots, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASK, SEEDS = "mrpc", 2
BASE = "base"
#: Nats of validation loss that hardly matter; neighbouring learning rates of the study differ by about so much.
MARGIN = 0.02
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
}


class GlueSensitivity(Check):
    """See the module's docstring."""

    id = "alpha_lora.glue_sensitivity"
    claim = "How α is trained (T, its learning rate, the held-out fraction) hardly matters."
    short = "How α is trained hardly matters."
    shown = ("lr0.02 − base", "nats for another rate of α")
    scale = "MiniLM-L6 on MRPC"
    words = OURS
    where = "α-LoRA uses T = 1 in one table and 20 in another without a word; reviewers 2 and 4 ask"
    rule = (
        "Loss on the validation part of MRPC's training examples, two seeds, learning rate of the adapter as chosen in "
        "alpha_lora.glue_fair; paired difference to the base over examples and seeds, 95 % interval with Bonferroni's "
        "correction for all variants. Not reproduced if the interval of a variant lies beyond .02 nats on either "
        "side; reproduced if all lie within .02; else, or with cells missing, undecided; so too if the base does not "
        "beat the loss of a constant answer by two standard errors. Accuracies are reported; they are too coarse."
    )
    needs = ("data/glue", "models/minilm-l6", "finished cells of alpha_lora.glue_fair", "about 75 CPU minutes")

    def cells(self, context: Context) -> Sequence[str]:
        if context.quick:
            return [f"{BASE}.seed0"]
        return [f"{variant}.seed{seed}" for variant in VARIANTS for seed in range(SEEDS)]

    def compute(self, context: Context, cell: str) -> Figures:
        from scipy.special import entr, log_softmax

        variant, _, seed = cell.rpartition(".seed")
        first = STUDY.finished(context.out).get(STUDY.study.finals(TASK, CLAIMED)[0])
        if first is None:
            raise NotAvailable(f"needs the first α-LoRA run of {STUDY.id} on {TASK}; run that check first")
        done = train_one(
            STUDY.study,
            context,
            TASK,
            METHODS[CLAIMED],
            first["rate"],
            # The id that the check had when its cells were computed: the same seeds.
            context.seed_for("glora.glue_sensitivity", seed),
            split="train",
            alpha=VARIANTS[variant],
        )
        logits, labels = done.task.logits(done.model, "validation").double().numpy(), done.task.labels("validation")
        each = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
        return {
            "losses": np.round(each, 5),
            "accuracy": 100.0 * float((logits.argmax(1) == labels).mean()),
            "constant": float(entr(np.bincount(labels) / len(labels)).sum()),
            "steps": done.result.steps,
            "alpha_steps": done.result.alpha_steps,
            "passes": done.result.passes,
            "train_seconds": done.result.seconds,
        }

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        table = _table(cells)
        rows = []
        for variant, (losses, accuracy) in table.items():
            rows.append(Row(f"{variant}: loss on validation (nats), {len(losses)} seeds", None, float(losses.mean())))
            rows.append(Row(f"{variant}: accuracy on validation (%)", None, accuracy))
        planned = len(VARIANTS) * SEEDS
        gaps = _gaps(table)
        for variant, gap in gaps.items():
            rows.append(Row(f"{variant} − base: loss (nats)", None, gap.mean, gap.error))
        if len(cells) < planned:
            return Outcome(Verdict.UNDECIDED, f"Not complete: {len(cells)} of {planned} cells.", tuple(rows))
        level = 1 - 0.05 / len(gaps)
        base, constant = table[BASE][0], next(iter(cells.values()))["constant"]
        known = constant - base.mean() > 2 * float(base.mean(0).std(ddof=1) / np.sqrt(base.shape[1]))
        variant, gap = max(gaps.items(), key=lambda item: abs(item[1].mean))
        low, high = gap.interval_at(level)
        summary = (
            f"The largest change of the loss is {gap.mean:+.3f} nats [{low:+.3f}, {high:+.3f}] ({variant}); the base "
            f"has {base.mean():.3f} and {table[BASE][1]:.1f} %, a constant answer {constant:.3f}."
        )
        if not known:
            summary += " The base does not beat a constant answer clearly: no number of seeds decides anything here."
            return Outcome(Verdict.UNDECIDED, summary, tuple(rows))
        intervals = [gap.interval_at(level) for gap in gaps.values()]
        if any(low > MARGIN or high < -MARGIN for low, high in intervals):
            return Outcome(Verdict.NOT_REPRODUCED, summary, tuple(rows))
        small = all(low > -MARGIN and high < MARGIN for low, high in intervals)
        if small:
            return Outcome(Verdict.REPRODUCED, summary, tuple(rows))
        # The widest interval, on the side where it comes closest to leaving the margin, is what must shrink.
        widest = max(gaps.values(), key=lambda gap: gap.error)
        summary += f" To tell changes of {MARGIN:g} nats apart, {needed(MARGIN, widest.parts)}."
        return Outcome(Verdict.UNDECIDED, summary, tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        """Change of the loss by every variant."""
        gaps = _gaps(_table(cells))
        if not gaps:
            return None
        figure, axes = panels(1, width=6.0, height=3.0)
        values = list(gaps.values())
        dots(axes[0, 0], range(len(gaps)), [gap.mean for gap in values], [gap.error for gap in values], label=None)
        axes[0, 0].axhline(0.0, color=COLOURS[0], linewidth=0.9)
        axes[0, 0].set_xticks(range(len(gaps)), list(gaps), rotation=30, fontsize=8)
        name_axes(axes[0, 0], "", "loss on validation − base's (nats)", "MRPC, one change at a time")
        return figure


def _table(cells: Mapping[str, Figures]) -> dict[str, tuple[NDArray[np.floating[Any]], float]]:
    """Losses of validation examples, shape (seeds, examples), and mean accuracy in percent, by variant."""
    found = {}
    for variant in VARIANTS:
        runs = [cells[cell] for seed in range(SEEDS) if (cell := f"{variant}.seed{seed}") in cells]
        if runs:
            losses = np.array([figures["losses"] for figures in runs])
            found[variant] = (losses, float(np.mean([figures["accuracy"] for figures in runs])))
    return found


def _gaps(table: Mapping[str, tuple[NDArray[np.floating[Any]], float]]) -> dict[str, Paired]:
    """Paired difference of the loss to the base's by variant, over the seeds that both have."""
    if BASE not in table:
        return {}
    base = table[BASE][0]
    found = {}
    for variant, (losses, _) in table.items():
        both = min(len(losses), len(base))
        if variant != BASE:
            found[variant] = paired_values(losses[:both] - base[:both])
    return found


CHECK = GlueSensitivity()
