"""Figures of the page that combine cells in a way of their own, computed once more by code of this module alone.

`verify` matches a figure first with what is stored, then with plain statistics of it, and last with these. The numbers
that a rule fixes (the scales of a grid, the points of a contrast) are written here a second time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Cells = Mapping[str, Any]


def combined(check: str, cells: Cells) -> Iterator[float]:
    """The combined figures of a check; none for most."""
    if check in COMBINED:
        yield from COMBINED[check](cells)


def t_interval(mean: float, parts: list[tuple[float, float]]) -> Iterator[float]:
    """A mean, the ends of its 95 % interval (Student's t, and 1.96 errors) and its error, from the variance's parts."""
    from scipy.stats import t as student

    variance = sum(part for part, _ in parts)
    yield mean
    if variance > 0:
        freedom = variance**2 / sum(part**2 / free for part, free in parts)
        width = float(student.ppf(0.975, freedom)) * float(np.sqrt(variance))
        error = float(np.sqrt(variance))
        yield from (mean - width, mean + width, error, mean - 1.96 * error, mean + 1.96 * error)


def two_way(values: Any, share: float = 1.0) -> tuple[float, list[tuple[float, float]]]:
    """Mean of (seeds, examples) and the parts of its variance, each times ``share``."""
    seeds, examples = values.shape
    parts = [(share * float(values.mean(0).var(ddof=1)) / examples, examples - 1)]
    if seeds > 1:
        parts.append((share * float(values.mean(1).var(ddof=1)) / seeds, seeds - 1))
    return float(values.mean()), parts


def _bits(text: str) -> Any:
    return np.array(list(text), dtype=float)


def _histograms(cells: Cells) -> Iterator[float]:
    for figures in cells.values():
        for curve in figures["curves"]:
            if "n_eff" in curve:
                yield 1.63 / float(np.sqrt(curve["n_eff"])) + 1.0 / 400


def _table1(cells: Cells) -> Iterator[float]:
    """Standard errors of a column's mean: those of pairs with one target add up, those of targets in squares."""
    for n in {name.rpartition("-")[2] for name in cells}:
        group = {name: figures["columns"] for name, figures in cells.items() if name.endswith(f"-{n}")}
        for column in next(iter(group.values())):
            targets: dict[str, float] = {}
            for name, columns in group.items():
                target = name.split("-")[1]
                targets[target] = targets.get(target, 0.0) + columns[column]["stderr"]
            yield float(np.linalg.norm(list(targets.values()))) / len(group)


def _real_curves(cells: Cells) -> Iterator[float]:
    """Predicted minus measured accuracy at the measured scales, by kind of data."""
    measured = (-1.0, 0.0, 0.5, 0.75, 1.0, 1.5, 2.42, 4.0, 6.0, 10.0)
    places = [int(np.ceil(10 * (alpha + 1.0) - 1e-6)) for alpha in measured]
    groups: dict[tuple[str, str], list[Any]] = {}
    for name, figures in cells.items():
        kind = name.partition("_")[0]
        kind = f"{kind}, {'development' if name.partition('_')[2] in DEVELOPMENT else 'new'}"
        for size, found in figures.items():
            if re.fullmatch(r"n\d+", size):
                for model, line in found["lines"].items():
                    groups.setdefault((kind, model), []).append(np.array(line)[places] - np.array(found["mean"]))
    for gaps in groups.values():
        yield from (float(np.mean(gaps)), float(np.mean(np.abs(gaps))))


#: Amazon pairs on which the corrections were developed.
DEVELOPMENT = ("book-dvd", "dvd-elec", "elec-kitchen", "kitchen-book")


def _suggested(cells: Cells) -> Iterator[float]:
    gaps = []
    for task in {name.partition("-")[0] for name in cells}:
        runs = [figures for name, figures in cells.items() if name.startswith(f"{task}-")]
        test = {
            start: [[one["runs"][f"{start}-{mode}"]["test"] for mode in ("frozen", "trained")] for one in runs]
            for start in ("one", "suggested", "random")
        }
        found = [np.mean(np.subtract(test[start], test["one"]), axis=1) for start in ("suggested", "random")]
        gaps.append(found[0])
        found.append(np.array([100 * (one["suggestion"]["after"] - one["suggestion"]["before"]) for one in runs]))
        for values in found:
            yield float(values.mean())
            if len(values) > 1:
                yield float(values.std(ddof=1)) / len(values) ** 0.5
    yield from pooled(gaps)


def pooled(groups: list[Any]) -> Iterator[float]:
    """Mean over groups of their means with its interval: one variance, the degrees of freedom of all together."""
    some = [values for values in groups if len(values) > 1]
    if some:
        variance = sum(float(values.var(ddof=1)) / len(values) for values in some) / len(some) ** 2
        freedom = sum(map(len, some)) - len(some)
        yield from t_interval(float(np.mean([values.mean() for values in some])), [(variance, freedom)])


def _affine(cells: Cells) -> Iterator[float]:
    """Loss at a = 2/3, 4/3 and b = ±1/3: mean over the points, then over tasks, or of a task alone."""
    found = []
    for task in sorted({name.partition(".")[0] for name in cells}):
        lost = []
        for run in [f for name, f in cells.items() if name.startswith(f"{task}.")] or [cells[task]]:
            points = {(one["a"], one["b"]): _bits(one["correct"]) for one in run["points"]}
            changed = [points[point] for point in ((0.667, 0.0), (1.333, 0.0), (1.0, -0.333), (1.0, 0.333))]
            lost.append(100 * (points[1.0, 0.0] - np.mean(changed, axis=0)))
        found.append(np.array(lost))
    for some in [found, *([one] for one in found)]:
        tables = [two_way(one, 1 / len(some) ** 2) for one in some]
        yield from t_interval(
            float(np.mean([mean for mean, _ in tables])), [part for _, parts in tables for part in parts]
        )


def _sensitivity(cells: Cells) -> Iterator[float]:
    runs: dict[str, list[Any]] = {}
    for name, figures in cells.items():
        runs.setdefault(name.rpartition(".")[0], []).append(figures["losses"])
    for name, losses in runs.items():
        if name != "base":
            both = min(len(losses), len(runs["base"]))
            yield from t_interval(*two_way(np.array(losses[:both]) - np.array(runs["base"][:both])))


def _overhead(cells: Cells) -> Iterator[float]:
    for figures in cells.values():
        if "alpha_ratio" in figures:
            yield figures["ratio"] + figures["alpha_ratio"] / 10
            yield float(np.hypot(figures["error"], figures["alpha_error"] / 10))


def _language(cells: Cells) -> Iterator[float]:
    """Mean accuracy over all questions, and differences of one method to another."""
    runs: dict[str, list[Any]] = {}
    for name, figures in cells.items():
        asked = [_bits(figures[key]) for key in ("arc_easy", "arc_challenge", "truthfulqa_mc1")]
        runs.setdefault(name.partition(".")[0], []).append(100 * np.concatenate(asked))
    for one, values in runs.items():
        yield from t_interval(*two_way(np.array(values)))
        for other, rivals in runs.items():
            if other != one and np.shape(rivals) == np.shape(values):
                yield from t_interval(*two_way(np.array(values) - np.array(rivals)))


def _few_shot(cells: Cells) -> Iterator[float]:
    """Searched GLoRA minus LoRA: the numbers of images of a seed are averaged first and count as one."""
    by_seed: dict[str, list[Any]] = {}
    for name, figures in cells.items():
        twin = name.replace("glora_searched", "lora")
        if twin != name and name.startswith("few-") and twin in cells:
            gap = 100 * (_packed(figures["right"]) - _packed(cells[twin]["right"]))
            by_seed.setdefault(name.rpartition("-")[2], []).append(gap)
    most = max(map(len, by_seed.values()), default=0)
    seeds = [np.mean(gaps, axis=0) for gaps in by_seed.values() if len(gaps) == most]
    if len(seeds) > 1:
        yield from t_interval(*two_way(np.array(seeds)))


def _packed(text: str) -> Any:
    size, _, digits = text.partition(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8))[: int(size)].astype(float)


def _layers(cells: Cells) -> Iterator[float]:
    found = [figures["layers"] for figures in cells.values() if "layers" in figures]
    if found:
        share = float(np.mean([one["mlp_share"] for one in found]))
        error = float(np.mean([one["random_spread"] for one in found])) / len(found) ** 0.5
        yield from (error, share - 1.96 * error, share + 1.96 * error)


def _merging(cells: Cells) -> Iterator[float]:
    for figures in cells.values():
        if "ratio" in figures:
            ratio, error = (one if isinstance(one, dict) else {"": one} for one in (figures["ratio"], figures["error"]))
            yield from (ratio[name] + sign * 1.96 * error[name] for name in error for sign in (-1, 1))


def _leak(cells: Cells) -> Iterator[float]:
    gaps: dict[str, list[float]] = {}
    for name, figures in cells.items():
        if name.startswith("supernet-"):
            gap = figures["search"]["validation_accuracy"] - figures["inherited"]["accuracy"]
            gaps.setdefault(name.split("-")[1], []).append(gap)
    yield from pooled([np.array(values) for values in gaps.values()])


def _search(cells: Cells) -> Iterator[float]:
    logs = [figures["search"] for figures in cells.values() if "search" in figures]
    sums = {key: sum(one.get(key, 0) for one in logs) for one in logs for key in one if isinstance(one[key], int)}
    for one, other in (("images_of_plain_evaluation", "images"), ("stopped", "candidates"), ("cached", "candidates")):
        if sums.get(other):
            yield from (sums.get(one, 0) / sums[other], 100 * sums.get(one, 0) / sums[other])


def _held_out(cells: Cells) -> Iterator[float]:
    """Counts, means and coverages of the automatic rule over the cells of a set, of the open sets and of the closed."""
    sets = {name: list(figures["cells"].values()) for name, figures in cells.items()}
    for names in ("cifar10 digits sentences textures-ten", "gtsrb textures pairs"):
        sets[names] = [one for name in names.split() for one in sets.get(name, [])]
    simple = ("source", "target-only", "α = 1", "RidgeClassifierCV")
    for group in filter(None, sets.values()):
        yield float(len(group))
        for column in ("auto", "oracle"):
            gaps = []
            for one in group:
                place = max(range(4), key=lambda k: one["mean"][simple[k]])
                gaps.append((one["mean"][simple[place]] - one["mean"][column], one["error"][column][place]))
            for points in (1.0, 5.0):
                yield 100.0 * sum(gap > points + 2 * error for gap, error in gaps) / len(gaps)
        for column in ("auto", *simple):
            yield sum(one["mean"][column] for one in group) / len(group)
        off = [one["predicted"] - one["mean"]["auto"] for one in group]
        yield sum(map(abs, off)) / len(off)
        yield sum(off) / len(off)
        for n in {one["n"] for one in group}:
            for key in ("covered", "plainly_covered"):
                found = [one[key] for one in group if one["n"] == n]
                yield 100.0 * sum(found) / len(found)


def _best_start(cells: Cells) -> Iterator[float]:
    """Gains over all settings, the smallest z of one, and the counts."""
    found = [one for figures in cells.values() for one in figures["settings"]]
    error = sum(one["error"] ** 2 for one in found) ** 0.5 / len(found)
    mean = sum(one["gain"] for one in found) / len(found)
    yield from (mean, error, mean / error, sum(one["best_gain"] for one in found) / len(found), float(len(found)))
    yield min(one["gain"] / one["error"] for one in found)
    more = sum(one["transfer"] > one["source"] for one in found)
    apart = sum(max(one["transfer"] / one["source"], one["source"] / one["transfer"]) > 1.25 for one in found)
    yield from (float(more), float(len(found) - more), float(apart))


COMBINED: dict[str, Callable[[Cells], Iterator[float]]] = {
    "alpha_lora.choose_alpha_held_out": _held_out,
    "source_penalty.best_start": _best_start,
    "alpha_lora.histograms": _histograms,
    "alpha_lora.table1": _table1,
    "alpha_lora.real_curves": _real_curves,
    "alpha_lora.suggested_alpha": _suggested,
    "alpha_lora.glue_affine": _affine,
    "alpha_lora.glue_sensitivity": _sensitivity,
    "alpha_lora.alpha_overhead": _overhead,
    "glora.language_model": _language,
    "glora.vtab_fewshot": _few_shot,
    "glora.vtab_layers": _layers,
    "glora.vtab_merging": _merging,
    "glora.merging": _merging,
    "glora.vtab_leak": _leak,
    "glora.vtab_search": _search,
}
