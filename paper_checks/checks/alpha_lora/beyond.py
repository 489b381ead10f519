"""The formulas of `rmt` that go beyond the paper, against fits on drawn data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import rmt
from paper_checks.core import OURS, Check, Context, Figures, Outcome, Row, Verdict
from paper_checks.studies.synthetic import Z_LIMIT, brief
from rmt.plot import COLOURS, name_axes, panels

SCALES = (-1.0, 0.0, 1.0, 2.5)
P = 100
Draw = np.random.Generator


class Beyond(Check):
    """See the module's docstring."""

    id = "alpha_lora.beyond"
    claim = (
        "Mean, variance and accuracy of the fine-tuned score follow in high dimension for any covariance, logistic and "
        "squared hinge loss, classes of unequal noise and share with an intercept, elliptical noise, adapters in a "
        "subspace, and label noise."
    )
    short = "The theory carries over to covariances, losses, classes, heavy tails, subspaces."
    shown = ("largest |z|", "largest |z|, six extensions")
    scale = f"p = {P}, fits on drawn data"
    words = OURS
    where = "Not in the papers: what the toolkit predicts beyond them"
    rule = (
        "Reproduced if in every random setting mean, variance and accuracy at α = −1, 0, 1, 2.5 have "
        f"|z| ≤ {Z_LIMIT:g} against fits on drawn data, and the scales of the best accuracy, of none and of the least "
        "risk, with the best accuracy itself, against the exact law with flipped labels; else not reproduced. z is the "
        "difference in standard errors after a finite-size allowance is taken off: 2.5/p of the value, a fifth of that "
        "for accuracies (rmt.Simulation.compare)."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return list(CELLS)

    def compute(self, context: Context, cell: str) -> Figures:
        rng = np.random.default_rng(context.seed_for(self.id, cell))
        count, draws = (4, 40) if context.quick else (12, 200)
        worst, names = [], []
        for index in range(count):
            setting, loss = CELLS[cell](rng, index)
            seed = context.seed_for(self.id, cell, str(index))
            if cell == "optima":
                z = _optima(setting, 20 * draws, seed)
            else:
                z = (
                    rmt.simulate_fits(setting, SCALES, draws, seed, loss=loss)
                    .compare(rmt.theory(setting, loss=loss), allowance=2.5)
                    .z
                )
            worst.append({name: float(brief(np.max(np.abs(values)), 4)) for name, values in z.items()})
            names.append(loss)
        return {"draws": draws, "worst": worst, "losses": names}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        worst = {
            cell: float(np.max([list(one.values()) for one in figures["worst"]])) for cell, figures in cells.items()
        }
        settings = sum(len(figures["worst"]) for figures in cells.values())
        off = [cell for cell, z in worst.items() if not z <= Z_LIMIT]
        verdict = Verdict.NOT_REPRODUCED if off else Verdict.REPRODUCED
        said = f"off: {', '.join(off)}" if off else f"all {settings} settings lie within |z| ≤ {Z_LIMIT:g}"
        return Outcome(
            verdict,
            f"{said} (largest {max(worst.values()):.2f}).",
            (
                Row("largest |z|", None, max(worst.values())),
                *(Row(f"{cell}: largest |z|", None, z) for cell, z in worst.items()),
            ),
        )

    def draw(self, cells: Mapping[str, Figures]) -> Any:
        figure, axes = panels(1)
        axis = axes[0][0]
        for place, figures in enumerate(cells.values()):
            values = [max(one.values()) for one in figures["worst"]]
            axis.plot(values, np.full(len(values), place), "o", color=COLOURS[1], alpha=0.6)
        axis.axvline(Z_LIMIT, color=COLOURS[0], linewidth=1)
        axis.set_yticks(range(len(cells)), list(cells))
        name_axes(axis, "largest |z| of a setting", "", "predictions beyond the paper")
        return figure


def _unit(rng: Draw) -> Any:
    vector = rng.standard_normal(P)
    return vector / np.linalg.norm(vector)


def _spectrum(rng: Draw) -> Any:
    """Eigenvalues over about a decade, mean 1."""
    values = np.exp(0.6 * rng.standard_normal(P))
    return values / values.mean()


def _source(rng: Draw, mean: Any, *, ridge: bool = False) -> Any:
    direction = rng.uniform(0.2, 0.9) * mean + rng.uniform(0.3, 0.7) * _unit(rng)
    if not ridge:
        return rmt.FixedSource(vector=direction)
    return rmt.RidgeSource(mean=direction, covariance=_spectrum(rng), N=2 * P, gamma=0.5, label_noise=0.1)


def _gaussian(rng: Draw, index: int) -> Any:
    mean = rng.uniform(1.0, 1.8) * _unit(rng)
    return rmt.GaussianTransfer(
        n=int(rng.integers(P // 2, 2 * P)),
        gamma=float(rng.uniform(0.1, 1.0)),
        mean=mean,
        covariance=_spectrum(rng),
        source=_source(rng, mean, ridge=index % 2 == 1),
        label_noise=0.1 * (index % 4 == 2),
    )


def _isotropic(rng: Draw) -> Any:
    source = rmt.FixedSource(overlap=float(rng.uniform(0.3, 0.9)), norm2=float(rng.uniform(0.6, 1.0)))
    return rmt.Transfer(
        p=P,
        n=int(rng.integers(P // 2, 2 * P)),
        gamma=float(rng.uniform(0.1, 1.0)),
        mu_target=float(rng.uniform(1.0, 1.6)),
        source=source,
    )


def _flipped(rng: Draw, index: int) -> tuple[Any, str]:
    """Flipped labels in target and source, fixed and ridge sources in turn."""
    if index % 2:
        return replace(_isotropic(rng), label_noise=0.15), "square"
    setting = rmt.Transfer(
        p=P,
        n=int(rng.integers(P // 2, 2 * P)),
        gamma=float(rng.uniform(0.2, 1.0)),
        mu=float(rng.uniform(1.0, 1.6)),
        mu_perp=float(rng.uniform(0.5, 1.0)),
        beta=float(rng.uniform(0.5, 0.9)),
        N=3 * P,
        gamma_source=float(rng.uniform(0.2, 1.0)),
        label_noise=0.1,
        label_noise_source=0.2,
    )
    return setting, "square"


def _optima(setting: Any, draws: int, seed: int) -> dict[str, Any]:
    """z of the best scales and of the best accuracy."""
    score, simulation = rmt.theory(setting), rmt.simulate(setting, draws, seed)
    found = {}
    for name in ("alpha_star", "alpha_bar", "alpha_risk", "best_accuracy"):
        expected = np.asarray(getattr(score, name), dtype=float)
        scale = 0.2 if name == "best_accuracy" else np.abs(expected)
        found[name] = getattr(simulation, name).z(expected, 2.5 / P * scale)
    return found


def _losses(rng: Draw, index: int) -> tuple[Any, str]:
    setting = _isotropic(rng) if index % 4 < 2 else _gaussian(rng, index)
    return setting, ("logistic", "squared_hinge")[index % 2]


def _classes(rng: Draw, index: int) -> tuple[Any, str]:
    mean = rng.uniform(1.0, 1.8) * _unit(rng)
    setting = rmt.ClassTransfer(
        n=int(rng.integers(P, 3 * P)),
        gamma=float(rng.uniform(0.2, 1.0)),
        means=[mean + 0.5 * _unit(rng), -mean + 0.5 * _unit(rng)],
        covariances=[_spectrum(rng), 1.5 * _spectrum(rng)],
        proportions=(0.3, 0.7),
        source=_source(rng, mean, ridge=index % 4 == 3),
        intercept=index % 2 == 0,
        label_noise=0.1 * (index % 4 == 1),
    )
    return setting, ("square", "square", "logistic", "squared_hinge")[index % 4]


def _elliptical(rng: Draw, index: int) -> tuple[Any, str]:
    return rmt.EllipticalTransfer(base=_isotropic(rng), freedom=8.0), ("square", "logistic")[index % 2]


def _subspace(rng: Draw, index: int) -> tuple[Any, str]:
    rank = int(rng.integers(10, P // 2))
    if index % 2:
        basis = np.linalg.qr(rng.standard_normal((P, rank)))[0]
        return rmt.SubspaceTransfer(base=_gaussian(rng, 0), basis=basis), ("square", "logistic")[index % 4 // 2]
    return rmt.SubspaceTransfer(base=_isotropic(rng), rank=rank), "square"


#: Cell → setting and loss of its index-th random setting.
CELLS: dict[str, Callable[[Draw, int], tuple[Any, str]]] = {
    "covariance": lambda rng, index: (_gaussian(rng, index), "square"),
    "losses": _losses,
    "optima": _flipped,
    "classes": _classes,
    "elliptical": _elliptical,
    "subspace": _subspace,
}

CHECK = Beyond()
