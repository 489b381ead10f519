"""The moments of an arbitrary source, α* and ᾱ, against simulation over random settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import rmt
from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.synthetic import ALLOWANCE_IN_WORDS, Z_LIMIT, z_score
from rmt.plot import COLOURS, dots, legend, name_axes, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 30  # settings a cell
SCALES = (-1.0, 0.0, 1.0, 3.0)  # and α* itself, clipped to ±5
MOMENTS = ("mean", "variance", "second_moment", "accuracy", "risk")
QUANTITIES = (*MOMENTS, "alpha_star", "alpha_bar")
NAMES = {"alpha_star": "α*", "alpha_bar": "ᾱ", "second_moment": "second moment"}


class ArbitrarySource(Check):
    """See the module's docstring."""

    id = "alpha_lora.arbitrary_source"
    claim = (
        "For any fixed source the fine-tuned score has the stated mean and second moment, the accuracy "
        "is Φ(s/σ), and the best and worst scales are α* and ᾱ in closed form."
    )
    short = "For any fixed source, accuracy and the best scale follow in closed form."
    shown = ("largest |z| of α*", "largest |z| of α*, 240 settings")
    scale = "p = 20 to 800, exact law"
    where = "α-LoRA, theorem for an arbitrary source classifier"
    rule = (
        "Reproduced if in every random setting mean, variance, second moment, accuracy and risk at "
        f"α = −1, 0, 1, 3, α* and the scales α*, ᾱ themselves have |z| ≤ {Z_LIMIT:g} against "
        f"simulation, else not reproduced; {ALLOWANCE_IN_WORDS}. Settings: p from 100 to 1000, p/n "
        "from 0.1 to 10, γ from 1e-3 to 10, ‖m‖ from 0.5 to 2.5, ‖w̃‖ from 0.2 to 2, alignment from "
        "−0.95 to 0.95."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return [f"batch{index}" for index in range(1 if context.quick else 8)]

    def compute(self, context: Context, cell: str) -> Figures:
        rng = np.random.default_rng(context.seed_for(self.id, cell))
        draws = 250 if context.quick else 1000
        seeds = [context.seed_for(self.id, cell, str(index)) for index in range(BATCH)]
        records = [_compare(_random_setting(rng), draws, seed) for seed in seeds]
        return {"draws": draws, "settings": records}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        records = [record for figures in cells.values() for record in figures["settings"]]
        worst = {name: max(abs(record["z"][name]) for record in records) for name in QUANTITIES}
        passed = sum(max(abs(z) for z in record["z"].values()) <= Z_LIMIT for record in records)
        verdict = Verdict.REPRODUCED if passed == len(records) else Verdict.NOT_REPRODUCED
        rows = [Row(f"largest |z| of {NAMES.get(name, name)}", None, worst[name]) for name in QUANTITIES]
        gap = float(np.median([abs(record["alpha_star"][1] / record["alpha_star"][0] - 1) for record in records]))
        return Outcome(
            verdict,
            f"{passed} of {len(records)} settings lie within |z| ≤ {Z_LIMIT:g} (largest "
            f"{max(worst.values()):.2f}); the simulated α* differs from the formula by {100 * gap:.1f} "
            "% in the median.",
            (Row("settings within the limit", None, f"{passed} of {len(records)}"), *rows),
        )

    def draw(self, cells: Mapping[str, Figures]) -> Figure | None:
        records = [record for figures in cells.values() for record in figures["settings"]]
        figure, axes = panels(2)
        left, right = axes[0]
        values = np.concatenate([np.ravel(record["raw_z"]) for record in records])
        bins = np.linspace(-5, 5, 51)
        left.hist(np.clip(values, -5, 5), bins, density=True, color=COLOURS[1], alpha=0.6, label="simulation")
        left.plot(bins, np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi), color=COLOURS[0], label="standard normal")
        name_axes(left, "z", "density", f"{len(values)} z-scores before the allowance")
        legend(left)
        stars = np.array([record["alpha_star"] for record in records])  # (settings, 3)
        shown = np.abs(stars[:, 0]) < 20
        dots(right, *stars[shown].T)
        ends = [stars[shown, 0].min(), stars[shown, 0].max()]
        right.plot(ends, ends, color=COLOURS[0], linewidth=1)
        right.set_xscale("symlog", linthresh=1)
        right.set_yscale("symlog", linthresh=1)
        name_axes(right, "α*, theory", "α*, simulation", "optimal scale, one dot a setting")
        return figure


def _random_setting(rng: np.random.Generator) -> rmt.Transfer:
    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    p = round(log_uniform(100, 1000))
    n = round(p / log_uniform(0.1, 10))
    target, norm = float(rng.uniform(0.5, 2.5)), log_uniform(0.2, 2.0)
    overlap = float(rng.uniform(-0.95, 0.95)) * target * norm
    source = rmt.FixedSource(overlap=overlap, norm2=norm**2)
    return rmt.Transfer(p=p, n=n, gamma=log_uniform(1e-3, 10), mu_target=target, source=source)


def _compare(setting: rmt.Transfer, draws: int, seed: int) -> dict[str, Any]:
    score = rmt.theory(setting)
    simulation = rmt.simulate(setting, draws, seed)
    scales = np.array([*SCALES, np.clip(score.alpha_star, -5.0, 5.0)])
    star, bar = simulation.alpha_star, simulation.alpha_bar
    z = {
        "alpha_star": float(z_score(star, score.alpha_star, setting)),
        "alpha_bar": float(z_score(bar, score.alpha_bar, setting)),
    }
    raw = {}
    for name in MOMENTS:
        estimate, expected = getattr(simulation, name)(scales), getattr(score, name)(scales)
        raw[name] = estimate.z(expected)
        values = z_score(estimate, expected, setting, accuracy=name == "accuracy")
        z[name] = float(values[np.argmax(np.abs(values))])
    assert setting.source is not None
    return {
        "setting": {
            **{name: getattr(setting, name) for name in ("p", "n", "gamma", "mu_target")},
            "overlap": setting.source.overlap,
            "norm2": setting.source.norm2,
        },
        "z": {name: round(value, 3) for name, value in z.items()},
        "raw_z": [np.round(raw[name], 3) for name in ("mean", "second_moment", "accuracy")],
        "alpha_star": [float(score.alpha_star), float(star.value), float(star.stderr)],
        "alpha_bar": [float(score.alpha_bar), float(bar.value), float(bar.stderr)],
    }


CHECK = ArbitrarySource()
