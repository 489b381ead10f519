"""The search: an engine proposes subnets, a supernet's validation accuracy or loss judges them, a log remembers.

The log is the search's only state: engines are deterministic, so a killed search is continued by asking the engine
again and answering from the log, and it ends where an unbroken one would, on a CPU bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glora._files import read_lines, write_atomic
from glora.engines.evolution import Engine
from glora.engines.space import Budget, Genome
from glora.model.checkpoint import adapter_tensors
from glora.search.fitness import Best, Costs, Fitness, Judged, Scored, mean_metric
from glora.search.race import Runner, race
from glora.search.supernet import SuperNet
from glora.tasks.base import Batch, Task

HEADER, LOG = "search.json", "candidates.jsonl"
#: Of the log; 1 held a candidate's answers, 2 its costs, 3 holds those of a batch.
FORMAT = 3


@dataclass(frozen=True)
class Found:
    """What a search found, and what it took.

    Attributes:
        best: the best candidate inside the budget.
        candidates: every candidate in the order of its proposal.
        budget: which of them could be selected.
        metric: what the search compared: "accuracy" or "loss".
        total: validation examples a candidate is asked at most.
        weight: what turns a total cost into the metric's mean; see `Fitness`.
        cached: candidates that were answered from earlier ones.
        stopped: candidates that were hopeless before all examples were asked.
        images: examples asked in all, over all processes of a resumed search.
        seconds: time in this process.
    """

    best: Scored
    candidates: tuple[Scored, ...]
    budget: Budget
    metric: str
    total: int
    weight: float
    cached: int
    stopped: int
    images: int
    seconds: float

    def value(self, candidate: Scored) -> float:
        """The metric on validation of a candidate with the supernet's weights: accuracy in percent, or mean loss.

        Of a candidate that was not asked to the end it is the best that it could be.
        """
        return mean_metric(self.metric, candidate.cost, self.weight)

    @property
    def accuracy(self) -> float:
        """Validation accuracy in percent of the best candidate with the supernet's weights.

        Raises:
            ValueError: the search compared losses.
        """
        if self.metric != "accuracy":
            raise ValueError(f"the search compared by {self.metric}; use value(found.best)")
        return self.value(self.best)

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON; the first is ``validation_accuracy`` or ``validation_loss``."""
        return {
            f"validation_{self.metric}": self.value(self.best),
            "parameters": self.best.parameters,
            "candidates": len(self.candidates),
            "cached": self.cached,
            "stopped": self.stopped,
            "images": self.images,
            "images_of_plain_evaluation": len(self.candidates) * self.total,
            "seconds": self.seconds,
        }


def search(
    supernet: SuperNet,
    task: Judged,
    engine: Engine,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    batch_size: int = 25,
    merged: bool = True,
    caching: bool = True,
    early_stopping: bool = True,
    progress: bool = False,
) -> Found:
    """Find the subnet with the best validation accuracy, or least validation loss, inside the engine's budget.

    Args:
        supernet: a trained supernet; its weights are not changed.
        task: where the validation examples come from, and what they cost (see `glora.search.fitness`); other splits
            cannot be reached.
        engine: proposes the candidates.
        folder: where the log goes; None keeps none.
        resume: continue the search in `folder` if there is one.
        batch_size: examples asked at once.
        merged, caching, early_stopping: the three savings; none of them changes what is selected (merging does so up to
            rounding, as it changes the last bits of a loss).
        progress: show a bar.

    Raises:
        ValueError: the task cannot be judged; the folder holds a search and `resume` is False, or holds another
            one; no candidate fits the budget.
    """
    start = time.perf_counter()
    fitness = Fitness(supernet, task, batch_size=batch_size, merged=merged, hard_first=early_stopping)
    log = _Log(folder, {} if folder is None else _identity(supernet, engine, fitness, early_stopping), resume)
    competition, winner = Best(engine.keep), Best(1)
    known: dict[bytes, Costs] = {}
    candidates: list[Scored] = []
    cached = images = 0
    with _bar(engine.total, progress) as bar:
        while proposed := engine.ask():
            runners, asked = [], []
            for number, genome in enumerate(proposed, start=len(candidates)):
                key = genome.tobytes()
                costs = known.get(key) if caching else None
                runner = Runner(genome, supernet.space.count(genome), number, costs or fitness.nothing())
                cached += costs is not None
                runners.append(runner)
                if costs is None:
                    asked.append(runner)
                    known[key] = runner.costs
            race(asked, fitness, competition, engine.keep if early_stopping else None, log.answer)
            images += sum(int(runner.costs.asked.sum()) for runner in asked)
            scored = [runner.scored for runner in runners]
            for candidate in scored:
                if engine.budget.holds(candidate.parameters):
                    winner.add(candidate)
            engine.tell(scored)
            candidates += scored
            bar.update(len(scored))
    if not winner.candidates:
        raise ValueError(
            f"none of the {len(candidates)} candidates has {engine.budget.low:,} to {engine.budget.high:,} "
            "parameters; widen the budget"
        )
    return Found(
        best=winner.candidates[0],
        candidates=tuple(candidates),
        budget=engine.budget,
        metric=fitness.metric,
        total=fitness.size,
        weight=fitness.weight,
        cached=cached,
        stopped=sum(not candidate.exact for candidate in candidates),
        images=images,
        seconds=time.perf_counter() - start,
    )


class SuperNetTask:
    """A task whose loss is the mean over the subnets of the training step (wrap the task, then `train`).

    Pass ``before_step=wrapped.before_step`` to `glora.training.loop.train`.

    Args:
        task: the task.
        supernet: the supernet that is trained on it.
        seed: of the subnets drawn.
        sampling, count: see `SuperNet.draws`.
    """

    def __init__(
        self, task: Task, supernet: SuperNet, *, seed: int = 0, sampling: str = "uniform", count: int = 1
    ) -> None:
        self._task, self._supernet = task, supernet
        self._draw: tuple[int, str, int] = (seed, sampling, count)
        self._genomes: list[Genome] = supernet.draws(seed, 0, sampling, count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def before_step(self, step: int) -> None:
        """Draw the subnets of a step."""
        seed, sampling, count = self._draw
        self._genomes = self._supernet.draws(seed, step, sampling, count)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch over the step's subnets."""
        losses = []
        for genome in self._genomes:
            self._supernet.select(genome)
            losses.append(self._task.loss(model, batch))
        return torch.stack(losses).mean()


def save_found(path: str | Path, supernet: SuperNet, genome: Genome) -> Path:
    """Write a subnet as the JSON file that ``[method] name = "file"`` and `GLoRAConfig.from_dict` read."""
    return write_atomic(path, json.dumps(supernet.config(genome).to_dict(), indent=1) + "\n")


def genome_text(genome: Genome) -> str:
    """The genome as digits, five a layer: ``"01200 33022"``."""
    return " ".join("".join(map(str, genes)) for genes in genome.tolist())


class _Log:
    """Answers on disk, one JSON line a batch, and what they belong to."""

    def __init__(self, folder: str | Path | None, identity: dict[str, Any], resume: bool) -> None:
        self._folder = None if folder is None else Path(folder)
        self._past: list[dict[str, Any]] = []
        self._position = 0
        if self._folder is None:
            return
        header = self._folder / HEADER
        if not header.is_file():
            write_atomic(header, json.dumps(identity, indent=1) + "\n")
            (self._folder / LOG).unlink(missing_ok=True)
            return
        if not resume:
            raise ValueError(
                f"folder {str(folder)!r} holds a search already; continue it with resume=True or choose another folder"
            )
        stored = json.loads(header.read_text(encoding="utf-8"))
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
        text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in self._past)
        write_atomic(self._folder / LOG, text)

    def answer(
        self, genome: Genome, indices: Sequence[int], ask: Callable[[Sequence[int]], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """What examples cost a candidate: from the log as long as it reaches, then by asking."""
        if self._position < len(self._past):
            record = self._past[self._position]
            if record["genome"] != genome_text(genome) or record["examples"] != list(indices):
                raise ValueError(
                    f"the log {str(self._folder)!r} holds another batch at position {self._position} than the search "
                    "asks; it was written by another version: choose another folder"
                )
            self._position += 1
            return Costs.from_json(record["costs"]).values
        costs = ask(indices)
        if self._folder is not None:
            record = {"genome": genome_text(genome), "examples": list(indices), "costs": Costs(costs).to_json()}
            with (self._folder / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, separators=(",", ":")) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return costs


def _identity(supernet: SuperNet, engine: Engine, fitness: Fitness, early_stopping: bool) -> dict[str, Any]:
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


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="search", unit="subnet", disable=not progress, leave=False)
