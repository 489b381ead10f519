"""Regression with several outputs: test risk against α, and the best scale tr(W_t W_sᵀ)/tr(W_s W_sᵀ)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import rmt
from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.synthetic import Z_LIMIT, plain
from rmt.plot import COLOURS, dots, legend, line, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The shapes of the official figure files and of the paper: n, p, d, γ.
SHAPES = {
    "n20-p200": (20, 200, 4, 0.01),
    "n1000-p200": (1000, 200, 4, 0.01),
    "n20-p40": (20, 40, 10, 0.01),
    "n100-p200": (100, 200, 4, 0.5),
}
NOISE = 0.5
BETAS = (-2.0, 0.5, 2.0)
SCALES = np.linspace(-4.0, 4.0, 21)


class RegressionRisk(Check):
    """See the module's docstring."""

    id = "alpha_lora.regression"
    claim = (
        "In multi-output regression the test risk is the stated parabola in α, and the best scale is "
        "tr(W_t W_sᵀ)/tr(W_s W_sᵀ), whatever γ, p/n and the noise."
    )
    short = "In regression the best scale is the sources' regression coefficient."
    shown = ("n = 1000, p = 200, d = 4, gamma = 0.01: α*, by the theorem 2", "α* where the theorem says 2")
    scale = "p = 40 and 200"
    where = "α-LoRA, regression theorem and its figure"
    rule = (
        "Reproduced if, for β = −2, 0.5, 2 in four shapes, the simulated risk at 21 scales is within "
        f"{Z_LIMIT:g} standard errors of the theory and the scale of the lowest mean risk within "
        f"{Z_LIMIT:g} of tr(W_t W_sᵀ)/tr(W_s W_sᵀ) = β, without any allowance for finite size; else "
        "not reproduced."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return ["n20-p200", "n20-p40"] if context.quick else list(SHAPES)

    def compute(self, context: Context, cell: str) -> Figures:
        n, p, d, gamma = SHAPES[cell]
        rng = np.random.default_rng(context.seed_for(self.id, cell))
        draws = 100 if context.quick else 400
        curves = []
        for beta in BETAS:
            source, target = _weights(rng, d, p, beta)
            setting = rmt.Regression(n=n, gamma=gamma, target=target, source=source, noise=NOISE)
            predicted = rmt.theory(setting)
            simulation = rmt.simulate(setting, draws, context.seed_for(self.id, cell, str(beta)))
            risk, star = simulation.risk(SCALES), simulation.alpha_star
            expected = predicted.risk(SCALES)
            curves.append(
                {
                    "beta": beta,
                    "alpha_star": {"theory": predicted.alpha_star, **plain(star)},
                    "risk": {"theory": expected, **plain(risk)},
                    "z_risk": risk.z(expected),
                    "z_star": star.z(beta),
                }
            )
        return {"draws": draws, "shape": {"n": n, "p": p, "d": d, "gamma": gamma}, "curves": curves}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        rows, risk, star = [], 0.0, 0.0
        for figures in cells.values():
            name = ", ".join(f"{key} = {value:g}" for key, value in figures["shape"].items())
            for curve in figures["curves"]:
                risk = max(risk, float(np.max(np.abs(curve["z_risk"]))))
                star = max(star, abs(curve["z_star"]))
                estimate = curve["alpha_star"]
                rows.append(
                    Row(
                        f"{name}: α*, by the theorem {curve['beta']:g}",
                        None,
                        estimate["value"],
                        estimate["stderr"],
                    )
                )
                best = {key: values[int(np.argmin(np.abs(SCALES - 1.2)))] for key, values in curve["risk"].items()}
                label = f"{name}, β = {curve['beta']:g}: risk at α = 1.2 (theory {best['theory']:.4g})"
                rows.append(Row(label, None, best["value"], best["stderr"]))
        good = risk <= Z_LIMIT and star <= Z_LIMIT
        return Outcome(
            Verdict.REPRODUCED if good else Verdict.NOT_REPRODUCED,
            f"The largest |z| of the risk is {risk:.2f}, of α* {star:.2f}, over {len(cells)} shapes "
            "and three alignments.",
            tuple(rows),
        )

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        figure, axes = panels(len(cells), width=2.9, height=2.9)
        for axis, figures in zip(axes[0], cells.values(), strict=True):
            for colour, curve in zip(COLOURS, figures["curves"], strict=False):
                label = f"β = {curve['beta']:g}"
                line(axis, SCALES, curve["risk"]["theory"], colour=colour, label=label)
                dots(axis, SCALES, curve["risk"]["value"], curve["risk"]["stderr"], colour=colour, label="")
                axis.axvline(curve["beta"], color=colour, linewidth=0.6, linestyle=":")
            shape = figures["shape"]
            name_axes(axis, "α", "test risk", f"n={shape['n']}, p={shape['p']}, d={shape['d']}, γ={shape['gamma']}")
        legend(axes[0, 0])
        return figure


def _weights(rng: np.random.Generator, d: int, p: int, beta: float) -> tuple[Any, Any]:
    """W_s with N(0, 1) entries and W_t = βW_s + B, B random and Frobenius-orthogonal to W_s."""
    source, other = rng.standard_normal((d, p)), rng.standard_normal((d, p))
    other -= np.sum(other * source) / np.sum(source**2) * source
    return source, beta * source + other


CHECK = RegressionRisk()
