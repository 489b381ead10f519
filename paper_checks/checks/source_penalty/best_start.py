"""The penalty that makes the best source against the one that makes the best start, for ridge sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import rmt
from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict
from rmt.plot import COLOURS, GREY, legend, name_axes, panels

P, BATCH, CELLS = 80, 8, 4
APART = 1.25  #: factor beyond which two penalties count as different
SHARE, Z_LIMIT = 0.9, 4.0


class BestStart(Check):
    """See the module's docstring."""

    id = "source_penalty.best_start"
    claim = "The source penalty that is best after transfer is not the one that is best for the source task."
    short = "The best source is not the best start."
    shown = ("settings with different", "of 32 settings with different penalties")
    scale = "p = 80, ridge source and ridge adapter, drawn data"
    where = "arXiv 2511.08401, abstract: the transfer-optimal source regularisation differs from the source-optimal one"
    rule = (
        f"Reproduced if at α = 1 theory's two best penalties differ by a factor above {APART:g} in at least "
        f"{100 * SHARE:g} % of the random settings, and on drawn data the transfer-optimal one gives more accuracy "
        f"after transfer over all settings (z > {Z_LIMIT:g}, paired draws) and in none less (z < −{Z_LIMIT:g}); not "
        "reproduced if the penalties differ in fewer settings or the gain is not above 0; else undecided. Settings: "
        "noise eigenvalues log-uniform over a factor 20, n from 20 to 80, N from 40 to 400, γ from 0.1 to 10, ‖μ‖ and "
        "‖m‖ from 1 to 2, cosine between them from 0 to 1."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return [f"batch{index}" for index in range(1 if context.quick else CELLS)]

    def compute(self, context: Context, cell: str) -> Figures:
        rng = np.random.default_rng(context.seed_for(self.id, cell))
        draws = 20 if context.quick else 200
        settings = [random_setting(rng) for _ in range(2 if context.quick else BATCH)]
        seeds = [context.seed_for(self.id, cell, str(index)) for index in range(len(settings))]
        return {
            "draws": draws,
            "settings": [_one(*pair, draws, seed) for pair, seed in zip(settings, seeds, strict=True)],
        }

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        records = [record for figures in cells.values() for record in figures["settings"]]
        apart = [abs(np.log(one["transfer"] / one["source"])) > np.log(APART) for one in records]
        gain = float(np.mean([one["gain"] for one in records]))
        error = float(np.sqrt(np.sum([one["error"] ** 2 for one in records]))) / len(records)
        best = float(np.mean([one["best_gain"] for one in records]))
        worst = min(one["gain"] / one["error"] if one["error"] else 0.0 for one in records)
        share, z = float(np.mean(apart)), gain / error
        if share < SHARE or gain <= 0:
            verdict = Verdict.NOT_REPRODUCED
        else:
            verdict = Verdict.REPRODUCED if z > Z_LIMIT and worst >= -Z_LIMIT else Verdict.UNDECIDED
        more = sum(one["transfer"] > one["source"] for one in records)
        return Outcome(
            verdict,
            f"The two penalties differ by more than a factor {APART:g} in {sum(apart)} of {len(records)} settings "
            f"({more} want more for transfer, {len(records) - more} less); the transfer-optimal one gains {gain:.2f} "
            f"points after plain fine-tuning (z = {z:.0f}).",
            (
                Row("settings with different penalties", None, f"{sum(apart)} of {len(records)}"),
                Row("gain after transfer at α = 1 (points)", None, gain, error),
                Row("smallest z of a setting's gain", None, worst),
                Row("gain at the best α of each (points, theory)", None, best),
                Row("settings that want more penalty for transfer", None, f"{more} of {len(records)}"),
            ),
        )

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        records = [record for figures in cells.values() for record in figures["settings"]]
        figure, axes = panels(2)
        left, right = axes[0]
        cosine = [one["cosine"] for one in records]
        left.scatter(cosine, [one["transfer"] / one["source"] for one in records], color=COLOURS[0], s=16)
        left.axhline(1.0, color=GREY)
        left.set_yscale("log")
        name_axes(left, "cosine of μ and m", "γ̃ for transfer / γ̃ for the source", "best penalties, theory")
        error = [2 * one["error"] for one in records]
        right.errorbar(
            cosine, [one["gain"] for one in records], error, fmt="o", ms=3, color=COLOURS[1], label="drawn data"
        )
        right.scatter(cosine, [one["theory_gain"] for one in records], color=COLOURS[0], s=9, zorder=4, label="theory")
        right.axhline(0.0, color=GREY)
        name_axes(right, "cosine of μ and m", "points of accuracy at α = 1", "what the transfer-optimal γ̃ gains")
        legend(right)
        return figure


def random_setting(rng: np.random.Generator) -> tuple[rmt.GaussianTransfer, float]:
    """A setting with one ridge source, and the cosine between the two tasks' means."""
    values = np.exp(rng.uniform(0.0, np.log(20.0), P))
    values /= values.mean()
    axes = np.linalg.qr(rng.standard_normal((P, 2)))[0].T
    cosine = float(rng.uniform(0.0, 1.0))
    direction = cosine * axes[0] + np.sqrt(1.0 - cosine**2) * axes[1]
    source = rmt.RidgeSource(
        mean=rng.uniform(1.0, 2.0) * axes[0], covariance=values, N=int(rng.integers(40, 400)), gamma=1.0
    )
    setting = rmt.GaussianTransfer(
        n=int(rng.integers(20, 80)),
        gamma=float(np.exp(rng.uniform(np.log(0.1), np.log(10.0)))),
        mean=rng.uniform(1.0, 2.0) * direction,
        covariance=values,
        source=source,
    )
    return setting, cosine


def _one(setting: rmt.GaussianTransfer, cosine: float, draws: int, seed: int) -> dict[str, Any]:
    """The two penalties, and accuracy with each by theory and on the same draws, in points."""
    found = rmt.source_penalty(setting, alpha=1.0)
    assert isinstance(setting.source, rmt.RidgeSource)
    pair = [replace(setting, source=replace(setting.source, gamma=g)) for g in (found.source, found.transfer)]
    scores = [rmt.theory(one) for one in pair]
    drawn = [rmt.simulate(one, draws, seed).accuracy_per_draw(1.0) for one in pair]
    difference = 100.0 * (drawn[1] - drawn[0])
    return {
        "cosine": cosine,
        "source": found.source,
        "transfer": found.transfer,
        "gain": float(difference.mean()),
        "error": float(difference.std(ddof=1) / np.sqrt(draws)),
        "theory_gain": 100.0 * (found.transfer_accuracies[1] - found.transfer_accuracies[0]),
        "best_gain": 100.0 * float(scores[1].best_accuracy - scores[0].best_accuracy),
    }


CHECK = BestStart()
