"""Pictures: theory as a line, simulation as dots with error bars. Every function returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import validate
from rmt.predict import theory
from rmt.result import Simulation
from rmt.setting import Transfer

LABELS = {
    "mean": "mean score s",
    "variance": "score variance σ²",
    "second_moment": "second moment ν",
    "accuracy": "test accuracy",
    "risk": "squared risk",
    "snr": "signal-to-noise ratio",
}


def new_figure(columns: int = 1, rows: int = 1, *, width: float = 5.2, height: float = 3.6) -> tuple[Any, Any]:
    """A Figure that belongs to no global state, and its array of axes (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def dots(axes: Any, x: ArrayLike, value: ArrayLike, stderr: ArrayLike, **style: Any) -> None:
    """Simulation: dots with error bars of two standard errors."""
    axes.errorbar(x, value, yerr=2 * np.asarray(stderr), fmt="o", markersize=3.5, capsize=2, linewidth=1, **style)


def curve(
    setting: Transfer,
    alpha: ArrayLike,
    *,
    simulation: Simulation | None = None,
    simulated_alpha: ArrayLike | None = None,
    quantity: str = "accuracy",
    axes: Any = None,
    label: str | None = None,
) -> Any:
    """``quantity`` against the scale α for one setting, with α = 1 and α* marked.

    Args:
        setting: one scalar setting with one source.
        alpha: (A,) scales of the line.
        simulation: draws of the same setting, shown as dots at ``simulated_alpha`` (12 of ``alpha`` by default).
        quantity: a method of the score.
        axes: draw into these instead of a new figure.
        label: legend entry.
    """
    validate.one_of("quantity", quantity, tuple(LABELS))
    alpha = np.atleast_1d(validate.finite("alpha", alpha))
    score = theory(setting)
    if axes is None:
        _, grid = new_figure()
        axes = grid[0, 0]
    (line,) = axes.plot(alpha, getattr(score, quantity)(alpha), label=label or "theory")
    if simulation is not None:
        at = alpha[:: max(len(alpha) // 12, 1)] if simulated_alpha is None else np.asarray(simulated_alpha)
        estimate = getattr(simulation, quantity)(at)
        dots(axes, at, estimate.value, estimate.stderr, color=line.get_color())
    star = float(score.alpha_star)
    if alpha.min() <= star <= alpha.max():
        axes.axvline(star, color=line.get_color(), linestyle=":", linewidth=1)
        axes.annotate("α*", (star, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=9)
    axes.axvline(1.0, color="0.75", linewidth=0.8, zorder=0)
    axes.set_xlabel("scale α")
    axes.set_ylabel(LABELS[quantity])
    return axes.figure


def sweep_curves(rows: Sequence[dict[str, Any]], x: str, *, quantity: str = "accuracy") -> Any:
    """A sweep's ``quantity`` against the field ``x``, theory as lines, simulation as dots.

    The scale and every further grid axis make separate lines.
    """
    chosen = [row for row in rows if row["quantity"] == quantity]
    if not chosen or x not in chosen[0]:
        raise ValueError(f"x must be a column of the sweep with quantity {quantity!r}, got {x!r}")
    figure, grid = new_figure()
    axes = grid[0, 0]
    fixed = {"point", "alpha_star", "value", "stderr", "source", x}
    varying = [key for key in chosen[0] if key not in fixed and len({row.get(key) for row in chosen}) > 1]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in chosen:
        groups.setdefault(tuple(row.get(key) for key in varying), []).append(row)
    for index, (values, group) in enumerate(groups.items()):
        colour = f"C{index % 10}"
        for source in ("theory", "simulation"):
            points = sorted((row[x], row["value"], row["stderr"]) for row in group if row["source"] == source)
            if not points:
                continue
            at, value, stderr = (np.array(column, dtype=float) for column in zip(*points, strict=True))
            if source == "theory":
                label = ", ".join(f"{key} = {entry:g}" for key, entry in zip(varying, values, strict=True))
                axes.plot(at, value, color=colour, label=label or "theory")
            else:
                dots(axes, at, value, stderr, color=colour)
    if _spans_decades(np.array([row[x] for row in chosen], dtype=float)):
        axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(LABELS[quantity])
    axes.legend(fontsize=7)
    return figure


def _spans_decades(values: np.ndarray) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() > 30)


def star_map(base: Transfer, x: tuple[str, ArrayLike], y: tuple[str, ArrayLike]) -> Any:
    """Map of log₁₀ α* over two fields, with the line α* = 1; negative α* is left blank.

    Args:
        base: one scalar setting.
        x, y: a field's name and its values, positive and increasing for a logarithmic axis.
    """
    from dataclasses import replace

    (x_name, x_values), (y_name, y_values) = x, y
    across, up = np.asarray(x_values, dtype=float), np.asarray(y_values, dtype=float)
    axes_values: dict[str, Any] = {x_name: across[None, :], y_name: up[:, None]}
    score = theory(replace(base, **axes_values))
    star = np.broadcast_to(score.alpha_star, (len(up), len(across)))
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.where(star > 0, np.log10(star), np.nan)
    figure, grid = new_figure()
    axes = grid[0, 0]
    limit = np.nanmax(np.abs(shown))
    mesh = axes.pcolormesh(
        across, up, shown, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest", rasterized=True
    )
    if np.nanmin(shown) < 0 < np.nanmax(shown):
        axes.contour(across, up, shown, levels=[0.0], colors="k", linewidths=1)
    figure.colorbar(mesh, ax=axes, label="log₁₀ α*")
    for set_scale, values in ((axes.set_xscale, across), (axes.set_yscale, up)):
        if _spans_decades(values):
            set_scale("log")
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    return figure
