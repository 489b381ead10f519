"""What the trained α looks like: its mean and spread, and whether seeds and tasks agree on it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.studies.glue.comparison import CLAIMED
from paper_checks.studies.glue.comparison import FAIR as STUDY
from rmt.plot import COLOURS, legend, name_axes, panels

#: Mean, standard deviation and share below 1 of the paper's trained scales (18,432 on RoBERTa-base).
PAPER = {"RTE": (0.9975, 0.044, 0.524), "QNLI": (0.9973, 0.157, 0.514), "MNLI": (1.0021, 0.189, 0.505)}
PERMUTATIONS = 1000

Scales = dict[str, NDArray[np.floating[Any]]]


class GlueAlpha(Check):
    """See the module's docstring."""

    id = "alpha_lora.glue_alpha"
    claim = "The trained α is spread around 1, in a pattern that belongs to the model rather than to chance."
    where = "α-LoRA, appendix: trained α per layer of RoBERTa-base on MNLI, QNLI, RTE"
    rule = (
        "From the runs of alpha_lora.glue_fair. Reproduced if in every task the mean of α lies within .02 of 1 "
        "and the mean rank correlation of α (row by row, within each matrix) between seeds is above the 99 % "
        "quantile of its null, in which rows are permuted; not reproduced if either fails in a task; "
        "undecided with fewer than two seeds. The correlation between tasks is reported with its own null."
    )
    needs = ("finished cells of alpha_lora.glue_fair",)

    def cells(self, context: Context) -> Sequence[str]:
        return tuple(STUDY.study.tasks)

    def compute(self, context: Context, cell: str) -> Figures:
        runs = stored_scales(context, cell)
        if not runs:
            raise NotAvailable(f"needs finished α-LoRA runs of {STUDY.id} on {cell}; run that check first")
        # The id that the check had when its cells were computed: the same seeds.
        seed = context.seed_for("glora.glue_alpha", cell)
        pairs = list(itertools.combinations(runs, 2))
        others = [task for task in STUDY.study.tasks if task != cell]
        between = [pair for task in others for pair in itertools.product(runs, stored_scales(context, task))]
        every = [np.concatenate(list(run.values())) for run in runs]
        return {
            "seeds": len(runs),
            "mean": [float(values.mean()) for values in every],
            "spread": [float(values.std()) for values in every],
            "below_one": [float((values < 1).mean()) for values in every],
            "range": [float(min(v.min() for v in every)), float(max(v.max() for v in every))],
            "matrices": {
                name: [
                    float(np.mean([run[name].mean() for run in runs])),
                    float(np.mean([run[name].std() for run in runs])),
                ]
                for name in runs[0]
            },
            "between_seeds": _mean_correlation(pairs),
            "between_tasks": _mean_correlation(between),
            "null": _null(pairs, seed),
            "null_tasks": _null(between, seed + 1),
        }

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows = [Row(f"{task}: mean of α (paper, RoBERTa-base)", mean, "–") for task, (mean, _, _) in PAPER.items()]
        rows += [Row(f"{task}: spread of α (paper)", spread, "–") for task, (_, spread, _) in PAPER.items()]
        good, sentences = [], []
        for task, figures in cells.items():
            name, mean = task.upper(), float(np.mean(figures["mean"]))
            rows.append(Row(f"{name}: mean of α", None, mean))
            rows.append(Row(f"{name}: spread of α", None, float(np.mean(figures["spread"]))))
            rows.append(Row(f"{name}: share below 1", None, float(np.mean(figures["below_one"]))))
            text = f"{name}: mean {mean:.4f}, spread {np.mean(figures['spread']):.4f}"
            if figures["seeds"] > 1:
                rows.append(Row(f"{name}: rank correlation between seeds", None, figures["between_seeds"]))
                text += f", rank correlation between seeds {figures['between_seeds']:.3f} (null {figures['null']:.3f})"
                good.append(abs(mean - 1) <= 0.02 and figures["between_seeds"] > figures["null"])
            if figures["between_tasks"] is not None:
                rows.append(Row(f"{name}: rank correlation with the other task", None, figures["between_tasks"]))
                rows.append(Row(f"{name}: the same, 99 % quantile of the null", None, figures["null_tasks"]))
            sentences.append(text + ".")
        if len(good) < len(STUDY.study.tasks):
            verdict = Verdict.UNDECIDED
            sentences.append("Fewer than two seeds of some task have been run.")
        else:
            verdict = Verdict.REPRODUCED if all(good) else Verdict.NOT_REPRODUCED
        return Outcome(verdict, " ".join(sentences), tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        """Mean ± spread of α, matrix by matrix."""
        figure, axes = panels(len(cells), width=5.0, height=3.2)
        for axis, (task, figures) in zip(axes[0], cells.items(), strict=True):
            for colour, kind in zip(COLOURS, ("query", "value"), strict=False):
                values = np.array([v for name, v in figures["matrices"].items() if name.endswith(kind)])
                layers = np.arange(1, len(values) + 1) + (0.1 if kind == "value" else -0.1)
                axis.errorbar(layers, values[:, 0], yerr=values[:, 1], fmt="o", color=colour, capsize=2, label=kind)
            axis.axhline(1.0, color=COLOURS[5], linewidth=0.8)
            name_axes(axis, "layer", "trained α (mean ± spread over rows)", task.upper())
            legend(axis)
        return figure


def stored_scales(context: Context, task: str) -> list[Scales]:
    """Trained α by matrix of every finished run of α-LoRA (Algorithm 1) on a task."""
    finished = STUDY.finished(context.out)
    cells = [finished[cell] for cell in STUDY.study.finals(task, CLAIMED) if cell in finished]
    return [{name: np.array(alpha) for name, alpha in figures["alpha"].items()} for figures in cells]


def _mean_correlation(pairs: Sequence[tuple[Scales, Scales]]) -> float | None:
    """Mean over pairs and matrices of Spearman's correlation over rows; None without pairs."""
    from scipy.stats import spearmanr

    values = [spearmanr(one[name], other[name]).statistic for one, other in pairs for name in one]
    return float(np.mean(values)) if values else None


def _null(pairs: Sequence[tuple[Scales, Scales]], seed: int) -> float | None:
    """99 % quantile of `_mean_correlation` when the rows of one of each pair are permuted."""
    from scipy.stats import rankdata

    if not pairs:
        return None
    draw = np.random.default_rng(seed)
    # shape: (pairs × matrices, rows), standardised ranks; a correlation is then a mean product
    first, second = (
        np.array([_standard(rankdata(pair[side][name])) for pair in pairs for name in pair[0]]) for side in (0, 1)
    )
    means = [float((first * draw.permuted(second, axis=1)).mean()) for _ in range(PERMUTATIONS)]
    return float(np.quantile(means, 0.99))


def _standard(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return (values - values.mean()) / values.std()


CHECK = GlueAlpha()
