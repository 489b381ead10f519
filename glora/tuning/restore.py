"""The model of a finished run, and whether it can be asked another task."""

from __future__ import annotations

import os

from torch import nn

from glora.model import checkpoint
from glora.runs.folder import Run
from glora.tasks import Task, make_task
from glora.tasks.rows import expand
from glora.tasks.text.causal import CausalTask


def restore(run: Run) -> tuple[nn.Module, Task]:
    """The model of a run with the weights it ended with, and its task; of a search, those of its final training.

    Raises:
        ValueError: the run has not ended yet, or its files are damaged.
    """
    if run.config.method["name"] == "supernet":
        if not (run.folder / "retrained" / "run.json").is_file():
            raise ValueError(f"the search in {str(run.folder)!r} has not retrained its subnet yet; continue it")
        run = Run.open(run.folder / "retrained")
    if run.result is None:
        raise ValueError(f"the run in {str(run.folder)!r} is not complete; continue it with glora tune … --resume")
    config = run.config
    task = make_task(config.task["name"], config.task_options)
    model = task.build_model(config.training.seed)
    if run.adapter.is_dir():
        checkpoint.load(model, run.adapter)
        return model, task
    stored = run.load_checkpoint("best" if config.training.keep == "best" else "last")
    stored = stored or run.load_checkpoint("last")
    if stored is None:
        raise ValueError(f"the run in {str(run.folder)!r} has lost its checkpoints")
    weights = {name.removeprefix("model."): tensor for name, tensor in stored[0].items()}
    # Where weights are averaged, a checkpoint for resuming holds the average beside what training goes on with.
    weights |= {
        name.removeprefix("average."): tensor for name, tensor in weights.items() if name.startswith("average.")
    }
    known = model.state_dict()
    model.load_state_dict({**known, **{name: tensor for name, tensor in weights.items() if name in known}})
    return model, task


def require_same_model(task: Task, other: Task) -> None:
    """Raise ValueError unless the model of a run for `task` can be asked another task.

    That needs a task of the same kind for the same pretrained model (its tokens, the size of its images), and as many
    outputs.
    """
    if _kind(task) is not _kind(other):
        raise ValueError(f"the run's task is {_name(task)}, whose model cannot be asked a task of {_name(other)}")
    name, other_name = (os.path.realpath(expand("task.model", str(getattr(one, "model", "")))) for one in (task, other))
    if name != other_name:
        raise ValueError(
            f"task.model={getattr(other, 'model', None)!r}, but the run tuned {getattr(task, 'model', None)!r}; "
            "give the task the run's model"
        )
    one, another = (getattr(found, "revision", None) for found in (task, other))
    if one != another:
        raise ValueError(f"task.revision={another!r}, but the run tuned {one!r} of its model; give that")
    outputs, wanted = (getattr(one, "outputs", None) for one in (task, other))
    if outputs != wanted:
        raise ValueError(f"the run's model has {outputs} outputs, the task needs {wanted}")


def _kind(task: Task) -> type:
    return next((cls for cls in type(task).__mro__ if cls is CausalTask), type(task))


def _name(task: Task) -> str:
    return type(task).__name__
