"""α and γ chosen on the training sample, on the twelve Amazon transfers: against rivals, and against the prediction.

The paper's α* needs the labels of the test rows. :class:`rmt.AlphaRidgeClassifier` sees the n training rows and the
source's weights, nothing else. Its rule was settled on synthetic data and on the development pairs, and no test
accuracy of any pair enters a choice. A first run of all cells showed one split of 1,800 on which the rule turned a
good source round (book → elec, n = 10, 77 % → 23 %): the reference of its one-standard-error rule was the source with
its estimated sign, where the derivation has the untouched source. That was mended, and the splits below were drawn
afresh.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from paper_checks.core import OURS, Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.code_formula import CodeFormula
from paper_checks.studies.real_data import (
    DEVELOPMENT,
    DomainPair,
    amazon_pair,
    cross_validate,
    fresh_splits,
    grid_scores,
    ridge_weights,
)
from rmt.choosing.ridge_path import RidgePath, penalty_grid
from rmt.datasets import AMAZON
from rmt.plot import COLOURS, GREY, legend, name_axes, panels

ROWS, GAMMA_SOURCE = 2000, 1.0
SIZES = (10, 20, 40, 100, 200)
SPLITS = 30
PAIRS = tuple("-".join(pair) for pair in permutations(AMAZON, 2))

#: Columns that use the training rows only, and how each chooses.
RIVALS = {
    "target-only": "α = 0, γ = 1",
    "plain": "α = 1, γ = 1",
    "source-only": "the source as it is",
    "cross-validated": "(α, γ) of the best 5-fold accuracy on the same grid, ties by squared error",
    "RidgeClassifierCV": "scikit-learn's, target-only, the same penalties",
    "logistic, C = 1": "logistic regression on [X, source score]",
    "logistic, C = .01": "the same, more penalty",
}
COLUMNS = {
    "auto": "averaged over the evidence for each penalty",
    "plugin": "theory with estimated moments",
    "loo": "leave-one-out moments",
}
ORACLES = {
    "paper's α*": "from the labels of all rows, γ = 1",
    "hindsight": "best (α, γ) for the cell's mean test accuracy",
}
SIMPLE = ("target-only", "plain", "source-only")
#: What the figures cannot say for themselves.
KNOWN = (
    "Features were scaled by all rows of the target, test rows included; what the source's rows would have cost is "
    "alpha_lora.source_scaling. The sign of the source was mended "
    "after a fault seen on a pair that was held out (book → elec, n = 10), and all splits were drawn afresh."
)


class ChooseAlpha(Check):
    """See the module's docstring."""

    id = "alpha_lora.choose_alpha"
    claim = "α and γ can be chosen from the training sample alone, at any n, with next to nothing lost to the source."
    short = "α and γ can be chosen from the training sample alone."
    scale = "Amazon reviews, n = 10 to 200"
    words = OURS
    where = "Not in the paper, whose α* is an oracle that has seen the test rows"
    rule = (
        "Reproduced if, over all cells (12 transfers × n = 10, 20, 40, 100, 200, 30 splits each), the mean accuracy "
        "of the automatic rule is at least that of every rival that uses the training rows only; in no cell it is on "
        "average more than 1 point below the best of target-only, plain and source-only; and its predicted accuracy is "
        "within 2 points of the real one on average over cells (absolute difference of the means over splits). The "
        "pairs not used in development are reported apart, and so is the error of a single split."
    )
    needs = ("data/amazon_review",)

    def cells(self, context: Context) -> Sequence[str]:
        pairs, sizes = (("book-dvd", "book-elec"), (20, 100)) if context.quick else (PAIRS, SIZES)
        return [f"{pair}-n{n}" for pair in pairs for n in sizes]

    def compute(self, context: Context, cell: str) -> Figures:
        source, target, size = cell.split("-")
        n = int(size[1:])
        pair = amazon_pair(context, source, target)
        weights = ridge_weights(pair.source, GAMMA_SOURCE, ROWS)
        setting = pair.setting(n, 1.0, N=ROWS, gamma_source=GAMMA_SOURCE, as_in_code=True)
        oracle = float(CodeFormula(setting).alpha_star)
        # The splits depend on the target and n only: columns are paired across sources too.
        seed = context.seed_for(self.id, "second draw", target, size)
        count = 4 if context.quick else SPLITS
        results = [_split(pair, weights, oracle, rows) for rows in _two_class_splits(pair, seed, n, count)]
        columns = {name: np.array([one["accuracy"][name] for one in results]) for name in results[0]["accuracy"]}
        grid = np.mean([one["grid"] for one in results], axis=0)
        ours = {key: np.array([one[key] for one in results]) for key in ("predicted", "low", "high", "alpha", "gamma")}
        real = columns["auto"]
        return {
            "columns": {name: _summary(values) for name, values in columns.items()}
            | {"hindsight": {"mean": grid.max()}},
            "predicted": _summary(ours["predicted"]),
            "prediction_error": _summary(np.abs(ours["predicted"] - real)),
            "covered": float(np.mean((ours["low"] <= real) & (real <= ours["high"]))),
            "alpha": float(np.median(ours["alpha"])),
            "gamma": float(np.median(ours["gamma"])),
            "seconds": float(np.median([one["seconds"] for one in results])),
        }

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        means = {name: _mean(cells, name) for name in (*COLUMNS, *RIVALS, *ORACLES)}
        rival = max(RIVALS, key=lambda name: means[name])
        shortfalls = {cell: shortfall(figures) for cell, figures in cells.items()}
        worst = max(shortfalls, key=lambda cell: shortfalls[cell])
        bias = float(np.mean([abs(f["predicted"]["mean"] - f["columns"]["auto"]["mean"]) for f in cells.values()]))
        met = (means["auto"] >= means[rival], shortfalls[worst] <= 1.0, bias <= 2.0)
        new = {cell: f for cell, f in cells.items() if not cell.startswith(DEVELOPMENT)}
        apart = ""
        if new:
            others = max(_mean(new, name) for name in RIVALS)
            apart = (
                f" On the pairs not used in development: {_mean(new, 'auto'):.2f} against {others:.2f} for the best "
                f"rival, worst cell {max(shortfalls[cell] for cell in new):+.2f} points below the simple three."
            )
        covered = float(np.mean([f["covered"] for f in cells.values()]))
        single = float(np.mean([f["prediction_error"]["mean"] for f in cells.values()]))
        least = _sizes(cells)[0]
        smallest = float(np.mean([f["prediction_error"]["mean"] for f in _of_size(cells, least).values()]))
        summary = (
            f"Mean accuracy {means['auto']:.2f} % over {len(cells)} cells; best rival {rival} {means[rival]:.2f} %, "
            f"hindsight {means['hindsight']:.2f} %. Worst cell {worst}: {shortfalls[worst]:.2f} points below the best "
            f"of {', '.join(SIMPLE)}. The predicted accuracy is off by {bias:.2f} points where both are means over a "
            f"cell's splits; on one split by {single:.1f} ({smallest:.1f} at n = {least}); its 95 % interval covers "
            f"{100 * covered:.0f} %." + apart + f" {KNOWN}"
        )
        return Outcome(Verdict.REPRODUCED if all(met) else Verdict.NOT_REPRODUCED, summary, tuple(_rows(cells)))

    def number(self, outcome: Outcome) -> str:
        """The mean accuracy beside that of the best rival."""
        found = re.search(r"accuracy ([\d.]+) % .*best rival (\S+) ([\d.]+) %", outcome.summary)
        return f"{found[1]} % ({found[2]}: {found[3]} %)" if found else ""

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        figure, axes = panels(2, width=5.4, height=3.6)
        sizes = _sizes(cells)
        shown = ("auto", "source-only", "plain", "cross-validated", "logistic, C = .01", "plugin")
        for colour, column in zip(COLOURS, shown, strict=True):
            values = [_mean(_of_size(cells, n), column) for n in sizes]
            axes[0, 0].plot(sizes, values, "o-", markersize=3.5, linewidth=1.2, color=colour, label=column)
        values = [_mean(_of_size(cells, n), "hindsight") for n in sizes]
        axes[0, 0].plot(sizes, values, "--", linewidth=1.0, color=GREY, label="hindsight")
        axes[0, 0].set_xscale("log")
        axes[0, 0].set_xticks(sizes, [str(n) for n in sizes])
        axes[0, 0].set_ylim(bottom=max(axes[0, 0].get_ylim()[0], 70.0))
        name_axes(axes[0, 0], "target samples n", "mean test accuracy (%)", "all transfers")
        legend(axes[0, 0], ncols=2, loc="upper left")
        axes[0, 0].set_ylim(top=axes[0, 0].get_ylim()[1] + 2.5)
        low, high = 100.0, 0.0
        for colour, n in zip(COLOURS, sizes, strict=False):
            group = _of_size(cells, n).values()
            x = [f["predicted"]["mean"] for f in group]
            y = [f["columns"]["auto"]["mean"] for f in group]
            axes[0, 1].errorbar(
                x,
                y,
                xerr=[2 * f["predicted"]["stderr"] for f in group],
                fmt="o",
                markersize=3.5,
                elinewidth=0.6,
                color=colour,
                label=f"n = {n}",
            )
            low, high = min(low, *x, *y), max(high, *x, *y)
        axes[0, 1].plot([low, high], [low, high], color=GREY, linewidth=0.8)
        name_axes(axes[0, 1], "predicted accuracy (%), ±2 s.e. over splits", "test accuracy (%)", "one dot a cell")
        legend(axes[0, 1])
        return figure


def shortfall(figures: Figures) -> float:
    """Points by which the automatic rule lies below the best of the simple three in one cell (negative: above)."""
    return max(figures["columns"][name]["mean"] for name in SIMPLE) - figures["columns"]["auto"]["mean"]


def _split(pair: DomainPair, weights: Any, oracle: float, rows: tuple[Any, Any]) -> dict[str, Any]:
    """Every column on one split, accuracies in per cent."""
    from sklearn.linear_model import LogisticRegression, RidgeClassifierCV

    import rmt

    train, test = rows
    X, y = pair.target.features[train], pair.target.labels[train]
    signed = pair.target.labels[test][:, None] * pair.target.features[test]
    path = RidgePath(y[:, None] * X, weights)
    gammas = penalty_grid(path.scale)

    def measure(w: Any) -> float:
        return 100.0 * float(np.mean(signed @ w > 0))

    at_one = path.weights(1.0)
    accuracy = {
        "target-only": measure(at_one[:, 0]),
        "plain": measure(at_one.sum(axis=1)),
        "source-only": measure(weights),
        "paper's α*": measure(at_one @ [1.0, oracle]),
    }
    grid = np.array([100.0 * np.mean(grid_scores(signed @ path.weights(gamma)) > 0, axis=0) for gamma in gammas])
    best = cross_validate(y[:, None] * X, weights, gammas)
    accuracy["cross-validated"] = float(grid[best])
    ridge = RidgeClassifierCV(alphas=len(y) * gammas[:-1], fit_intercept=False).fit(X, y)
    accuracy["RidgeClassifierCV"] = measure(np.ravel(ridge.coef_))
    score = X @ weights
    spread = float(score.std()) or 1.0
    for C, name in ((1.0, "logistic, C = 1"), (0.01, "logistic, C = .01")):
        model = LogisticRegression(C=C, fit_intercept=False, max_iter=2000).fit(np.column_stack([X, score / spread]), y)
        accuracy[name] = measure(model.coef_[0, :-1] + model.coef_[0, -1] * weights / spread)
    for method in COLUMNS:
        start = time.perf_counter()
        ours = rmt.AlphaRidgeClassifier(source=weights, method=method, intercept=False).fit(X, y)
        seconds = time.perf_counter() - start
        accuracy[method] = measure(ours.coef_[0])
        if method == "auto":
            low, high = ours.predicted_accuracy_interval_
            found = {
                "predicted": 100.0 * ours.predicted_accuracy_,
                "low": 100.0 * low,
                "high": 100.0 * high,
                "alpha": ours.alpha_[0],
                "gamma": ours.gamma_,
                "seconds": seconds,
            }
    return {"accuracy": accuracy, "grid": grid, **found}


def _two_class_splits(pair: DomainPair, seed: int, n: int, count: int) -> list[tuple[Any, Any]]:
    """``count`` fresh splits whose training rows hold both classes."""
    labels = pair.target.labels
    splits = fresh_splits(seed, len(labels), n, 4 * count)
    return [rows for rows in splits if len(set(labels[rows[0]])) == 2][:count]


def _summary(values: Any) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "stderr": float(np.std(values, ddof=1) / math.sqrt(len(values)))}


def _mean(cells: Mapping[str, Figures], column: str) -> float:
    return float(np.mean([figures["columns"][column]["mean"] for figures in cells.values()]))


def _sizes(cells: Mapping[str, Figures]) -> list[int]:
    return sorted({int(cell.rsplit("-n", 1)[1]) for cell in cells})


def _of_size(cells: Mapping[str, Figures], n: int) -> dict[str, Figures]:
    return {cell: figures for cell, figures in cells.items() if cell.endswith(f"-n{n}")}


def _rows(cells: Mapping[str, Figures]) -> list[Row]:
    rows = []
    for n in _sizes(cells):
        group = _of_size(cells, n)
        for column, meaning in {**COLUMNS, **RIVALS, **ORACLES}.items():
            rows.append(
                Row(f"n = {n}, mean of {len(group)} pairs: {column} – {meaning} (%)", None, _mean(group, column))
            )
        for key, name in (("predicted", "predicted accuracy"), ("prediction_error", "|predicted − real| a split")):
            value = float(np.mean([figures[key]["mean"] for figures in group.values()]))
            rows.append(Row(f"n = {n}: {name} of auto (%)", None, value))
    return rows


CHECK = ChooseAlpha()
