"""The training loop: adapter and scale apart (Algorithm 1), exact to resume, the same for every task.

What happens in step t is a function of the settings, the seed and t: the batch, the augmentation, the dropout
masks, the learning rate. Only weights, optimizer states and a few counters have to be stored to continue, and a
run that was killed ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from glora._digests import not_finite
from glora.model.balancing import restore_steps, steps_of
from glora.model.state import get_state
from glora.runs.folder import Run
from glora.runs.settings import TrainingSettings
from glora.tasks.base import Batch, Task, UnequalExamples, chunks, to_device
from glora.training.alpha import AlphaSchedule, alpha_parameters, gradients
from glora.training.averaging import Average
from glora.training.batches import BatchOrder, mix, require_room, split_for_alpha
from glora.training.length import adapter_steps, learning_rate_factor
from glora.training.outcome import TrainingDiverged, TrainingResult, require_finite
from glora.training.processes import processes, sum_over_processes
from glora.training.resume import check_state, load_weights, pack, unpack, weights_of

# Words that keep the streams of random numbers of a run apart.
_ORDER, _ALPHA_ORDER, _ALPHA_SPLIT, _STEP, _ALPHA_STEP = range(5)


def train(
    model: nn.Module,
    task: Task,
    settings: TrainingSettings,
    *,
    run: Run | None = None,
    resume: bool = False,
    before_step: Callable[[int], None] | None = None,
    evaluate: bool = True,
) -> TrainingResult:
    """Train the parameters of `model` that require gradients, in place.

    With ``alpha.mode="fixed"`` the scale is frozen in the model, and stays so afterwards.

    Args:
        model: a model prepared by `glora.attach` or `glora.tuning.methods.apply`.
        task: where batches, loss and metrics come from.
        settings: how to train.
        run: where metrics and checkpoints go; None keeps nothing on disk.
        resume: continue from the run's last checkpoint if it has one.
        before_step: called with the number of each step (from 1) before it, for instance to choose a
            configuration of a supernet; it must be a function of that number, so that a resumed run repeats it.
        evaluate: whether to evaluate on validation as the settings say; a supernet has only random subnets to show.

    Returns:
        What was done; the model has the best or last weights, as ``settings.keep`` says.

    Raises:
        ValueError: nothing is to be trained, or the data cannot be split for α.
        TrainingDiverged: a loss or gradient is not finite; the weights are those before it was used.
    """
    return _Loop(model, task, settings, run, before_step, evaluate).run(resume)


def check(model: nn.Module, task: Task, settings: TrainingSettings) -> None:
    """Find what `train` would refuse, before anything is written; the model ends up on its device.

    Raises:
        ValueError: see `train`; or α would be trained apart and yet never move.
    """
    require_room(task, settings)
    loop = _Loop(model, task, settings, None, None)
    if loop.schedule is not None and loop.total < settings.alpha.every:
        raise ValueError(
            f"training.alpha.every={settings.alpha.every}, but the run has only {loop.total} adapter steps, so α would "
            "never be trained; lower it, train longer, or set training.alpha.mode to joint or fixed"
        )


def first_batch(model: nn.Module, task: Task, settings: TrainingSettings) -> list[Batch]:
    """The first batch that `train` would train on, in micro-batches as evaluation prepares them."""
    loop = _Loop(model, task, settings, None, None)
    indices = loop.order[0]
    size = settings.micro_batch_size or len(indices)
    return [task.batch(settings.split, part) for part in chunks(indices, size)]


class _Loop:
    """One run of `train`: what does not change while it runs, and the few counters that do."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        settings: TrainingSettings,
        run: Run | None,
        before_step: Callable[[int], None] | None,
        evaluate: bool = True,
    ) -> None:
        from accelerate import Accelerator

        self.task, self.settings, self.run_folder, self.before_step = task, settings, run, before_step
        self.evaluates = evaluate and settings.split == "train"
        # Accelerate finds processes and devices. Gradients are few here, so they are summed over processes by
        # hand, which keeps the model unwrapped and lets each step ask for its own gradients alone.
        processes(settings.device)
        self.accelerator = Accelerator(cpu=settings.device == "cpu", mixed_precision="no")
        self.model = model.to(self.accelerator.device)
        scales = alpha_parameters(model)
        if settings.alpha.mode == "fixed":
            for parameter in scales.values():
                parameter.requires_grad_(False)
        state = get_state(model)
        if state is not None and state.merged is not None:
            raise ValueError(f"cannot train: adapter {state.merged!r} is merged into the weights; unmerge it first")
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ValueError("no parameter of the model requires a gradient; call glora.attach before train")
        self.scheduled = settings.alpha.mode == "scheduled" and bool(scales)
        joint = scales if settings.alpha.mode == "joint" else {}
        apart = {name for name in scales if self.scheduled}
        self.optimizer = self._adapter_optimizer({n: p for n, p in self.trained.items() if n not in apart}, joint)
        self.schedule = AlphaSchedule(scales.values(), settings.alpha) if self.scheduled else None

        self.average = Average(self.trained, settings.ema) if settings.ema else None
        seed, size = settings.seed, task.size(settings.split)
        pool, alpha_pool = list(range(size)), list[int]()
        if self.scheduled:
            pool, alpha_pool = split_for_alpha(size, settings.alpha, mix(seed, _ALPHA_SPLIT))
        self.total = adapter_steps(settings, size, scheduled=self.scheduled)
        self.order = BatchOrder(pool, settings.batch_size, mix(seed, _ORDER))
        self.alpha_order = BatchOrder(
            alpha_pool, settings.alpha.batch_size or settings.batch_size, mix(seed, _ALPHA_ORDER)
        )

        self.step = 0
        self.best: float | None = None
        self.best_step: int | None = None
        self.without_gain = 0
        self.pending: list[float] = []  # losses since the last line of metrics
        self.loss = math.nan
        self.best_weights: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []

    def _adapter_optimizer(
        self, parameters: dict[str, nn.Parameter], joint: dict[str, nn.Parameter]
    ) -> torch.optim.AdamW:
        """AdamW over the adapter, the heads and (trained jointly) α, each group with its own learning rate."""
        settings = self.settings
        heads = {name for name in parameters if any(name.startswith(f"{head}.") for head in self.task.heads)}
        body = [p for name, p in parameters.items() if name not in heads and name not in joint]
        head_lr = settings.lr if settings.head_lr is None else settings.head_lr
        groups: list[dict[str, Any]] = [
            {"params": body, "lr": settings.lr},
            {"params": [parameters[name] for name in parameters if name in heads], "lr": head_lr},
            {"params": list(joint.values()), "lr": settings.alpha.lr, "weight_decay": settings.alpha.decay},
        ]
        groups = [{**group, "peak": group["lr"]} for group in groups if group["params"]]
        return torch.optim.AdamW(groups, betas=settings.betas, weight_decay=settings.weight_decay)

    # ------------------------------------------------------------------------------------------------ running

    def run(self, resume: bool) -> TrainingResult:
        """Do the steps that are left."""
        start = time.perf_counter()
        if resume:
            self._resume()
        with self._own_random_numbers():
            self.model.train()
            while self.step < self.total and not self._out_of_patience:
                self.step += 1
                self._step()
                if self.average is not None:
                    self.average.update()
                self._after_step()
        if self.settings.keep == "best" and self.best_step is not None:
            self._load_best()
        elif self.average is not None:
            self.average.apply()
        return TrainingResult(
            steps=self.step,
            alpha_steps=self._alpha_steps,
            passes=self._passes,
            best=self.best,
            best_step=self.best_step,
            stopped_early=self.step < self.total,
            seconds=time.perf_counter() - start,
            history=self.history,
        )

    @property
    def _out_of_patience(self) -> bool:
        return bool(self.settings.patience) and self.without_gain >= self.settings.patience

    @property
    def _alpha_steps(self) -> int:
        return self.step // self.settings.alpha.every if self.scheduled else 0

    @property
    def _passes(self) -> int:
        return self.step * self.order.batch_size + self._alpha_steps * self.alpha_order.batch_size

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """torch's generators are reseeded in every step; the caller finds them as they were."""
        device = self.accelerator.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield

    def _step(self) -> None:
        """One adapter step and, when it is due, one α step."""
        if self.before_step is not None:
            self.before_step(self.step)
        factor = learning_rate_factor(self.settings, self.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer.zero_grad()
        self.loss = self._fill_gradients(parameters, self.order[self.step - 1], _STEP)
        if self.settings.clip:
            nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.pending.append(self.loss)
        if self.schedule is not None and self.schedule.due(self.step):
            indices = self.alpha_order[self._alpha_steps - 1]
            self.schedule.step(lambda scales: self._fill_gradients(scales, indices, _ALPHA_STEP))

    def _fill_gradients(self, parameters: Sequence[nn.Parameter], indices: Sequence[int], stream: int) -> float:
        """Gradient of the batch's mean loss in ``.grad`` of these parameters; returns the loss.

        The batch is shared out over processes and cut into micro-batches; the mean is weighted by
        ``task.weight``, so that how it is cut does not matter. Examples of like size go together: less is padded.
        """
        accelerator, settings = self.accelerator, self.settings
        rank, world = accelerator.process_index, accelerator.num_processes
        seed = mix(settings.seed, stream, self.step, rank)
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        mine = indices[rank::world]
        if isinstance(self.task, UnequalExamples):
            length = self.task.length
            mine = sorted(mine, key=lambda i: length(settings.split, i))
        size = settings.micro_batch_size or max(1, len(mine))
        parts = [self.task.batch(settings.split, part, generator) for part in chunks(mine, size)]
        weights = [self.task.weight(part) for part in parts]
        whole = torch.tensor(float(sum(weights)), device=accelerator.device)
        if world > 1:
            whole = accelerator.reduce(whole, "sum")
        mean = torch.zeros_like(whole)
        for part, weight in zip(parts, weights, strict=True):
            share = weight / float(whole)
            with self._autocast():
                loss = self.task.loss(self.model, to_device(part, accelerator.device))
            gradients(loss, parameters, share)
            mean += loss.detach() * share
        if world > 1:
            sum_over_processes(parameters, accelerator)
            mean = accelerator.reduce(mean, "sum")
        # Looked at only now, so that all processes see the same and none waits for one that has stopped.
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        for what, value in (("loss", float(mean)), ("gradient norm", float(norm))):
            if not math.isfinite(value):
                raise self._diverged(f"{what} of α" if stream == _ALPHA_STEP else what, value)
        return float(mean)

    def _autocast(self) -> torch.autocast:
        enabled = self.settings.precision == "bfloat16"
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _diverged(self, what: str, value: float) -> TrainingDiverged:
        largest = max(float(p.detach().abs().max()) for p in self.trained.values())
        kept = self.run_folder.load_checkpoint("last") if self.run_folder is not None else None
        good = "there is no checkpoint yet"
        if kept:
            # Good is one whose weights have since given a finite loss; α's comes after the adapter's in a step.
            seen = self.step if what.endswith("α") else self.step - 1
            said = "is good" if kept[1]["step"] < seen else "may be bad: no finite loss has followed it"
            good = f"the checkpoint of step {kept[1]['step']} {said}"
        rate = self.optimizer.param_groups[0]["lr"]
        return TrainingDiverged(
            f"{what} is {value} in step {self.step} of {self.total} (learning rate {rate:.3g}, that of α "
            f"{self.settings.alpha.lr:.3g}, loss before {self.loss:.4g}, largest weight {largest:.3g}); {good}. "
            "Try a smaller lr or alpha.lr, a smaller clip, a warm-up, or precision='float32'"
        )

    # --------------------------------------------------------------------------------- evaluation, checkpoints

    def _after_step(self) -> None:
        """Log, evaluate and save what is due."""
        settings, last = self.settings, self.step == self.total
        evaluate = (settings.evaluate_every and self.step % settings.evaluate_every == 0) or last
        evaluate = bool(evaluate) and self.evaluates
        if self.step % settings.log_every == 0 or last:
            mean = sum(self.pending) / len(self.pending)
            rate = self.optimizer.param_groups[0]["lr"]
            self._log({"step": self.step, "loss": mean, "lr": rate, "passes": self._passes})
            self.pending = []
        save = evaluate or last or bool(settings.save_every and self.step % settings.save_every == 0)
        if save:  # what is stored or shown is finite
            bad = not_finite(self.trained)
            if bad:
                raise self._diverged(f"weight {bad[0]}", float(self.trained[bad[0]].detach().abs().max()))
        if evaluate:
            with self.average.applied() if self.average is not None else nullcontext():
                self._evaluate()
        if save:
            self._save()

    def _evaluate(self) -> None:
        with self._autocast():
            metrics = self.task.metrics(self.model, "validation")
        require_finite(metrics, f"validation in step {self.step}")
        self._log({"step": self.step, "validation": metrics})
        value = metrics[self.task.main_metric]
        better = self.best is None or (value > self.best if self.task.greater_is_better else value < self.best)
        if not better:
            self.without_gain += 1
            return
        self.best, self.best_step, self.without_gain = value, self.step, 0
        weights = self._weights()
        if self.run_folder is None:
            self.best_weights = {name: tensor.clone() for name, tensor in weights.items()}
        elif self.accelerator.is_main_process:
            self.run_folder.save_checkpoint("best", weights, {"step": self.step, "metrics": metrics})

    def _log(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        if self.run_folder is not None and self.accelerator.is_main_process:
            self.run_folder.log(record)

    def _weights(self) -> dict[str, Tensor]:
        return weights_of(self.model, self.trained)

    def _load_best(self) -> None:
        if self.run_folder is not None:
            self.accelerator.wait_for_everyone()
            stored = self.run_folder.load_checkpoint("best")
            if stored is None or stored[1].get("step") != self.best_step:
                raise ValueError(
                    f"the best weights, of step {self.best_step}, are not in {str(self.run_folder.folder)!r} any more; "
                    "start the run anew in another folder"
                )
            self.best_weights = stored[0]
        load_weights(self._weights(), self.best_weights)

    @property
    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        scales = {} if self.schedule is None else {"alpha": self.schedule.optimizer}
        return {"adapter": self.optimizer, **scales}

    def _save(self) -> None:
        if self.run_folder is None or not self.accelerator.is_main_process:
            return
        tensors = pack(self._weights(), self._optimizers, self.average)
        state = {
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "without_gain": self.without_gain,
            "pending": self.pending,
            "steps": steps_of(self.model),
        }
        self.run_folder.save_checkpoint("last", tensors, state)

    def _resume(self) -> None:
        """Take up the run's last checkpoint, if it has one."""
        if self.run_folder is None:
            return
        stored = self.run_folder.load_checkpoint("last")
        if stored is not None:
            check_state(stored[1], self.total)
        if self.accelerator.is_main_process:
            self.run_folder.rewind(stored[1]["step"] if stored else 0)
        self.accelerator.wait_for_everyone()
        if stored is None:  # killed before the first checkpoint: start anew
            return
        tensors, state = stored
        restore_steps(self.model, state.get("steps", {}))  # none in version 1
        unpack(tensors, self._weights(), self._optimizers, self.average, state["step"])
        self.step, self.best, self.best_step = state["step"], state["best"], state["best_step"]
        self.without_gain, self.pending = state["without_gain"], state["pending"]
        self.history = self.run_folder.metrics
