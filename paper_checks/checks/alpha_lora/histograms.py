"""The Gaussian law of the score: histograms of y·w_αᵀx at α = 0.1, 1, 10."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

import rmt
from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.code_formula import CodeFormula
from paper_checks.studies.real_data import Adaptation, DomainPair, fresh_splits, ridge_weights
from rmt.datasets import load_amazon
from rmt.plot import COLOURS, legend, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTING: dict[str, Any] = {
    "N": 5000,
    "n": 200,
    "p": 400,
    "mu": 1.5,
    "mu_perp": 1.0,
    "gamma_source": 1.0,
    "gamma": 1.0,
}
ROWS, SAMPLES = 2000, 100  # N and n on the Amazon features
SCALES = (0.1, 1.0, 10.0)
BINS = np.linspace(-4.0, 4.0, 41)  # in predicted standard deviations around the predicted mean
CRITICAL = 1.63  # √n_eff·D exceeds this with probability .01 under the null


class Histograms(Check):
    """See the module's docstring."""

    id = "alpha_lora.histograms"
    claim = "The score of a test point is Gaussian with the predicted mean and variance, at α = 0.1, 1 and 10."
    short = "The score of a test point is Gaussian as predicted."
    shown = ("beta0.8, α = 1: D from the predicted law", "largest distance of the laws")
    scale = "p = 400; Amazon reviews"
    where = "α-LoRA, histograms of the score (appendix)"
    rule = (
        "On synthetic data (real draws of data and test points): reproduced if for β = 0.3, 0.8 and "
        "every α the Kolmogorov–Smirnov distance D between the scores and the predicted normal law is "
        f"at most {CRITICAL}/√n_eff + 1/p, where n_eff counts scores after the dependence within a "
        "draw is taken out (intraclass correlation); else not reproduced. Amazon features are reported "
        "beside it, without a verdict: their covariance is not the identity that the formula assumes."
    )
    needs = ("data/amazon_review for the Amazon histograms",)

    def cells(self, context: Context) -> Sequence[str]:
        return ["beta0.8", "beta0.3", "amazon-book-dvd", "amazon-elec-kitchen"]

    def compute(self, context: Context, cell: str) -> Figures:
        seed = context.seed_for(self.id, cell)
        if cell.startswith("amazon"):
            return _amazon(context, cell, seed)
        setting = rmt.Transfer(**SETTING, beta=float(cell.removeprefix("beta")))
        draws = 40 if context.quick else 500
        simulation = rmt.simulate(setting, draws, seed, method="direct", test_points=20)
        assert simulation.points is not None
        score, code = rmt.theory(setting), CodeFormula(setting)
        curves = []
        for alpha in SCALES:
            scores = simulation.points[..., 0] + alpha * simulation.points[..., 1]  # (draws, points)
            laws = {"predicted": score, "official code": code}
            curves.append({"alpha": alpha, **_describe(scores, alpha, laws)})
        return {"draws": draws, "points": 20, "curves": curves}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows, ratios, real = [], [], []
        for cell, figures in cells.items():
            for curve in figures["curves"]:
                name = f"{cell}, α = {curve['alpha']:g}"
                for law, distance in curve["distance"].items():
                    rows.append(Row(f"{name}: D from the {law} law", None, distance))
                if cell.startswith("amazon"):
                    real.append(curve["distance"]["predicted"])
                    continue
                limit = CRITICAL / math.sqrt(curve["n_eff"]) + 1.0 / SETTING["p"]
                rows.append(Row(f"{name}: largest D allowed", None, limit))
                ratios.append(curve["distance"]["predicted"] / limit)
        if not ratios:
            return Outcome(Verdict.NOT_RUN, "No synthetic cell has been computed.", tuple(rows))
        amazon = f" On Amazon features D is {min(real):.3f} to {max(real):.3f}." if real else ""
        return Outcome(
            Verdict.REPRODUCED if max(ratios) <= 1.0 else Verdict.NOT_REPRODUCED,
            f"On synthetic data D is at most {max(ratios):.2f} of what the rule allows.{amazon}",
            tuple(rows),
        )

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        figure, axes = panels(len(SCALES), len(cells), width=3.2, height=2.2)
        grid = np.linspace(-4, 4, 161)
        normal = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
        for line, (cell, figures) in zip(axes, cells.items(), strict=True):
            for axis, curve in zip(line, figures["curves"], strict=True):
                edges = np.array(BINS)
                axis.stairs(curve["density"], edges, fill=True, color=COLOURS[1], alpha=0.55, label="scores")
                axis.plot(grid, normal, color=COLOURS[0], linewidth=1.4, label="predicted law")
                distance = curve["distance"]["predicted"]
                name_axes(
                    axis,
                    "(score − mean)/deviation",
                    "",
                    f"{cell}, α = {curve['alpha']:g}: D = {distance:.3f}",
                )
        legend(axes[0, 0])
        return figure


def _amazon(context: Context, cell: str, seed: int) -> Figures:
    """Scores of the test rows on real features beside the isotropic prediction."""
    domains = load_amazon(context.folder("data", "amazon_review"))
    _, source, target = cell.split("-")
    pair = DomainPair(domains[source].standardised(), domains[target].standardised())
    weights = ridge_weights(pair.source, 1.0, ROWS)
    score = rmt.theory(pair.setting(SAMPLES, 1.0, N=ROWS, gamma_source=1.0, as_in_code=False))
    measured = rmt.theory(pair.measured_setting(SAMPLES, 1.0, weights))
    adaptation = Adaptation(pair.target, weights)
    splits = fresh_splits(seed, adaptation.size, SAMPLES, 5 if context.quick else 20)
    parts = [adaptation.split(*rows).test_scores(1.0) for rows in splits]
    start, slope = (np.stack([part[index] for part in parts]) for index in range(2))
    curves = []
    for alpha in SCALES:
        scores = start + alpha * slope
        laws = {"predicted": score, "predicted with the measured source": measured}
        curves.append({"alpha": alpha, **_describe(scores, alpha, laws)})
    return {"splits": len(parts), "curves": curves}


def _describe(scores: NDArray[Any], alpha: float, laws: Mapping[str, Any]) -> dict[str, Any]:
    """Histogram of (draws, points) scores and its KS distance from each normal law and from its own moments."""
    flat = np.sort(scores.ravel())
    moments = {name: (float(law.mean(alpha)), math.sqrt(law.variance(alpha))) for name, law in laws.items()}
    moments["normal, own mean and variance"] = (float(flat.mean()), float(flat.std()))
    mean, spread = moments["predicted"]
    density, _ = np.histogram((flat - mean) / spread, BINS, density=False)
    return {
        "mean": [mean, float(flat.mean())],
        "deviation": [spread, float(flat.std())],
        "distance": {name: ks_distance(flat, *law) for name, law in moments.items()},
        "n_eff": effective_size(scores),
        "density": np.round(density / (len(flat) * np.diff(BINS)), 5),
    }


def ks_distance(ordered: NDArray[Any], mean: float, deviation: float) -> float:
    """Largest gap between the empirical distribution of sorted values and a normal one."""
    expected = ndtr((ordered - mean) / deviation)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max(np.max(steps[1:] - expected), np.max(expected - steps[:-1])))


def effective_size(scores: NDArray[Any]) -> float:
    """Number of independent scores that (draws, points) dependent ones are worth.

    total/(1 + (points − 1)·ρ) with ρ the intraclass correlation from the one-way analysis of variance.
    """
    draws, points = scores.shape
    between = points * float(np.var(scores.mean(axis=1), ddof=1))
    within = float(np.mean(np.var(scores, axis=1, ddof=1)))
    correlation = max((between - within) / (between + (points - 1) * within), 0.0)
    return draws * points / (1.0 + (points - 1) * correlation)


CHECK = Histograms()
