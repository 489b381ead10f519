"""Figure 3: empirical accuracy against α on three Amazon transfers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

import rmt
from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.statistics.intervals import mean_and_error
from paper_checks.studies.real_data import Adaptation, DomainPair, fresh_splits, paper_splits, ridge_weights
from rmt.datasets import load_amazon
from rmt.plot import COLOURS, GREY, dots, legend, line, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRANSFERS = ("dvd-book", "book-kitchen", "kitchen-elec")
ROWS, SAMPLES = 2000, 40
GAMMA_SOURCE, GAMMA = 2.0, 0.1
SCALES = np.linspace(-4.0, 4.0, 81)
SEEDS = (123, 404, 1337)
BATCH = 10  # splits a seed and scale in the paper's code


class Figure3(Check):
    """See the module's docstring."""

    id = "alpha_lora.figure3"
    claim = "On Amazon reviews accuracy against α has its peak away from 0 and 1, above plain fine-tuning."
    short = "Some α beats α = 1 and α = 0 on real data."
    shown = ("dvd → book: gain over α = 1", "points over α = 1, dvd → book")
    scale = "Amazon reviews, n = 40"
    where = "α-LoRA, Figure 3"
    rule = (
        "The best of 81 scales is chosen on one half of the random splits and its gain over α = 1 and "
        "over α = 0 is measured on the other half, so that the choice does not flatter it. Reproduced "
        "if both gains exceed two standard errors in all three transfers, not reproduced if one gain "
        "is below −2 standard errors, otherwise undecided. The paper's own curve (new splits at every "
        "α, its seeds) is drawn beside it."
    )
    needs = ("data/amazon_review",)

    def cells(self, context: Context) -> Sequence[str]:
        return TRANSFERS

    def compute(self, context: Context, cell: str) -> Figures:
        source, target = cell.split("-")
        domains = load_amazon(context.folder("data", "amazon_review"))
        pair = DomainPair(domains[source].standardised(), domains[target].standardised())
        weights = ridge_weights(pair.source, GAMMA_SOURCE, ROWS)
        adaptation = Adaptation(pair.target, weights)
        count = 20 if context.quick else 100
        splits = fresh_splits(context.seed_for(self.id, cell), adaptation.size, SAMPLES, count)
        # shape: (splits, α), all scales on the same splits
        curves = 100.0 * np.array([adaptation.split(*rows).accuracy(SCALES, GAMMA) for rows in splits])
        score = rmt.theory(pair.measured_setting(SAMPLES, GAMMA, weights))
        chosen = int(np.argmax(curves[::2].mean(axis=0)))
        held_out = curves[1::2]
        zero, one = (int(np.argmin(np.abs(SCALES - scale))) for scale in (0.0, 1.0))
        mean, error = mean_and_error(curves)
        return {
            "splits": count,
            "alpha": np.round(SCALES, 10),
            "mean": np.round(mean, 3),
            "stderr": np.round(error, 3),
            "theory": np.round(100.0 * score.accuracy(SCALES), 3),
            "alpha_star": {"empirical": round(float(SCALES[chosen]), 10), "theory": float(score.alpha_star)},
            "gain_over_plain": mean_and_error(held_out[:, chosen] - held_out[:, one]),
            "gain_over_target_only": mean_and_error(held_out[:, chosen] - held_out[:, zero]),
            "best": mean_and_error(held_out[:, chosen]),
            "source_only": 100.0 * float(np.mean(pair.target.labels * (pair.target.features @ weights) > 0)),
            "paper_curve": None if context.quick else _paper_curve(adaptation),
        }

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows, z = [], []
        for cell, figures in cells.items():
            name = cell.replace("-", " → ")
            scales = figures["alpha_star"]
            rows.append(
                Row(
                    f"{name}: best α (isotropic theory with the measured source {scales['theory']:.2f})",
                    None,
                    scales["empirical"],
                )
            )
            rows.append(
                Row(
                    f"{name}: accuracy there (source-only {figures['source_only']:.2f}) (%)",
                    None,
                    *figures["best"],
                )
            )
            for key, label in (("gain_over_plain", "over α = 1"), ("gain_over_target_only", "over α = 0")):
                gain, error = figures[key]
                rows.append(Row(f"{name}: gain {label} (points)", None, gain, error))
                z.append(gain / error if error else np.sign(gain) * np.inf)
        verdict = Verdict.REPRODUCED if min(z) > 2 else Verdict.UNDECIDED
        verdict = Verdict.NOT_REPRODUCED if min(z) < -2 else verdict
        found = "; ".join(
            f"{cell.replace('-', ' → ')}: best at α = {figures['alpha_star']['empirical']:.1f}"
            f"{' (the end of the range)' if figures['alpha_star']['empirical'] == round(SCALES[-1], 10) else ''}, "
            f"{figures['gain_over_plain'][0]:+.2f} ± {figures['gain_over_plain'][1]:.2f} points over α "
            f"= 1, {figures['best'][0] - figures['source_only']:+.2f} against the source alone"
            for cell, figures in cells.items()
        )
        return Outcome(verdict, f"{found}.", tuple(rows))

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        figure, axes = panels(len(cells), width=3.6, height=3.0)
        for axis, (cell, figures) in zip(axes[0], cells.items(), strict=True):
            if figures["paper_curve"] is not None:
                axis.plot(
                    figures["alpha"],
                    figures["paper_curve"],
                    color=GREY,
                    linewidth=0.9,
                    label="paper's curve (folded at 1/2)",
                )
            line(axis, figures["alpha"], figures["theory"], label="theory, C = I, measured source")
            every = slice(None, None, 4)
            columns = [figures[key][every] for key in ("alpha", "mean", "stderr")]
            dots(axis, *columns, label="real features")
            axis.axhline(figures["source_only"], color=COLOURS[2], linestyle="--", linewidth=1, label="source-only")
            axis.axvline(figures["alpha_star"]["empirical"], color=COLOURS[3], linewidth=0.8)
            name_axes(axis, "α", "test accuracy (%)", cell.replace("-", " → "))
        legend(axes[0, 0])
        return figure


def _paper_curve(adaptation: Adaptation) -> list[float]:
    """The paper's curve: for each seed one stream of splits, ten new ones at every α, folded at 1/2."""
    total = np.zeros(len(SCALES))
    for seed in SEEDS:
        splits = paper_splits(seed, adaptation.size, SAMPLES, BATCH * len(SCALES))
        for index, alpha in enumerate(SCALES):
            values = [float(adaptation.split(*next(splits)).accuracy(alpha, GAMMA)) for _ in range(BATCH)]
            total[index] += float(np.mean([max(value, 1.0 - value) for value in values]))
    return [round(float(value), 3) for value in 100.0 * total / len(SEEDS)]


CHECK = Figure3()
