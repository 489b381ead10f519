"""What the trained α looks like: its mean and spread, and whether seeds and tasks agree on it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paper_checks.core import SMALL, Check, Context, Figures, NotAvailable, Outcome, Row, Verdict
from paper_checks.studies.glue.comparison import CLAIMED
from paper_checks.studies.glue.comparison import FAIR as STUDY
from rmt.plot import COLOURS, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Mean, standard deviation and share below 1 of the paper's trained scales (18,432 on RoBERTa-base).
PAPER = {"RTE": (0.9975, 0.044, 0.524), "QNLI": (0.9973, 0.157, 0.514), "MNLI": (1.0021, 0.189, 0.505)}
PERMUTATIONS = 1000
LEAST = 0.3  #: correlation between seeds below which chance makes nearly all of the pattern
NOISE = "noise"  #: the cell of the null in which gradients are noise

Scales = dict[str, NDArray[np.floating[Any]]]


class GlueAlpha(Check):
    """See the module's docstring."""

    id = "alpha_lora.glue_alpha"
    claim = "The trained α is spread around 1, in a pattern that belongs to the model rather than to chance."
    short = "The trained α has a pattern that belongs to the model."
    shown = ("MRPC: rank correlation between seeds", "rank correlation of seeds, MRPC")
    scale = "MiniLM-L6 (paper: RoBERTa-base)"
    words = SMALL
    where = "α-LoRA, appendix: trained α per layer of RoBERTa-base on MNLI, QNLI, RTE"
    rule = (
        "From the runs of alpha_lora.glue_fair. Reproduced if in every task the mean of α lies within .02 of 1; the "
        "mean rank correlation of α (row by row, within each matrix) between seeds is at least .3 and above the 99 % "
        "quantile of its null, in which rows are permuted; so is, of whatever size, that between tasks, which share "
        "the model; and the spread of α exceeds what the same number of Adam's steps make of pure noise. Not "
        "reproduced if one of these fails in a task; undecided with fewer than two seeds of a task or without the "
        "noise."
    )
    needs = ("finished cells of alpha_lora.glue_fair",)

    def cells(self, context: Context) -> Sequence[str]:
        return (*STUDY.study.tasks, NOISE)

    def compute(self, context: Context, cell: str) -> Figures:
        if cell == NOISE:
            return self._noise(context)
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
        noise = cells.get(NOISE, {})
        for task, figures in cells.items():
            if task == NOISE:
                continue
            name, mean = task.upper(), float(np.mean(figures["mean"]))
            rows.append(Row(f"{name}: mean of α", None, mean))
            rows.append(Row(f"{name}: spread of α", None, float(np.mean(figures["spread"]))))
            rows.append(Row(f"{name}: share below 1", None, float(np.mean(figures["below_one"]))))
            text = f"{name}: mean {mean:.4f}, spread {np.mean(figures['spread']):.4f}"
            if figures["seeds"] > 1:
                rows.append(Row(f"{name}: rank correlation between seeds", None, figures["between_seeds"]))
                text += f", rank correlation between seeds {figures['between_seeds']:.3f} (null {figures['null']:.3f})"
                good.append(
                    abs(mean - 1) <= 0.02
                    and figures["between_seeds"] > max(figures["null"], LEAST)
                    and figures["between_tasks"] is not None
                    and figures["between_tasks"] > figures["null_tasks"]
                    and task in noise
                    and float(np.mean(figures["spread"])) > noise[task]["spread"]
                )
            if task in noise:
                rows.append(Row(f"{name}: spread that Adam makes of pure noise", None, noise[task]["spread"]))
                text += f", noise alone would spread it by {noise[task]['spread']:.4f}"
            if figures["between_tasks"] is not None:
                text += f", between tasks {figures['between_tasks']:.3f} (null {figures['null_tasks']:.3f})"
                rows.append(Row(f"{name}: rank correlation with the other task", None, figures["between_tasks"]))
                rows.append(Row(f"{name}: the same, 99 % quantile of the null", None, figures["null_tasks"]))
            sentences.append(text + ".")
        if len(good) < len(STUDY.study.tasks) or not noise:
            verdict = Verdict.UNDECIDED
            sentences.append("Fewer than two seeds of some task have been run, or the noise has not.")
        else:
            verdict = Verdict.REPRODUCED if all(good) else Verdict.NOT_REPRODUCED
        return Outcome(verdict, " ".join(sentences), tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        """Mean ± spread of α, matrix by matrix."""
        tasks = {task: figures for task, figures in cells.items() if task != NOISE}
        if not tasks:
            return None
        figure, axes = panels(len(tasks), width=5.0, height=3.4)
        for axis, (task, figures) in zip(axes[0], tasks.items(), strict=True):
            for colour, kind in zip(COLOURS, ("query", "value"), strict=False):
                values = np.array([v for name, v in figures["matrices"].items() if name.endswith(kind)])
                layers = np.arange(1, len(values) + 1) + (0.1 if kind == "value" else -0.1)
                axis.errorbar(layers, values[:, 0], yerr=values[:, 1], fmt="o", color=colour, capsize=2, label=kind)
            axis.axhline(1.0, color=COLOURS[5], linewidth=0.8)
            name_axes(axis, "layer", "trained α (mean ± spread over rows)", task.upper())
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
        return figure

    def _noise(self, context: Context) -> Figures:
        """What Adam makes of gradients that are noise alone, in as many steps as the runs made, from α = 1."""
        try:
            import torch

            from glora.runs.settings import AlphaSettings
        except ImportError as error:
            raise NotAvailable(f"needs {error.name}; pip install 'rescale-and-adapt[hf,learn]'") from None
        settings, finished = AlphaSettings(), STUDY.finished(context.out)
        figures: Figures = {}
        for task in STUDY.study.tasks:
            run = finished.get(STUDY.study.finals(task, CLAIMED)[0])
            if run is None:
                continue
            generator = torch.Generator().manual_seed(context.seed_for(self.id, NOISE, task) >> 1)
            alpha = torch.nn.Parameter(torch.ones(20_000))
            optimizer = torch.optim.Adam([alpha], lr=settings.lr, betas=settings.betas)
            for _ in range(run["alpha_steps"]):
                alpha.grad = torch.randn(alpha.shape, generator=generator)
                optimizer.step()
            figures[task] = {"steps": run["alpha_steps"], "spread": float(alpha.detach().std())}
        if not figures:
            raise NotAvailable(f"needs finished α-LoRA runs of {STUDY.id}; run that check first")
        return figures


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
