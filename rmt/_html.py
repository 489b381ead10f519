"""What a notebook shows of a setting, a score, a simulation, a comparison: a small table, and a curve of a score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from typing import Any

import numpy as np

#: Numbers of a curve and its size in pixels.
_POINTS, _WIDTH, _HEIGHT = 61, 220, 90
#: Numbers of an array that are written out; more of them are described.
_LISTED = 4


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> str:
    """An HTML table of plain cells."""
    lines = [f"<table><caption>{escape(title)}</caption>" if title else "<table>"]
    if head:
        lines.append("<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{escape(cell(one))}</td>" for one in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])


def cell(value: Any) -> str:
    """``value`` in a few characters: numbers to four digits, arrays by shape and range."""
    if value is None or isinstance(value, str | bool):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        inner = ((field.name, getattr(value, field.name)) for field in fields(value) if field.repr)
        return f"{type(value).__name__}({', '.join(f'{name}={cell(one)}' for name, one in inner if one is not None)})"
    if isinstance(value, tuple | list) and any(is_dataclass(one) for one in value):
        return ", ".join(map(cell, value))
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return str(value)
    if array.size <= _LISTED:
        return np.array2string(array, precision=4, separator=", ") if array.ndim else f"{float(array):.4g}"
    return f"{' × '.join(map(str, array.shape))} numbers from {array.min():.3g} to {array.max():.3g}"


def fields_table(thing: Any) -> str:
    """The given fields of a dataclass."""
    given = [(field.name, getattr(thing, field.name)) for field in fields(thing)]
    return table((), [(name, value) for name, value in given if value is not None], type(thing).__name__)


def score_table(score: Any) -> str:
    """Scales and accuracies of a score; with one source and one setting, its accuracy over α as a curve."""
    names = {
        "alpha_star": "α*",
        "alpha_bar": "ᾱ",
        "alpha_risk": "α of the least risk",
        "best_accuracy": "accuracy at α*",
    }
    rows: list[tuple[str, Any]] = []
    for name, word in names.items():
        try:
            rows.append((word, getattr(score, name)))
        except ValueError:  # ᾱ of several sources; a fixed point that was not found
            continue
    star = np.asarray(dict(rows).get("α*", [np.nan]), dtype=float)
    if star.ndim:
        return table((), rows, type(score).__name__)
    rows += [("accuracy at α = 0", score.accuracy(0.0)), ("accuracy at α = 1", score.accuracy(1.0))]
    reach = 2.0 * abs(float(star)) if np.isfinite(star) and star != 0 else 2.0
    reach = max(reach, 2.0)
    alpha = np.linspace(-0.5 * reach if star >= 0 else -reach, reach if star >= 0 else 0.5 * reach, _POINTS)
    return table((), rows, type(score).__name__) + curve(alpha, np.asarray(score.accuracy(alpha)), mark=float(star))


def curve(x: Any, y: Any, *, mark: float) -> str:
    """A small SVG line of accuracy over α, with a dotted line at ``mark`` and the ends of both axes."""
    low, high = float(np.min(y)), float(np.max(y))
    span = high - low if high > low else 1.0
    across = (np.asarray(x) - x[0]) / (x[-1] - x[0]) * _WIDTH
    down = 4 + (high - np.asarray(y)) / span * (_HEIGHT - 8)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
    parts = [f'<polyline points="{points}" fill="none" stroke="#1b4f8a" stroke-width="1.5"/>']
    if x[0] <= mark <= x[-1]:
        at = (mark - x[0]) / (x[-1] - x[0]) * _WIDTH
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{_HEIGHT}" stroke="#8d99a6" stroke-dasharray="2,2"/>'
        )
    text = f"accuracy {low:.3f} to {high:.3f} over α from {x[0]:.3g} to {x[-1]:.3g}"
    return (
        f'<figure style="margin:0"><svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{escape(text)}">'
        + "".join(parts)
        + f"</svg><figcaption>{escape(text)}; dotted: α*</figcaption></figure>"
    )
