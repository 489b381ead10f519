"""The figures of the page derived once more from the cells, by code that shares nothing with the checks.

The page is read as text: the tables of figures, the column "one figure", and the sentences of the answers. A number
counts as *stored* if it is, in the digits shown, a figure of a cell of that claim (or its percentage), as *statistic*
if it is a simple statistic of such figures over cells (mean, standard error, interval, largest magnitude, sum, quotient
to another method) or a paired difference with its interval from stored answers, as *combined* if it is one of the sums
of `paper_checks.report.aggregates`. With many statistics about, a match of two digits is weak evidence and one of five
is strong: the classes say which it was. A number of the tables or of "one figure" that matches nothing is a miss.

Sentences repeat such numbers, or numbers of the rule and the claim, or count cells (*said*). What they hold beside that
(counts of layers, what would decide) is listed as unread and is no miss. Nothing is trained, no ``judge`` is called.
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
from paper_checks.report.aggregates import combined

_ARTICLE = re.compile(r'<article id="([^"]+)".*?</article>', re.DOTALL)
_ROW = re.compile(r"<tr><td>(.*?)</td>(?:<td[^>]*>[^<]*</td>)?<td class=\"number\">(.*?)</td></tr>")
_SCORE = re.compile(r'<td><a href="#([^"]+)">.*?</td><td>.*?</td><td>(.*?)</td>', re.DOTALL)
_ANSWER = re.compile(r"<p>(.*?)</p>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d[\d,]*)?\.?\d+(?:e-?\d+)?(?![\w])")


#: How a number may be derived, the strongest first.
STORED, STATISTIC, COMBINED, SAID = KINDS = ("stored", "statistic", "combined", "said")


@dataclass(frozen=True)
class Verified:
    """Numbers of a claim on the page: how many there are, how many were derived in each way, and the others."""

    shown: int
    derived: dict[str, int]
    left: tuple[str, ...]
    unread: tuple[str, ...]  #: numbers of sentences that repeat nothing


def verify(checks: Iterable[Check], page: Path, folder: Path = COMMITTED) -> dict[str, Verified]:
    """Derive the figures of every claim on the page from the cells below ``folder``.

    Raises:
        ValueError: the page is not there.
    """
    if not page.is_file():
        raise ValueError(f"page {str(page)!r} does not exist; run `paper-checks report` first")
    text = page.read_text(encoding="utf-8")
    articles = {found[1]: found[0] for found in _ARTICLE.finditer(text)}
    score = {found[1]: found[2] for found in _SCORE.finditer(text)}
    result = {}
    for check in checks:
        cells = {name: record["figures"] for name, record in check.records(folder).items()}
        article = articles.get(check.id, "")
        rows = [*_ROW.findall(article), ("one figure", score.get(check.id, ""))]
        if not cells or not article:
            continue
        known = _sources(check.id, cells)
        said = _numbers(" ".join([check.rule, check.claim, check.short, check.scale, check.where]))
        count, left, unread, table = dict.fromkeys(KINDS, 0), [], [], []
        for name, value in rows:
            for one in _numbers(value):
                table.append(_value(one))
                _count(one, known, html.unescape(name), count, left)
        sizes = [len(cells), *(len(group) for group in _families(cells))]
        known[SAID] = np.unique([*table, *map(abs, table), *map(_value, said), *sizes])
        for one in _numbers(" ".join(_ANSWER.findall(article))):
            _count(one, known, "sentence", count, unread)
        result[check.id] = Verified(sum(count.values()) + len(left), count, tuple(left), tuple(unread))
    return result


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _numbers(text: str) -> list[str]:
    """Numbers of a piece of the page, tags left out."""
    return _NUMBER.findall(html.unescape(_TAG.sub(" ", text)).replace("−", "-"))


def _count(text: str, known: Mapping[str, Any], where: str, count: dict[str, int], left: list[str]) -> None:
    """Note how a number was derived, or that it was not."""
    for kind, values in known.items():
        if _is_known(text, values):
            count[kind] += 1
            return
    left.append(f"{where}: {text}")


def _sources(check: str, cells: Mapping[str, Any]) -> dict[str, Any]:
    """What can be derived, by how it is, as sorted arrays."""
    found: dict[str, list[float]] = {STORED: [], STATISTIC: [], COMBINED: list(combined(check, cells))}
    for kind, value in _derived(cells):
        found[kind].append(value)
    return {kind: values[np.isfinite(values)] for kind, some in found.items() if len(values := np.unique(some))}


def _families(cells: Mapping[str, Any]) -> list[list[str]]:
    """Cells whose names begin alike."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        found.setdefault(re.split(r"[.-]", cell)[0], []).append(cell)
    return list(found.values())


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


def _derived(cells: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Everything that this module can derive from the cells, and how."""
    table: dict[str, dict[str, float]] = {}  # path -> cell -> figure
    answers: dict[str, dict[str, Any]] = {}  # path -> cell -> array of 0 and 1
    for cell, figures in cells.items():
        yield from ((STATISTIC, value) for value in _gaps(figures))
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
                yield STATISTIC, 100 * float(np.sqrt(share * (1 - share) / len(value)))
            else:
                table.setdefault(path, {})[cell] = value
    for path, by_cell in table.items():
        kind = STATISTIC if path.endswith((".mean", ".error", ".largest", ".sum", ".median", ".share")) else STORED
        for value in by_cell.values():
            yield from ((kind, one) for one in (value, abs(value), 100 * value, value / 1e6))
        if re.search(r"\.[1-9]\d+(\.|$)", path):  # points of a long curve: no statistics over cells
            continue
        for group in _groups(by_cell):
            yield from ((STATISTIC, one) for one in _statistics(np.array(group)))
        for one, other in itertools.islice(itertools.permutations(by_cell.values(), 2), 2000):
            if path.endswith(("accuracy", "memory_mib", "parameters")):
                yield from ((STATISTIC, v) for v in (one - other, one / other if other else 0.0))
    for by_cell in answers.values():
        yield from ((STATISTIC, value) for value in _differences(by_cell))


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
        for place, end in enumerate(end for pair in _intervals(tree) for end in pair):
            yield f"{path}.{place}.error", end
    elif isinstance(tree, list):
        for place, value in enumerate(tree[:400]):
            yield from _leaves(value, f"{path}.{place}")
        if tree and all(isinstance(one, int | float) for one in tree):
            simple = _statistics(np.array(tree, float))
            for name, value in zip(("mean", "error", "largest", "sum", "median"), simple, strict=False):
                yield f"{path}.{name}", value


def _intervals(tree: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """Ends of the intervals of figures that are stored with their standard errors."""
    for value, error in ((tree.get("value"), tree.get("stderr")), (tree.get("mean"), tree.get("stderr"))):
        pairs = (
            zip(value, error, strict=False) if isinstance(value, list) and isinstance(error, list) else [(value, error)]
        )
        yield from (ends(a, b) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float))
    for pair in tree.values():
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, int | float) for one in pair):
            yield ends(*pair)


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
    """Mean, standard error of the mean, largest magnitude, sum, median, mean in percent, ends of its interval."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    mean = float(values.mean())
    return (
        mean,
        error,
        float(np.abs(values).max()),
        float(values.sum()),
        float(np.median(values)),
        100 * mean,
        *ends(mean, error),
    )


def ends(mean: float, error: float) -> tuple[float, float]:
    """Of the 95 % interval of a figure with its standard error."""
    return mean - 1.96 * error, mean + 1.96 * error


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
