"""Algorithm 1 inside transformers' `Trainer`: a callback, no fork of its loop.

    adapter_part, alpha_part = split_dataset(dataset, AlphaSettings(), seed=0)
    callback = AlphaCallback(model, alpha_part, collate, AlphaSettings(every=10))
    Trainer(model=model, args=args, train_dataset=adapter_part, data_collator=collate, callbacks=[callback]).train()

The scale is frozen while the Trainer works, so the Trainer neither optimizes it nor computes its gradient; the
callback thaws it for its own steps. Checkpoints of the Trainer get a file of the callback's beside them, and
``train(resume_from_checkpoint=…)`` takes it up again.

In several processes, each of which holds the whole model (data parallel), all take α's whole batch and average its
gradient: α moves as it would in one process and is the same in all to the last bit, at the price that α's steps are not
shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glora._digests import sealed, unsealed
from glora._files import write_atomic
from glora.model.state import unwrap
from glora.runs.settings import AlphaSettings
from glora.tasks.base import device_of
from glora.training.alpha import AlphaSchedule, alpha_parameters, gradients
from glora.training.batches import BatchOrder, mix, split_for_alpha
from glora.training.optimizer_state import load_optimizer, optimizer_tensors

FILE = "alpha.safetensors"


def split_dataset(dataset: Any, settings: AlphaSettings, seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
    """The adapter's and α's examples of a map-style dataset; disjoint unless ``settings.source`` is "overlap".

    Raises:
        ValueError: see `glora.training.batches.split_for_alpha`.
    """
    adapter, alpha = split_for_alpha(len(dataset), settings, seed)
    return Subset(dataset, adapter), Subset(dataset, alpha)


class AlphaCallback(TrainerCallback):
    """One step of α after every `settings.every` steps of the Trainer.

    Args:
        model: the model given to the Trainer, with a scalar or vector A. Make the callback before the Trainer.
        dataset: α's examples.
        collate: from a list of examples to the keyword arguments of the model, labels included.
        settings: how α is trained; the mode must be "scheduled".
        batch_size: examples of an α batch if the settings do not say.
        seed: of the order of α's examples and of dropout in α's steps.

    Raises:
        ValueError: there is no scale to train, no example to train it on, or another mode is asked for.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset[Any],
        collate: Callable[[Sequence[Any]], Mapping[str, Any]],
        settings: AlphaSettings | None = None,
        *,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        settings = settings or AlphaSettings()
        if settings.mode != "scheduled":
            raise ValueError(f"AlphaCallback is Algorithm 1 and needs alpha.mode='scheduled', got {settings.mode!r}")
        self.scales = alpha_parameters(model)
        if not self.scales:
            raise ValueError("the model has no trainable scalar or vector A; attach glora.presets.alpha_lora first")
        size = len(dataset)  # type: ignore[arg-type]
        if not size:
            raise ValueError("dataset has no examples for α; give it a part of the training examples")
        self.dataset, self.collate, self.seed = dataset, collate, seed
        self.schedule = AlphaSchedule(self.scales.values(), settings)
        self.order = BatchOrder(range(size), settings.batch_size or batch_size, seed)
        self.losses: list[tuple[int, float]] = []
        self._require(False)

    def _require(self, needed: bool) -> None:
        for parameter in self.schedule.parameters:
            parameter.requires_grad_(needed)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up α's state if the Trainer resumes.

        Raises:
            ValueError: processes that each hold a part of the model, or a checkpoint without α.
        """
        kind = AcceleratorState().distributed_type.value
        if kind != "NO" and not kind.startswith("MULTI_"):
            raise ValueError(f"AlphaCallback needs the whole model in each process, got distribution {kind}; use DDP")
        if not state.global_step:
            return
        path = self._path(args, state)
        if not path.is_file():
            raise ValueError(f"cannot resume: {str(path)!r} is missing; the checkpoint was made without AlphaCallback")
        tensors = unsealed(path, "resume from the checkpoint before it")
        wanted = {f"alpha.{name}": parameter for name, parameter in self.scales.items()}
        for name, parameter in wanted.items():
            if name not in tensors or tensors[name].shape != parameter.shape:
                raise ValueError(f"cannot resume: {str(path)!r} has no {name} of shape {tuple(parameter.shape)}")
        with torch.no_grad():
            for name, parameter in wanted.items():
                parameter.copy_(tensors.pop(name))
        load_optimizer(self.schedule.optimizer, tensors)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step of α if one is due."""
        step = state.global_step
        if not self.schedule.due(step):
            return
        model = unwrap(kwargs["model"])  # past DistributedDataParallel, whose hooks belong to the Trainer's steps
        indices = self.order[step // self.schedule.settings.every - 1]
        batch = self.collate([self.dataset[i] for i in indices])
        batch = {key: value.to(device_of(model)) for key, value in batch.items() if isinstance(value, Tensor)}

        def fill_gradients(parameters: Sequence[nn.Parameter]) -> float:
            loss = model(**batch).loss
            gradients(loss, parameters)
            for parameter in parameters:  # None in one process means None in all: they did the same
                if parameter.grad is not None:
                    parameter.grad = reduce(parameter.grad, "mean")
            return float(reduce(loss.detach(), "mean"))

        self._require(True)
        device = device_of(model)
        try:
            # A stream of its own: the Trainer's dropout is the same with and without α.
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(mix(self.seed, step))
                self.losses.append((step, self.schedule.step(fill_gradients)))
        finally:
            self._require(False)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put α and its optimizer's state beside the Trainer's checkpoint (where the Trainer writes one)."""
        if not args.should_save:
            return
        tensors = {f"alpha.{name}": parameter.detach().cpu() for name, parameter in self.scales.items()}
        states = optimizer_tensors(self.schedule.optimizer)
        write_atomic(self._path(args, state), sealed({**tensors, **states}))

    def _path(self, args: TrainingArguments, state: TrainerState) -> Path:
        assert args.output_dir is not None
        return Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE
