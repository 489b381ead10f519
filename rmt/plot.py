"""Pictures in one house style: theory is a line, simulation is dots with error bars of ±2 standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt.predict import theory
from rmt.scores.estimates import Simulation
from rmt.settings.isotropic import Transfer

LABELS = {
    "mean": "mean score s",
    "variance": "score variance σ²",
    "second_moment": "second moment ν",
    "accuracy": "test accuracy",
    "risk": "squared risk",
    "snr": "signal-to-noise ratio",
}

#: Axis labels of the fields of a setting.
FIELDS = {
    "p": "dimension p",
    "n": "target samples n",
    "N": "source samples N",
    "gamma": "penalty γ",
    "gamma_source": "source penalty γ̃",
    "mu": "source norm ‖μ‖",
    "mu_perp": "‖μ⊥‖",
    "mu_target": "target norm ‖m‖",
    "beta": "alignment β",
    "alpha": "scale α",
    "label_noise": "label noise ε",
    "label_noise_source": "source label noise ε̃",
}

#: One colour a series, told apart in grey print and by the colour-blind.
COLOURS = ("#1b4f8a", "#d1495b", "#2a9d6f", "#e09f3e", "#6a4c93", "#5c6b73")
GREY = "#8d99a6"


def panels(columns: int = 1, rows: int = 1, *, width: float = 5.2, height: float = 3.6) -> tuple[Any, Any]:
    """A Figure that belongs to no global state, of ``rows`` × ``columns`` axes of ``width`` × ``height`` inches.

    Returns:
        The figure and the array of its axes, (rows, columns).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.tick_params(labelsize=8)
    return figure, axes


def name_axes(axis: Any, x: str, y: str, title: str = "") -> None:
    """Axis labels and title in the house sizes."""
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.set_title(title, fontsize=9)


def line(axis: Any, x: ArrayLike, y: ArrayLike, *, colour: str = COLOURS[0], label: str | None = "theory") -> None:
    """Theory: a line."""
    axis.plot(np.asarray(x, dtype=float), np.asarray(y, dtype=float), color=colour, linewidth=1.4, label=label)


def dots(
    axis: Any,
    x: ArrayLike,
    y: ArrayLike,
    error: ArrayLike,
    *,
    colour: str = COLOURS[1],
    label: str | None = "simulation",
) -> None:
    """Simulation or measurement: dots with bars of ±2 standard errors."""
    axis.errorbar(
        np.asarray(x, dtype=float),
        np.asarray(y, dtype=float),
        yerr=2.0 * np.asarray(error, dtype=float),
        fmt="o",
        markersize=3.2,
        color=colour,
        elinewidth=1.0,
        capsize=2,
        label=label,
        zorder=3,
    )


def legend(axis: Any, **options: Any) -> None:
    """A small legend without a frame."""
    axis.legend(fontsize=7.5, frameon=False, **options)


def legends_below(figure: Any) -> None:
    """Move the legends of a figure's axes below all of them, where they hide nothing.

    Axes whose legends say the same get one; two that differ stand left and right; more are put together. The figure
    needs the constrained layout of `panels`.
    """
    found: dict[tuple[str, ...], list[Any]] = {}
    for axis in figure.axes:
        old = axis.get_legend()
        if old is not None:
            handles, labels = axis.get_legend_handles_labels()
            found.setdefault(tuple(labels), handles)
            old.remove()
    if len(found) > 2:
        pairs = (pair for labels, handles in found.items() for pair in zip(labels, handles, strict=True))
        together = dict(pairs)
        found = {tuple(together): list(together.values())}
    places = ("center",) if len(found) == 1 else ("left", "right")
    for (labels, handles), place in zip(found.items(), places, strict=False):
        columns = min(len(labels), 6 // len(found))
        options = {"ncols": columns, "fontsize": 7.5, "frameon": False}
        figure.legend(handles, labels, loc=f"outside lower {place}", **options)


def curve(
    setting: Transfer,
    alpha: ArrayLike,
    *,
    simulation: Simulation | None = None,
    simulated_alpha: ArrayLike | None = None,
    quantity: str = "accuracy",
    axes: Any = None,
    colour: str = COLOURS[0],
    label: str | None = None,
) -> Any:
    """``quantity`` against the scale α for one setting, with α = 1 and α* marked.

    Args:
        setting: one scalar setting with one source.
        alpha: (A,) scales of the line.
        simulation: draws of the same setting, shown as dots at ``simulated_alpha`` (12 of ``alpha`` by default).
        quantity: a method of the score.
        axes: draw into these instead of a new figure.
        colour, label: of the line; the dots share the colour.
    """
    _checks.one_of("quantity", quantity, tuple(LABELS))
    alpha = np.atleast_1d(_checks.finite("alpha", alpha))
    score = theory(setting)
    if axes is None:
        _, grid = panels()
        axes = grid[0, 0]
    line(axes, alpha, getattr(score, quantity)(alpha), colour=colour, label=label or "theory")
    if simulation is not None:
        at = alpha[:: max(len(alpha) // 12, 1)] if simulated_alpha is None else np.asarray(simulated_alpha)
        estimate = getattr(simulation, quantity)(at)
        dots(axes, at, estimate.value, estimate.stderr, colour=colour, label=None)
    star = float(score.alpha_star)
    if alpha.min() <= star <= alpha.max():
        axes.axvline(star, color=colour, linestyle=":", linewidth=1)
        axes.annotate("α*", (star, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=9)
    axes.axvline(1.0, color="0.75", linewidth=0.8, zorder=0)
    name_axes(axes, "scale α", LABELS[quantity])
    return axes.figure


def sweep_curves(rows: Sequence[dict[str, Any]], x: str, *, quantity: str = "accuracy") -> Any:
    """A sweep's ``quantity`` against the field ``x``, theory as lines, simulation as dots.

    The scale and every further grid axis make separate lines.
    """
    chosen = [row for row in rows if row["quantity"] == quantity]
    if not chosen or x not in chosen[0]:
        raise ValueError(f"x must be a column of the sweep with quantity {quantity!r}, got {x!r}")
    figure, grid = panels()
    axes = grid[0, 0]
    fixed = {"point", "alpha_star", "value", "stderr", "source", x}
    varying = [key for key in chosen[0] if key not in fixed and len({row.get(key) for row in chosen}) > 1]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in chosen:
        groups.setdefault(tuple(row.get(key) for key in varying), []).append(row)
    for index, (values, group) in enumerate(groups.items()):
        colour = COLOURS[index % len(COLOURS)]
        for source in ("theory", "simulation"):
            points = sorted((row[x], row["value"], row["stderr"]) for row in group if row["source"] == source)
            if not points:
                continue
            at, value, stderr = (np.array(column, dtype=float) for column in zip(*points, strict=True))
            if source == "theory":
                label = ", ".join(
                    f"{FIELDS.get(key, key).split()[-1]} = {entry:g}"
                    for key, entry in zip(varying, values, strict=True)
                )
                line(axes, at, value, colour=colour, label=label or "theory")
            else:
                dots(axes, at, value, stderr, colour=colour, label=None)
    if _spans_decades(np.array([row[x] for row in chosen], dtype=float)):
        axes.set_xscale("log")
    name_axes(axes, FIELDS.get(x, x), LABELS[quantity])
    legend(axes)
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
    figure, grid = panels()
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
    axes.grid(visible=False)
    name_axes(axes, FIELDS.get(x_name, x_name), FIELDS.get(y_name, y_name))
    return figure
