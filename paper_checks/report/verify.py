"""The figures of the page derived once more from the cells, by code that shares nothing with the checks.

The page is read as text. A figure counts as *derived* if it is, in the digits shown, a figure stored in a cell of that
claim, a simple statistic of such figures over cells (mean, its standard error, largest magnitude, sum, quotient to
another method), or one of the paired differences with intervals that this module computes on its own from the stored
answers. What it cannot derive is listed: it is not thereby wrong. Nothing is trained, no ``judge`` is called.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paper_checks.core import COMMITTED, Check

_ARTICLE = re.compile(r'<article id="([^"]+)".*?</article>', re.DOTALL)
_ROW = re.compile(r"<tr><td>(.*?)</td>(?:<td[^>]*>[^<]*</td>)?<td class=\"number\">(.*?)</td></tr>")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Verified:
    """Figures of a claim on the page: how many there are, how many were derived, and the names of the others."""

    shown: int
    derived: int
    left: tuple[str, ...]


def verify(checks: Iterable[Check], page: Path, folder: Path = COMMITTED) -> dict[str, Verified]:
    """Derive the figures of every claim on the page from the cells below ``folder``.

    Raises:
        ValueError: the page is not there.
    """
    if not page.is_file():
        raise ValueError(f"page {str(page)!r} does not exist; run `paper-checks report` first")
    articles = {found[1]: found[0] for found in _ARTICLE.finditer(page.read_text(encoding="utf-8"))}
    result = {}
    for check in checks:
        rows = _ROW.findall(articles.get(check.id, ""))
        if not rows:
            continue
        cells = {name: record["figures"] for name, record in check.records(folder).items()}
        known = np.unique(np.fromiter(_derived(cells), dtype=float))
        known = known[np.isfinite(known)]
        shown, left = 0, []
        for name, text in rows:
            numbers = _NUMBER.findall(html.unescape(text).replace("−", "-"))
            missed = [one for one in numbers if not _is_known(one, known)]
            shown += len(numbers)
            left += [f"{html.unescape(name)}: {one}" for one in missed]
        result[check.id] = Verified(shown, shown - len(left), tuple(left))
    return result


def _is_known(text: str, known: np.ndarray[Any, Any]) -> bool:
    """Whether some derived figure reads like ``text`` in the digits that it shows."""
    value = float(text.replace(",", ""))
    mantissa, _, exponent = text.partition("e")
    step = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    digits = len(re.sub(r"\D", "", mantissa).lstrip("0"))
    if "." not in text and digits >= 5 and not exponent:
        step = max(step, 10.0 ** (digits - 5) if value % 10 == 0 else 1.0)
    if value == 0:
        return bool(np.any(np.abs(known) <= 0.5 * step))
    near = known[np.searchsorted(known, value - 0.501 * step) : np.searchsorted(known, value + 0.501 * step)]
    return near.size > 0


def _derived(cells: Mapping[str, Any]) -> Iterator[float]:
    """Everything that this module can derive from the cells."""
    table: dict[str, dict[str, float]] = {}  # path -> cell -> figure
    answers: dict[str, dict[str, Any]] = {}  # path -> cell -> array of 0 and 1
    for cell, figures in cells.items():
        yield from _gaps(figures)
        if corrupted := figures.get("corruptions"):
            pictures = {name: dict(_leaves(right))[""] for name, right in corrupted.items()}
            kinds = np.mean([right for name, right in pictures.items() if name != "clean"], axis=0)
            answers.setdefault("corrupted", {})[cell] = kinds
            answers.setdefault("beyond", {})[cell] = kinds - pictures["clean"]
            table.setdefault("corrupted.share", {})[cell] = 100 * float(kinds.mean())
        for path, value in _leaves(figures):
            if isinstance(value, np.ndarray):
                answers.setdefault(path, {})[cell] = value
                share = float(value.mean())
                table.setdefault(f"{path}.share", {})[cell] = 100 * share
                yield 100 * float(np.sqrt(share * (1 - share) / len(value)))
            else:
                table.setdefault(path, {})[cell] = value
    for path, by_cell in table.items():
        for value in by_cell.values():
            yield from (value, abs(value), 100 * value, value / 1e6)
        for group in _groups(by_cell):
            yield from _statistics(np.array(group))
        for one, other in itertools.islice(itertools.permutations(by_cell.values(), 2), 2000):
            if path.endswith(("accuracy", "memory_mib", "parameters")):
                yield from (one - other, one / other if other else 0.0)
    for by_cell in answers.values():
        yield from _differences(by_cell)


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Figures below a stored object; lists of figures as their statistics, answers as arrays."""
    if isinstance(tree, bool) or tree is None:
        return
    if isinstance(tree, int | float):
        yield path, float(tree)
    elif isinstance(tree, str):
        if re.fullmatch(r"[01]{20,}", tree):
            yield path, np.array([float(one) for one in tree])
        elif found := re.fullmatch(r"(\d+):([0-9a-f]+)", tree):
            packed = np.frombuffer(bytes.fromhex(found[2]), dtype=np.uint8)
            yield path, np.unpackbits(packed)[: int(found[1])].astype(float)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}")
    elif isinstance(tree, list):
        for place, value in enumerate(tree[:400]):
            yield from _leaves(value, f"{path}.{place}")
        if tree and all(isinstance(one, int | float) for one in tree):
            simple = _statistics(np.array(tree, float))
            for name, value in zip(("mean", "error", "largest", "sum"), simple, strict=False):
                yield f"{path}.{name}", value


def _gaps(tree: Any) -> Iterator[float]:
    """Differences of lists of equal length that lie beside one another, and of accuracies on two sets of images."""
    if isinstance(tree, list):
        for value in tree:
            yield from _gaps(value)
    if not isinstance(tree, dict):
        return
    for value in tree.values():
        yield from _gaps(value)
    lists = [v for v in tree.values() if isinstance(v, list) and v and all(isinstance(one, int | float) for one in v)]
    for one, other in itertools.permutations(lists, 2):
        if len(one) == len(other):
            gap = np.array(one, float) - np.array(other, float)
            yield from (float(gap.mean()), float(np.abs(gap).mean()))
    if "search" in tree and "inherited" in tree:
        yield tree["search"]["validation_accuracy"] - tree["inherited"]["accuracy"]


def _groups(by_cell: Mapping[str, float]) -> list[list[float]]:
    """Figures of cells that differ by the seed, by the pair of domains, by their last word, or at all."""
    found: dict[str, list[float]] = {}
    for cell, value in by_cell.items():
        names = {
            re.sub(r"(seed|-s)\d+$", "*", cell),
            re.sub(r"^[a-z]+-[a-z]+", "*", cell),
            re.sub(r"-\d+$", "-*", cell),
            cell.partition("-")[0],
            "*",
        }
        for name in names:
            found.setdefault(name, []).append(value)
    return [values for values in found.values() if len(values) > 1]


def _statistics(values: np.ndarray[Any, Any]) -> tuple[float, ...]:
    """Mean, standard error of the mean, largest magnitude, sum, median."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    mean = float(values.mean())
    return mean, error, float(np.abs(values).max()), float(values.sum()), float(np.median(values)), 100 * mean


def _differences(by_cell: Mapping[str, Any]) -> Iterator[float]:
    """Paired differences of methods whose cells differ by one word, with their intervals, in points."""
    from scipy.stats import t as student

    runs: dict[tuple[str, ...], list[Any]] = {}
    for cell, right in by_cell.items():
        runs.setdefault(tuple(re.split(r"[.-]", re.sub(r"[.-](seed|s)\d+$", "", cell))), []).append(right)
    by_method: dict[tuple[str, str], list[Any]] = {}
    for one, other in itertools.permutations(runs, 2):
        if len(one) != len(other) or sum(a != b for a, b in zip(one, other, strict=True)) != 1:
            continue
        count = min(len(runs[one]), len(runs[other]))
        if len(runs[one][0]) != len(runs[other][0]):
            continue
        gap = 100 * (np.array(runs[one][:count]) - np.array(runs[other][:count]))
        changed = next((a, b) for a, b in zip(one, other, strict=True) if a != b)
        by_method.setdefault(changed, []).append(gap)
    for gaps in by_method.values():
        for some in ([gap] for gap in gaps) if len(gaps) == 1 else [gaps, *([gap] for gap in gaps)]:
            mean = float(np.mean([gap.mean() for gap in some]))
            images = sum(gap.mean(0).var(ddof=1) / gap.shape[1] for gap in some) / len(some) ** 2
            parts = [(float(images), sum(gap.shape[1] for gap in some) - len(some))]
            if min(len(gap) for gap in some) > 1:
                within = float(np.mean([gap.mean(1).var(ddof=1) for gap in some]))
                parts.append((sum(within / len(gap) for gap in some) / len(some) ** 2, sum(map(len, some)) - len(some)))
            variance = sum(part for part, _ in parts)
            if variance <= 0:
                continue
            freedom = variance**2 / sum(part**2 / free for part, free in parts)
            width = float(student.ppf(0.975, freedom)) * float(np.sqrt(variance))
            yield from (mean, mean - width, mean + width, float(np.sqrt(variance)))
