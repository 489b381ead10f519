"""The steps of a run: measured on its first training batch, once, before its first step."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn

from glora.model.balancing import adopt_steps, balance, steps_of
from glora.runs.folder import Run
from glora.runs.settings import TrainingSettings
from glora.tasks import Task
from glora.tasks.base import Batch
from glora.training.loop import first_batch
from glora.training.processes import processes


def measure_steps(model: nn.Module, task: Task, settings: TrainingSettings, run: Run) -> dict[str, Any] | None:
    """Measure the steps of a model that is about to be trained, and note them in the run's folder.

    The main process measures, and tells the others. A run that is continued from a checkpoint has its steps in there
    (`train` restores them): nothing is measured again.

    Returns:
        ``batch``, a digest of the batch, and ``layers``, the steps; None if the run is continued.
    """
    if run.load_checkpoint("last") is not None:
        return None
    state = processes(settings.device)
    found: list[Any] = [None]
    batches = first_batch(model, task, settings)
    if state.is_main_process:
        balance(model, batches, forward=task.loss)
        found = [{"batch": digest(batches), "layers": steps_of(model)}]
    if state.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(found)
        if not state.is_main_process:
            adopt_steps(model, found[0]["layers"])
    if state.is_main_process:
        run.note_steps(found[0])
    return found[0]


def digest(batches: list[Batch]) -> str:
    """Of the tensors of some batches."""
    found = hashlib.sha256()
    for batch in batches:
        for key, tensor in sorted(batch.items()):
            found.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
