"""Candidates a minute of the search against plain evaluation of every candidate, and what each saving brings.

A tiny ViT pretrained on the digits 0–4, its supernet trained on 5–9, 200 validation images, evolution over 4
generations of 24. Every variant must select the same subnet; the rows are ratios measured in turn in one run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import interleaved, row

VARIANTS: dict[str, dict[str, bool]] = {
    "plain": {"merged": False, "caching": False, "early_stopping": False},
    "merged": {"merged": True, "caching": False, "early_stopping": False},
    "merged, cached": {"merged": True, "caching": True, "early_stopping": False},
    "merged, cached, stopped early": {"merged": True, "caching": True, "early_stopping": True},
}


def trained_supernet(folder: Path) -> tuple[Any, Any]:
    """The demo's supernet after training, and its task."""
    from glora.search_run import SearchRun
    from paper_checks.glora.demo_vision import digits_config, pretrain, write_digits

    source = write_digits(folder / "0-4", classes=range(5))
    target = write_digits(folder / "5-9", classes=range(5, 10), validation=200)
    pretrain(folder / "vit", source)
    search_run = SearchRun(digits_config(folder / "run", target, folder / "vit", epochs=40))
    return search_run.supernet(), search_run.task


def measure() -> list[dict[str, Any]]:
    """Throughput of each variant and whether all select the same."""
    from glora.engines import Evolution
    from glora.search import Found, genome_text, search
    from glora.space import Budget
    from paper_checks.glora.demo_vision import BUDGET

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            supernet, task = trained_supernet(Path(scratch))
            found: dict[str, Found] = {}

            def run(name: str) -> None:
                engine = Evolution(
                    supernet.space,
                    Budget.around(BUDGET),
                    generations=4,
                    population=24,
                    parents=6,
                    mutations=12,
                    crossovers=12,
                )
                found[name] = search(supernet, task, engine, batch_size=25, **VARIANTS[name])

            seconds = interleaved(*(lambda name=name: run(name) for name in VARIANTS), rounds=3)  # type: ignore[misc]
    finally:
        torch.set_num_threads(threads)
    plain = found["plain"]
    same = all(
        [genome_text(c.genome) for c in other.candidates] == [genome_text(c.genome) for c in plain.candidates]
        and genome_text(other.best.genome) == genome_text(plain.best.genome)
        for other in found.values()
    )
    count = len(plain.candidates)
    last = found["merged, cached, stopped early"]
    times = dict(zip(VARIANTS, seconds, strict=True))
    rows = [row("selected the same candidates and the same subnet (1: yes)", float(same), at_least=1)]
    rows += [row(f"candidates a minute, {name}", 60 * count / value) for name, value in times.items()]
    rows += [
        row("plain / merged", times["plain"] / times["merged"]),
        row("merged / merged, cached", times["merged"] / times["merged, cached"]),
        row("merged, cached / all", times["merged, cached"] / times["merged, cached, stopped early"]),
        row("plain / all: selected-from candidates a minute", times["plain"] / seconds[-1], at_least=1.5),
        row("images asked / images of plain evaluation", last.images / (count * last.total)),
        row("candidates stopped early", last.stopped / count),
    ]
    return rows
