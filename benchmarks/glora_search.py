"""Candidates a minute of the search against plain evaluation of every candidate, and what each saving brings.

A tiny ViT pretrained on the digits 0–4, its supernet trained on 5–9, 200 validation images, evolution over 4
generations of 24. Every variant must select the same subnet; the rows are ratios measured in turn in one run. How much
early stopping saves depends on how accurate the candidates are, so the images asked are also counted for a supernet
of the digits 0–4, and with the study's evolution (7 generations of 24, 10 parents) in batches of 25 and 10. At this
toy size merging saves the layers' overhead, which a larger model hardly notices: where the folder ADAPT_SHARED holds
the data and the ViT-S, a short search at that size is measured as well.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.timing import interleaved, row
from paper_checks.statistics.threads import one_thread

ALL = "merged, cached, stopped early"
VARIANTS: dict[str, dict[str, bool]] = {
    "plain": {"merged": False, "caching": False, "early_stopping": False},
    "merged": {"merged": True, "caching": False, "early_stopping": False},
    "merged, cached": {"merged": True, "caching": True, "early_stopping": False},
    ALL: {"merged": True, "caching": True, "early_stopping": True},
}


def trained_supernet(folder: Path, vit: Path, classes: range) -> tuple[Any, Any]:
    """The demo's supernet trained on these digits, and its task."""
    from glora.searching import SearchRun
    from paper_checks.demo.vision import digits_config, write_digits

    target = write_digits(folder / "data", classes=classes, validation=200)
    search_run = SearchRun(digits_config(folder / "run", target, vit, epochs=40))
    return search_run.supernet(), search_run.task


SHORT = {"generations": 4, "population": 24, "parents": 6, "mutations": 12, "crossovers": 12}
STUDY = {"generations": 7, "population": 24, "parents": 10, "mutations": 12, "crossovers": 12}
#: At ViT-S size, where a candidate takes seconds.
FEW = {"generations": 2, "population": 12, "parents": 5, "mutations": 6, "crossovers": 6}


def run(
    supernet: Any,
    task: Any,
    savings: dict[str, bool],
    sizes: dict[str, int] = SHORT,
    batch_size: int = 25,
    budget: int | None = None,
) -> Any:
    """One search."""
    from glora.engines.evolution import Evolution
    from glora.engines.space import Budget
    from glora.search.loop import search
    from paper_checks.demo.vision import BUDGET

    engine = Evolution(supernet.space, Budget.around(budget or BUDGET), **sizes)
    return search(supernet, task, engine, batch_size=batch_size, **savings)


def compared(what: str, supernet: Any, task: Any, **options: Any) -> list[dict[str, Any]]:
    """Images and seconds of plain evaluation over those of the search, in batches of 25 and 10."""
    variants = ("plain", "merged", ALL)  # merging saves time, not images
    rows = []
    for batch_size in (25, 10):
        found, seconds = [], []
        for savings in variants:
            start = time.perf_counter()
            found.append(run(supernet, task, VARIANTS[savings], batch_size=batch_size, **options))
            seconds.append(time.perf_counter() - start)
        plain, _, last = found
        name = f"{what}, batches of {batch_size}"
        rows += [
            row(f"{name}: selected the same (1: yes)", float(selection(plain) == selection(last)), at_least=1),
            row(f"{name}: images of plain evaluation / asked, best {last.accuracy:.0f} %", plain.images / last.images),
            row(f"{name}: seconds of plain / merged", seconds[0] / seconds[1]),
            row(f"{name}: seconds without / with early stopping", seconds[1] / seconds[2]),
            row(f"{name}: seconds of plain / all", seconds[0] / seconds[2]),
        ]
    return rows


def selection(found: Any) -> list[str]:
    """What was proposed, and what was selected in the end."""
    from glora.search.log import genome_text

    return [*(genome_text(candidate.genome) for candidate in found.candidates), genome_text(found.best.genome)]


def at_vit_s_size(folder: Path) -> list[dict[str, Any]]:
    """The comparison on CIFAR-10 with a ViT-S and a supernet of few steps; no rows without the data folder."""
    from glora.runs.config import RunConfig
    from glora.runs.settings import TrainingSettings
    from glora.searching import SearchRun

    shared = Path(os.environ.get("ADAPT_SHARED", "nowhere"))
    data, model = shared / "data" / "vtab" / "cifar10", shared / "models" / "vit-s14"
    if not data.is_dir() or not model.is_dir():
        return []
    training = TrainingSettings(steps=100, lr=1e-4, head_lr=2e-3, schedule="cosine", device="cpu")
    config = RunConfig(
        task={"name": "vtab", "folder": str(data), "model": str(model), "side": 56},
        method={"name": "supernet", "rank": 4, "parameters": 290_304},
        training=training,
        out=str(folder / "vit-s"),
    )
    search_run = SearchRun(config)
    return compared("ViT-S", search_run.supernet(), search_run.task, sizes=FEW, budget=290_304)


def measure() -> list[dict[str, Any]]:
    """Throughput of each variant, what each asks, and whether all select the same."""
    from paper_checks.demo.vision import pretrain, write_digits

    with one_thread(), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pretrain(folder / "vit", write_digits(folder / "0-4", classes=range(5)))
        hard = trained_supernet(folder / "hard", folder / "vit", range(5, 10))
        easy = trained_supernet(folder / "easy", folder / "vit", range(5))
        found = {name: run(*hard, savings) for name, savings in VARIANTS.items()}
        seconds = interleaved(*(partial(run, *hard, savings) for savings in VARIANTS.values()), rounds=3)
        on_easy = run(*easy, VARIANTS[ALL])
        more = compared("study's evolution on the toy", *hard, sizes=STUDY) + at_vit_s_size(folder)
    plain, last = found["plain"], found[ALL]
    count = len(plain.candidates)
    times = dict(zip(VARIANTS, seconds, strict=True))
    same = all(selection(one) == selection(plain) for one in found.values())
    return [
        row("selected the same candidates and the same subnet (1: yes)", float(same), at_least=1),
        *(row(f"candidates a minute, {name}", 60 * count / value) for name, value in times.items()),
        row("share of merging: plain / merged", times["plain"] / times["merged"]),
        row("share of caching: merged / merged, cached", times["merged"] / times["merged, cached"]),
        row("share of early stopping: merged, cached / all", times["merged, cached"] / times[ALL]),
        row("plain / all: selected-from candidates a minute", times["plain"] / times[ALL], at_least=1.5),
        *(
            row(
                f"images asked / of plain evaluation, best candidate {one.accuracy:.0f} %",
                one.images / (count * one.total),
            )
            for one in (last, on_easy)
        ),
        row("candidates stopped early", last.stopped / count),
        row("candidates cached", last.cached / count),
        *more,
    ]
