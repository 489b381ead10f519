"""The demo's first part: one setting predicted, and simulated by two programs that share nothing with the theory."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import rmt
from paper_checks.report import page
from paper_checks.report.page import Section, number
from rmt.plot import COLOURS, dots, legend, line, name_axes, panels

#: The README's example.
EXAMPLE: dict[str, Any] = {
    "p": 400,
    "n": 200,
    "N": 5000,
    "mu": 1.5,
    "mu_perp": 1.0,
    "beta": 0.8,
    "gamma": 1.0,
    "gamma_source": 1.0,
}
SCALES = np.linspace(-4.0, 6.0, 21)
LINE = np.linspace(-4.0, 6.0, 201)


def example() -> Section:
    """Prediction of the example setting beside two simulations that share no code with it."""
    setting = rmt.Transfer(**EXAMPLE)
    start = time.perf_counter()
    score = rmt.theory(setting)
    curves = {"accuracy": score.accuracy(LINE), "second_moment": score.second_moment(LINE)}
    seconds = {"theory": time.perf_counter() - start}
    start = time.perf_counter()
    exact = rmt.simulate(setting, draws=2000, seed=0)
    seconds["exact"] = time.perf_counter() - start
    start = time.perf_counter()
    direct = rmt.simulate(setting, draws=40, seed=1, method="direct")
    seconds["direct"] = time.perf_counter() - start

    figure, axes = panels(2, width=4.4, height=3.2)
    for axis, quantity in zip(axes[0], curves, strict=True):
        line(axis, LINE, curves[quantity])
        for simulation, colour, label in ((exact, COLOURS[1], "exact sampler"), (direct, COLOURS[2], "real draws")):
            estimate = getattr(simulation, quantity)(SCALES)
            dots(axis, SCALES, estimate.value, estimate.stderr, colour=colour, label=label)
        name_axes(axis, "scale α of the source", quantity.replace("_", " "))
        legend(axis)
    axes[0, 0].axvline(float(score.alpha_star), color=COLOURS[3], linewidth=0.9)

    alphas = {
        "target-only (α = 0)": 0.0,
        "plain (α = 1)": 1.0,
        f"optimal (α* = {score.alpha_star:.3f})": score.alpha_star,
    }
    rows = [
        [
            name,
            number(float(score.accuracy(alpha))),
            *(_estimate(simulation.accuracy(float(alpha))) for simulation in (exact, direct)),
        ]
        for name, alpha in alphas.items()
    ]
    rows.append(["α*", number(float(score.alpha_star)), _estimate(exact.alpha_star), _estimate(direct.alpha_star)])
    rows.append(["source-only, unadapted", number(float(score.accuracy_source_only)), "–", "–"])
    worst = rmt.agreement(setting, SCALES, 1000).worst
    call = ", ".join(f"{key}={value:g}" for key, value in EXAMPLE.items())
    body = (
        f"<pre>setting = rmt.Transfer({call})\nrmt.theory(setting).accuracy(alpha)\n"
        "rmt.simulate(setting, draws=2000)</pre>\n"
        f"<p>A source classifier is fitted on {EXAMPLE['N']} samples, scaled by α and fine-tuned on "
        f"{EXAMPLE['n']}. The closed form took {1e3 * seconds['theory']:.1f} ms for {len(LINE)} "
        f"scales; 2000 draws of the exact finite-size sampler took {seconds['exact']:.1f} s, 60 draws "
        f"of real data {seconds['direct']:.1f} s. Largest |z| of theory against the exact sampler at this "
        f"size and twice it: {worst:.2f} (0 if the error halves).</p>"
        + page.image(figure, "accuracy and second moment against alpha: theory and two simulations")
        + page.table(["accuracy", "theory", "exact sampler", "real draws"], rows, numbers=(1, 2, 3))
    )
    return Section("example", "One prediction, simulated", body)


def _estimate(estimate: Any) -> str:
    return number(float(estimate.value), float(estimate.stderr))
