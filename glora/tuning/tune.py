"""One run from its configuration to its figures: build, adapt, train, evaluate, save."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from time import monotonic
from typing import Any

from torch import nn

from glora.model import checkpoint
from glora.model.state import get_state
from glora.runs.config import RunConfig
from glora.runs.folder import Run
from glora.tasks import Task, make_task, served
from glora.tasks.hub import commit
from glora.training.loop import check, require_finite, train
from glora.training.outcome import TrainingResult
from glora.training.processes import processes
from glora.tuning import methods, probe
from glora.tuning.certify import certify
from glora.tuning.steps import measure_steps


def prepare(config: RunConfig) -> tuple[nn.Module, Task]:
    """The task of a run and its model with a fresh adapter, everything checked.

    Raises:
        ValueError: the data, the method or the model cannot be used as the configuration says.
    """
    task = make_task(config.task["name"], config.task_options)
    task.check()
    seed = config.training.seed
    model = task.build_model(seed)
    methods.apply(model, config.method["name"], config.method_options, task.heads, seed=seed)
    return model, task


def tune(config: RunConfig, *, resume: bool = False) -> dict[str, Any]:
    """Do a run and return its figures, which are in its folder too.

    A complete run is not done again with `resume`; its figures are returned.

    Raises:
        ValueError: see `prepare` and `Run.create`.
        TrainingDiverged: see `glora.training.loop.train`.
    """
    if config.method["name"] == "supernet":
        raise ValueError("method.name='supernet' is a search; do it with glora search")
    state = processes(config.training.device)
    run = Run.create(config, resume=resume)
    if run.result is not None:
        return run.result
    config = run.config  # of a run that is continued: what an older version left out is said there
    model, task = prepare(config)
    check(model, task, config.training)
    state.wait_for_everyone()  # all have looked at the folder before it changes
    with run.lock() if state.is_main_process else nullcontext() as lock:
        if state.is_main_process:
            run.start()
            if run.result is not None:  # another process ended it meanwhile
                return run.result
        name, options = config.method["name"], config.method_options
        if name != "full" and methods.configuration(name, options, task.heads)[0].steps == "balanced":
            measure_steps(model, task, config.training, run)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        done = train(model, task, config.training, run=run, resume=resume)
        test = task.metrics(model, "test") if config.test and getattr(task, "has_test", True) else None
        require_finite(test, "the test split")
        certificate = None
        if get_state(model) is not None and state.is_main_process:
            checkpoint.save(model, run.adapter)
            served.write(run.adapter, task)
            certificate = _certificate(model, task, run, done)
        result = {
            "task": config.task["name"],
            "method": config.method["name"],
            "main_metric": task.main_metric,
            "test": test,
            "best_validation": done.best,
            "best_step": done.best_step,
            "steps": done.steps,
            "alpha_steps": done.alpha_steps,
            "passes": done.passes,
            "stopped_early": done.stopped_early,
            "parameters": trained,
            "seconds": round(done.seconds, 2),
            "certificate": certificate,
        }
        if getattr(task, "class_names", ()):
            result["classes"] = list(task.class_names)  # type: ignore[attr-defined]
        if commit(model) is not None:
            result["model_commit"] = commit(model)
        if lock is not None:
            lock.require()
            run.finish(result)
    return result


# The certificate at the end of a run takes this part of the run's time, or these seconds if they are more.
PART, LEAST = 0.02, 5.0
# Calls of the model in a quick certificate, and calls that a pass forward and backward is worth.
_CALLS, _STEP = 12, 3


def _certificate(model: nn.Module, task: Task, run: Run, done: TrainingResult) -> dict[str, str] | None:
    """The quick form of `glora.certify` on a few examples, which stay beside the adapter as its probe.

    It has 2 % of the run's time or 5 seconds; what does not fit is said to be left out. A statement that is false is a
    warning, since the run's figures stand as they are; None if nothing can be checked.
    """
    start, allowed = monotonic(), max(LEAST, PART * done.seconds)
    per_example = done.seconds / max(1, done.passes) / _STEP
    try:
        batch = probe.of_task(model, task, size=max(1, min(4, int(allowed / _CALLS / max(per_example, 1e-9)))))
        outputs = probe.outputs(model, batch)
        certificate = certify(model, batch, quick=True, seconds=allowed - (monotonic() - start))
        probe.store(run.adapter, batch, outputs)
    except (ValueError, RuntimeError, AttributeError) as error:
        return {"unknown": f"the adapter could not be certified: {error}"}
    if certificate.holds is False:
        warnings.warn(f"the adapter does not do what it says:\n{certificate}", stacklevel=3)
    words = {True: "proved", False: "false", None: "unknown"}
    return {statement.claim: f"{words[statement.holds]}: {statement.detail}" for statement in certificate.statements}
