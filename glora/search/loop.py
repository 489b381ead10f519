"""The search: an engine proposes subnets, a supernet's validation accuracy or loss judges them, a log remembers.

The log is the search's only state: engines are deterministic, so a killed search is continued by asking the engine
again and answering from the log, and it ends where an unbroken one would, on a CPU bit for bit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glora._files import sealed, write_json
from glora.engines.candidates import Best, Engine, Scored
from glora.engines.space import Budget, Genome
from glora.search.costs import Costs, SearchableTask, mean_metric
from glora.search.fitness import Fitness
from glora.search.log import Log, LoggedFitness, identity
from glora.search.race import RunningCandidate, race
from glora.search.supernet import SuperNet

if TYPE_CHECKING:
    from tqdm import tqdm


@dataclass(frozen=True)
class SearchResult:
    """What a search found, and what it took.

    Attributes:
        best: the best candidate inside the budget.
        candidates: every candidate in the order of its proposal.
        budget: which of them could be selected.
        metric: what the search compared: "accuracy" or "loss".
        total: validation examples a candidate is asked at most.
        weight: what turns a total cost into the metric's mean; see `Fitness`.
        cached: candidates that were answered from earlier ones.
        stopped: candidates that could not be among the best, before all examples were asked.
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
    task: SearchableTask,
    engine: Engine,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    batch_size: int = 25,
    merged: bool = True,
    caching: bool = True,
    early_stopping: bool = True,
    progress: bool = False,
) -> SearchResult:
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
    log = Log(folder, {} if folder is None else identity(supernet, engine, fitness, early_stopping), resume)
    judge = LoggedFitness(fitness, log)
    competition, winner = Best(engine.keep), Best(1)
    known: dict[bytes, Costs] = {}
    candidates: list[Scored] = []
    cached = images = 0
    with _bar(engine.total, progress) as bar:
        while proposed := engine.ask():
            running, asked = [], []
            for number, genome in enumerate(proposed, start=len(candidates)):
                key = genome.tobytes()
                costs = known.get(key) if caching else None
                candidate = RunningCandidate(genome, supernet.space.count(genome), number, costs or fitness.nothing())
                cached += costs is not None
                running.append(candidate)
                if costs is None:
                    asked.append(candidate)
                    known[key] = candidate.costs
            race(asked, judge, competition, engine.keep if early_stopping else None)
            images += sum(int(candidate.costs.asked.sum()) for candidate in asked)
            scored = [candidate.scored for candidate in running]
            for one in scored:
                if engine.budget.holds(one.parameters):
                    winner.add(one)
            engine.tell(scored)
            candidates += scored
            bar.update(len(scored))
    if not winner.candidates:
        raise ValueError(
            f"none of the {len(candidates)} candidates has {engine.budget.low:,} to {engine.budget.high:,} "
            "parameters; widen the budget"
        )
    return SearchResult(
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


def save_found(path: str | Path, supernet: SuperNet, genome: Genome) -> Path:
    """Write a subnet as the JSON file that ``[method] name = "file"`` and `GLoRAConfig.from_dict` read."""
    return write_json(path, sealed(supernet.config(genome).to_dict()))


def _bar(total: int, progress: bool) -> tqdm[Any]:
    from tqdm import tqdm

    return tqdm(total=total, desc="search", unit="subnet", disable=not progress, leave=False)
