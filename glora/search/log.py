"""The log of a search: what each batch of examples cost a candidate, on disk, and what the log belongs to.

The log is the search's only state: engines are deterministic, so a killed search is continued by asking the engine
again and answering from the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glora._files import append_line, read_json, read_lines, sealed, to_json, unsealed, write_atomic, write_json
from glora.engines.candidates import Engine
from glora.engines.space import Genome
from glora.model.checkpoint import adapter_tensors
from glora.search.costs import Costs
from glora.search.fitness import Fitness
from glora.search.supernet import SuperNet

HEADER, LOG = "search.json", "candidates.jsonl"
#: Of the log; 1 held a candidate's answers, 2 its costs, 3 holds those of a batch.
FORMAT = 3
_REMEDY = "delete the folder to search anew"


def genome_text(genome: Genome) -> str:
    """The genome as digits, five a layer: ``"01200 33022"``."""
    return " ".join("".join(map(str, genes)) for genes in genome.tolist())


class Log:
    """Answers on disk, one JSON line a batch, and what they belong to."""

    def __init__(self, folder: str | Path | None, identity: dict[str, Any], resume: bool) -> None:
        self._folder = None if folder is None else Path(folder)
        self._past: list[dict[str, Any]] = []
        self._position = 0
        if self._folder is None:
            return
        header = self._folder / HEADER
        if not header.is_file():
            write_json(header, sealed(identity))
            (self._folder / LOG).unlink(missing_ok=True)
            return
        if not resume:
            raise ValueError(
                f"folder {str(folder)!r} holds a search already; continue it with resume=True or choose another folder"
            )
        stored = unsealed(read_json(header, _REMEDY), header, _REMEDY)
        if stored.get("format") != FORMAT:
            raise ValueError(
                f"the log in {str(folder)!r} was written by another version (format {stored.get('format', 1)}, not "
                f"{FORMAT}); choose another folder, or finish it with that version"
            )
        differing = sorted(key for key in identity if stored.get(key) != identity[key])
        if differing:
            raise ValueError(
                f"the search in {str(folder)!r} differs in {', '.join(differing)}; choose another folder, or restore "
                "what it was started with"
            )
        self._past = read_lines(self._folder / LOG)
        # What a kill cut off is written again.
        text = "".join(to_json(sealed(record)) + "\n" for record in self._past)
        write_atomic(self._folder / LOG, text)

    def answer(
        self, genome: Genome, indices: Sequence[int], ask: Callable[[Sequence[int]], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """What examples cost a candidate: from the log as long as it reaches, then by asking."""
        if self._position < len(self._past):
            record = self._past[self._position]
            if record.get("genome") != genome_text(genome) or record.get("examples") != list(indices):
                raise ValueError(
                    f"the log {str(self._folder)!r} holds another batch at position {self._position} than the search "
                    "asks; it was written by another version: choose another folder"
                )
            self._position += 1
            try:
                return Costs.from_json(record["costs"]).values
            except (KeyError, TypeError, ValueError):
                raise ValueError(
                    f"the log {str(self._folder)!r} is damaged at position {self._position - 1}; {_REMEDY}"
                ) from None
        costs = ask(indices)
        if self._folder is not None:
            record = {"genome": genome_text(genome), "examples": list(indices), "costs": Costs(costs).to_json()}
            append_line(self._folder / LOG, record, durable=True)
        return costs


class LoggedFitness:
    """A fitness whose answers are in a log: read from there as long as it reaches, then asked and written there."""

    def __init__(self, fitness: Fitness, log: Log) -> None:
        self._fitness, self._log = fitness, log
        self.note, self.expected, self.batches = fitness.note, fitness.expected, fitness.batches

    @contextmanager
    def asking(self, genome: Genome) -> Iterator[Callable[[Sequence[int]], NDArray[np.float64]]]:
        """See `Fitness.asking`."""
        with self._fitness.asking(genome) as ask:
            yield lambda indices: self._log.answer(genome, indices, ask)


def identity(supernet: SuperNet, engine: Engine, fitness: Fitness, early_stopping: bool) -> dict[str, Any]:
    """What a log belongs to: space, engine, what shapes the numbers in the log, weights and validation examples."""
    settings = {key: value for key, value in vars(engine).items() if isinstance(value, int | float | str)}
    digest = hashlib.sha256()
    for key, tensor in sorted(adapter_tensors(supernet.model, supernet.name).items()):
        digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "format": FORMAT,
        "engine": type(engine).__name__,
        "settings": {key: value for key, value in settings.items() if not key.startswith("_")},
        "seed": engine.seed,
        "budget": [engine.budget.low, engine.budget.high],
        "layers": [layer.name for layer in supernet.space.layers],
        "rank": supernet.space.rank,
        "structures": hashlib.sha256(supernet.space.allowed.tobytes()).hexdigest(),
        "supernet": digest.hexdigest(),
        "metric": fitness.metric,
        "validation": fitness.task.digest(fitness.batch_size),
        "batch_size": fitness.batch_size,
        "merged": fitness.merged,
        "early_stopping": early_stopping,
    }
