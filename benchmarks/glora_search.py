"""Candidates a minute of the search against plain evaluation of every candidate, and what each saving brings.

A tiny ViT pretrained on the digits 0–4, its supernet trained on 5–9, 200 validation images, evolution over 4
generations of 24. Every variant must select the same subnet; the rows are ratios measured in turn in one run. How much
early stopping saves depends on how accurate the candidates are, so the images asked are also counted for a supernet
of the digits 0–4. At this toy size merging saves the layers' overhead, which a larger model hardly notices.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import interleaved, row

ALL = "merged, cached, stopped early"
VARIANTS: dict[str, dict[str, bool]] = {
    "plain": {"merged": False, "caching": False, "early_stopping": False},
    "merged": {"merged": True, "caching": False, "early_stopping": False},
    "merged, cached": {"merged": True, "caching": True, "early_stopping": False},
    ALL: {"merged": True, "caching": True, "early_stopping": True},
}


def trained_supernet(folder: Path, vit: Path, classes: range) -> tuple[Any, Any]:
    """The demo's supernet trained on these digits, and its task."""
    from glora.search_run import SearchRun
    from paper_checks.glora.demo_vision import digits_config, write_digits

    target = write_digits(folder / "data", classes=classes, validation=200)
    search_run = SearchRun(digits_config(folder / "run", target, vit, epochs=40))
    return search_run.supernet(), search_run.task


def run(supernet: Any, task: Any, savings: dict[str, bool]) -> Any:
    """One search."""
    from glora.engines import Evolution
    from glora.search import search
    from glora.space import Budget
    from paper_checks.glora.demo_vision import BUDGET

    sizes = {"generations": 4, "population": 24, "parents": 6, "mutations": 12, "crossovers": 12}
    engine = Evolution(supernet.space, Budget.around(BUDGET), **sizes)
    return search(supernet, task, engine, batch_size=25, **savings)


def measure() -> list[dict[str, Any]]:
    """Throughput of each variant, what each asks, and whether all select the same."""
    from glora.search import genome_text
    from paper_checks.glora.demo_vision import pretrain, write_digits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            pretrain(folder / "vit", write_digits(folder / "0-4", classes=range(5)))
            hard = trained_supernet(folder / "hard", folder / "vit", range(5, 10))
            easy = trained_supernet(folder / "easy", folder / "vit", range(5))
            found = {name: run(*hard, savings) for name, savings in VARIANTS.items()}
            seconds = interleaved(*(partial(run, *hard, savings) for savings in VARIANTS.values()), rounds=3)
            on_easy = run(*easy, VARIANTS[ALL])
    finally:
        torch.set_num_threads(threads)
    plain, last = found["plain"], found[ALL]
    count = len(plain.candidates)
    times = dict(zip(VARIANTS, seconds, strict=True))
    proposed = [[genome_text(candidate.genome) for candidate in one.candidates] for one in found.values()]
    selected = [genome_text(one.best.genome) for one in found.values()]
    same = all(one == proposed[0] for one in proposed) and all(one == selected[0] for one in selected)
    return [
        row("selected the same candidates and the same subnet (1: yes)", float(same), at_least=1),
        *(row(f"candidates a minute, {name}", 60 * count / value) for name, value in times.items()),
        row("plain / merged", times["plain"] / times["merged"]),
        row("merged / merged, cached", times["merged"] / times["merged, cached"]),
        row("merged, cached / all", times["merged, cached"] / times[ALL]),
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
    ]
