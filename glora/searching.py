"""A whole search as a file: train a supernet, search it, report inherited and retrained weights on test, once.

Subnets are compared on validation by accuracy, or by loss where the task is a language model's.

    [task]                       as for every run
    [method]
    name = "supernet"
    rank = 4
    parameters = 290_000         # the budget: at most this many, at most `tolerance` fewer
    [method.engine]              # name = "evolution", "random", "knapsack" or "pymoo", and its options
    name = "evolution"
    [training]                   # of the supernet
    [method.retrain]             # what differs when the found subnet is trained on train + validation
    epochs = 100

======================= =================================================================================
supernet/               a run folder: the supernet's training, resumable
search/                 the search's log, resumable
found.json              the subnet as ``[method] name = "file"`` and `glora.GLoRAConfig.from_dict` read it
retrained/              a run folder: the final training; `glora evaluate` and `glora merge` take it
result.json             the figures; its presence means that all is done
======================= =================================================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glora._checks import choice, is_number, table, whole
from glora._files import Lock
from glora.config import STEPS, Target
from glora.engines.candidates import Engine
from glora.engines.evolution import Evolution
from glora.engines.knapsack import Knapsack
from glora.engines.pymoo import Pymoo
from glora.engines.random import Random
from glora.engines.space import Budget, SearchLayer, SearchSpace
from glora.model.merging import merged
from glora.runs.config import RunConfig
from glora.runs.folder import Run
from glora.runs.settings import TrainingSettings
from glora.search.costs import metric_of
from glora.search.loop import Found, save_found, search
from glora.search.supernet import SAMPLINGS, SuperNet
from glora.search.supernet_task import SuperNetTask
from glora.tasks import make_task
from glora.tasks.base import device_of
from glora.training.loop import check, require_finite, train
from glora.tuning.steps import measure_steps
from glora.tuning.tune import tune

ENGINES: dict[str, Any] = {"evolution": Evolution, "random": Random, "knapsack": Knapsack, "pymoo": Pymoo}


@dataclass(frozen=True, kw_only=True)
class SuperNetMethod:
    """The ``[method]`` section of a search.

    Args:
        parameters: at most this many parameters in the found adapter, heads not counted.
        tolerance: at most this fraction fewer; 1 sets no lower bound (the paper).
        rank, target, structures: see `SuperNet`.
        sampling, draws: subnets of a training step; see `SuperNet.draws`.
        engine: name and options of the search engine.
        batch_size: validation examples asked at once.
        steps: of the supernet and of the subnet found, see `glora.GLoRAConfig`; "raw" is the paper's.
        retrain: fields of `TrainingSettings` that differ from the supernet's in the final training.

    Raises:
        ValueError: a field has a value out of its range.
    """

    parameters: int
    tolerance: float = 0.05
    rank: int = 4
    target: Target = "all-linear"
    structures: Mapping[str, Sequence[str]] | None = None
    sampling: str = "uniform"
    draws: int = 1
    engine: Mapping[str, Any] = field(default_factory=lambda: {"name": "evolution"})
    batch_size: int = 25
    steps: str = "balanced"
    retrain: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("parameters", "rank", "draws", "batch_size"):
            whole(f"method.{name}", getattr(self, name), 1)
        for name in ("engine", "retrain"):
            table(f"method.{name}", getattr(self, name))
        if self.structures is not None:
            table("method.structures", self.structures)
        if not is_number(self.tolerance) or not 0 <= self.tolerance <= 1:
            raise ValueError(f"method.tolerance is a fraction in [0, 1], got {self.tolerance!r}")
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"method.sampling must be one of {', '.join(SAMPLINGS)}; got {self.sampling!r}")
        choice("method.steps", self.steps, STEPS)
        if not isinstance(self.engine.get("name"), str) or self.engine["name"] not in ENGINES:
            raise ValueError(f"method.engine.name must be one of {', '.join(ENGINES)}; got {self.engine.get('name')!r}")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SuperNetMethod:
        """From a run's ``[method]`` section.

        Raises:
            ValueError: an option is unknown, missing or out of its range.
        """
        known = [spec.name for spec in dataclasses.fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown or "parameters" not in options:
            problem = f"has no option {', '.join(unknown)}" if unknown else "needs parameters, the budget"
            raise ValueError(f"method 'supernet' {problem}; its options are {', '.join(known)}")
        return cls(**options)

    @property
    def budget(self) -> Budget:
        """Parameters allowed."""
        return Budget.around(self.parameters, self.tolerance)

    def make_engine(self, space: SearchSpace, seed: int, budget: Budget | None = None) -> Engine:
        """The engine for a space, within `budget` (the method's if None).

        Raises:
            ValueError: it does not take one of its options, or the budget fits no subnet.
        """
        options = {"seed": seed, **{key: value for key, value in self.engine.items() if key != "name"}}
        try:
            return ENGINES[self.engine["name"]](space, budget or self.budget, **options)
        except TypeError as error:
            raise ValueError(f"method.engine: {error}") from None


class SearchRun:
    """The steps of a search in one folder; each continues where a killed process left it.

    Args:
        config: the run; its method is "supernet".
        resume: continue what is in the folder.

    Raises:
        ValueError: a setting is out of its range, the task cannot be searched, there are several processes, or the
            folder holds a run and `resume` is False, or another one.
    """

    def __init__(self, config: RunConfig, *, resume: bool = False) -> None:
        if config.method["name"] != "supernet":
            raise ValueError(
                f"a search needs method.name='supernet', got {config.method['name']!r}; glora tune does other methods"
            )
        _one_process(config.training)
        self.method = SuperNetMethod.from_options(config.method_options)
        self.retraining = _retraining(config.training, self.method.retrain)
        self.task = make_task(config.task["name"], config.task_options)
        metric_of(self.task)
        # Options do not depend on the model: a space of one layer finds their faults before any work.
        space = SearchSpace((SearchLayer("layer", 2, 2),), self.method.rank, self.method.structures)
        self.method.make_engine(space, config.training.seed, Budget(10**9))
        self.resume = resume
        self.run = Run.create(config, resume=resume)
        self.config = self.run.config  # of a search that is continued: what an older version left out is said there
        self.method = SuperNetMethod.from_options(self.config.method_options)
        self.folder = self.run.folder
        self._lock: Lock | None = None
        self._owned: ExitStack | None = None  # what is held while `all` works

    @property
    def found_path(self) -> Path:
        """The found configuration."""
        return self.folder / "found.json"

    def supernet(self) -> SuperNet:
        """The trained supernet, on a model of its own."""
        training = dataclasses.replace(self.config.training, split="train", keep="last")
        model = self.task.build_model(training.seed)
        supernet = SuperNet(
            model,
            self.method.rank,
            self.method.target,
            modules_to_save=self.task.heads,
            structures=None if self.method.structures is None else dict(self.method.structures),
            generator=torch.Generator().manual_seed(training.seed),
            steps=self.method.steps,
        )
        self.method.make_engine(supernet.space, training.seed)  # a budget that nothing fits ends here
        wrapped: Any = SuperNetTask(
            self.task, supernet, seed=training.seed, sampling=self.method.sampling, count=self.method.draws
        )
        part = RunConfig(
            task=self.config.task,
            method=self.config.method,
            training=training,
            out=str(self.folder / "supernet"),
            test=False,
        )
        run = Run.create(part, resume=self.resume)
        check(model, wrapped, training)
        if self._owned is not None:  # only now: a refused search leaves no folder behind
            self._lock = self._owned.enter_context(self.run.lock())
        self.run.start()
        run.start()
        if self.method.steps == "balanced":
            measure_steps(model, self.task, training, run)
        train(model, wrapped, training, run=run, resume=self.resume, before_step=wrapped.before_step, evaluate=False)
        return supernet

    def search(self, supernet: SuperNet, *, progress: bool = False) -> Found:
        """Search the supernet and write ``found.json``."""
        engine = self.method.make_engine(supernet.space, self.config.training.seed)
        task: Any = self.task
        found = search(
            supernet,
            task,
            engine,
            folder=self.folder / "search",
            resume=self.resume,
            batch_size=self.method.batch_size,
            progress=progress,
        )
        save_found(self.found_path, supernet, found.best.genome)
        return found

    def inherited(self, supernet: SuperNet, found: Found) -> nn.Module:
        """A fresh model with the found subnet and the weights it has in the supernet."""
        model = self.task.build_model(self.config.training.seed)
        supernet.extract(found.best.genome, model, name="default")
        return model.to(device_of(supernet.model))

    def retrain(self) -> dict[str, Any]:
        """Train the found subnet on train + validation from fresh weights; the figures of that run."""
        retraining = RunConfig(
            task=self.config.task,
            method={"name": "file", "path": str(self.found_path)},
            training=self.retraining,
            out=str(self.folder / "retrained"),
            test=self.config.test,
        )
        return tune(retraining, resume=self.resume)

    def all(self, *, progress: bool = False) -> dict[str, Any]:
        """Every step; each set of weights sees the test split once, at its very end.

        Returns:
            ``search`` (see `Found.summary`), ``inherited`` and ``retrained`` (test metrics; None with
            ``test = false``), ``parameters`` (heads included).
        """
        if self.run.result is not None:
            return self.run.result
        self.task.check()
        with ExitStack() as self._owned:
            return self._all(progress)

    def _all(self, progress: bool) -> dict[str, Any]:
        supernet = self.supernet()
        found = self.search(supernet, progress=progress)
        inherited = None
        if self.config.test and getattr(self.task, "has_test", True):
            model = self.inherited(supernet, found)
            with merged(model):
                inherited = self.task.metrics(model, "test")
            require_finite(inherited, "the test split with the supernet's weights")
        retrained = self.retrain()
        result = {
            "search": found.summary(),
            "inherited": inherited,
            "retrained": retrained["test"],
            "parameters": retrained["parameters"],
        }
        if self._lock is not None:
            self._lock.require()  # the folder may have been removed meanwhile
        self.run.finish(result)
        return result


def _one_process(training: TrainingSettings) -> None:
    """Raise ValueError if accelerate finds several processes: candidates are not shared out among them."""
    from accelerate import PartialState

    count = PartialState(cpu=training.device == "cpu").num_processes
    if count > 1:
        raise ValueError(
            f"a search runs in one process, not in {count}; start it with glora search, without a launcher"
        )


def _retraining(training: TrainingSettings, changes: Mapping[str, Any]) -> TrainingSettings:
    """Settings of the final training: the supernet's, on train + validation, with `changes`."""
    known = {spec.name for spec in dataclasses.fields(TrainingSettings)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(f"section [method.retrain] has unknown keys {unknown}; it knows {sorted(known)}")
    given: dict[str, Any] = {"split": "train+validation", "keep": "last", **changes}
    if given["split"] == "train+validation":
        given = {"evaluate_every": 0, "patience": 0, **given}
    for length, other in (("epochs", "steps"), ("steps", "epochs")):
        if given.get(length) is not None:
            given.setdefault(other, None)  # both given are refused by the settings
    settings = dataclasses.replace(training, **given)
    # A vector or scalar A is one support tensor among five here, not α-LoRA's scale: it trains with the others.
    asked = changes.get("alpha")
    if asked is None or (isinstance(asked, Mapping) and "mode" not in asked):
        alpha = dataclasses.replace(settings.alpha, mode="joint", lr=(asked or {}).get("lr", settings.lr))
        settings = dataclasses.replace(settings, alpha=alpha)
    return settings
