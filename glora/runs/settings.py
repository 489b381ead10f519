"""How a model is trained, as frozen dataclasses: the section [training] of a run's file, and [training.alpha].

Everything is checked when it is made, before any work starts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from glora._checks import choice, fraction, is_number, number, of_kind, table, whole

ALPHA_MODES = ("fixed", "joint", "scheduled")
ALPHA_SOURCES = ("held_out", "overlap")
SCHEDULES = ("linear", "cosine", "constant")
#: Steps, epochs or examples of a batch beyond which nothing can end or fit.
MOST = 10**9
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class AlphaSettings:
    """How the scale α = 1 + A is trained (``[training.alpha]``); ignored by methods without a trainable scale.

    The defaults are those of α-LoRA. In a run's file they hold for the method alpha_lora; with any other one a scalar
    or vector A is a trained tensor among others, hence "joint" with the adapter's learning rate unless the file says
    otherwise (`RunConfig.from_dict`).

    Args:
        mode: "scheduled" is α-LoRA's Algorithm 1: every `every` adapter steps one step of a separate optimizer on
            a batch of its own. "joint" trains α in the adapter's steps with its own learning rate. "fixed" leaves
            α where it starts: `train` freezes its parameters in the model it is given, for good.
        every: T, adapter steps between two α steps.
        lr: learning rate of α; constant when scheduled, as in the paper.
        batch_size: examples of an α batch; None takes the adapter's.
        source: "held_out" takes α batches from a part of the training split on which the adapter never trains;
            "overlap" reproduces the official code, whose α batches are training examples of the adapter too.
        fraction: part of the training split from which α batches come.
        counted: whether α's passes are taken off the adapter's, so that the run does no more work than one
            without; False reproduces the official code.
        decay: weight decay of α towards 1.
        betas: of α's Adam.
    """

    mode: str = "scheduled"
    every: int = 10
    lr: float = 5e-3
    batch_size: int | None = None
    source: str = "held_out"
    fraction: float = 0.2
    counted: bool = True
    decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        choice("alpha.mode", self.mode, ALPHA_MODES)
        choice("alpha.source", self.source, ALPHA_SOURCES)
        whole("alpha.every", self.every, 1)
        number("alpha.lr", self.lr, 0.0)
        number("alpha.decay", self.decay, 0.0)
        if self.batch_size is not None:
            whole("alpha.batch_size", self.batch_size, 1)
        fraction("alpha.fraction", self.fraction)
        of_kind("alpha.counted", self.counted, bool)
        object.__setattr__(self, "betas", _betas("alpha.betas", self.betas))


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is trained (``[training]``).

    Args:
        epochs, steps: length of the run; exactly one of them (neither: 3 epochs). Both count *passes*: batches
            of `batch_size` examples through forward and backward, α's included (see ``alpha.counted``), so that
            two methods with the same length have done the same work.
        batch_size: examples of one optimizer step, over all processes and micro-batches.
        micro_batch_size: examples that go through the model at once; None: all of them.
        lr, head_lr: learning rate of the adapter and of the modules trained in full (None: the same).
        weight_decay, betas: of AdamW.
        schedule: "linear" or "cosine" down to `floor`, or "constant"; `warmup` is the fraction of steps spent rising.
        floor: where the schedule ends, as a fraction of the peak.
        clip: largest gradient norm; 0 does not clip.
        precision: "float32", or "bfloat16" autocast (adapters and optimizers stay in float32).
        split: the split trained on, "train" or "train+validation".
        evaluate_every: steps between two evaluations on validation; 0 evaluates only at the end, and not at all
            if training on "train+validation".
        patience: evaluations without a better main metric before stopping early; 0 never stops.
        keep: which weights the run ends with: "best" on validation or "last".
        ema: decay of an exponential moving average of the trained weights, taken after every adapter step and started
            at the first: ``average ← ema · average + (1 − ema) · weights``. Evaluated and kept are the averaged
            weights, α's included; training goes on with its own. It looks back over about 1/(1 − ema) steps, which
            should be few of the run's. 0 takes none.
        save_every: steps between two checkpoints for resuming, besides those at evaluations; 0: only those.
        log_every: steps between two lines of metrics.
        seed: of data order, dropout, new parameters and the split for α.
        device: "auto" (what accelerate chooses) or "cpu".
        alpha: how the scale is trained.
    """

    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 32
    micro_batch_size: int | None = None
    lr: float = 1e-3
    head_lr: float | None = None
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: str = "linear"
    warmup: float = 0.0
    floor: float = 0.0
    clip: float = 1.0
    precision: str = "float32"
    split: str = "train"
    evaluate_every: int = 0
    patience: int = 0
    keep: str = "best"
    ema: float = 0.0
    save_every: int = 200
    log_every: int = 10
    seed: int = 0
    device: str = "auto"
    alpha: AlphaSettings = field(default_factory=AlphaSettings)

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"give epochs={self.epochs} or steps={self.steps}, not both")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 3.0)
        if self.epochs is not None and not (is_number(self.epochs) and self.epochs > 0):
            raise ValueError(f"epochs must be a positive number, got {self.epochs!r}")
        if self.epochs is not None and self.epochs > MOST:
            raise ValueError(f"epochs must be at most {MOST:,}, got {self.epochs!r}")
        if self.steps is not None:
            whole("steps", self.steps, 1, MOST)
        whole("batch_size", self.batch_size, 1, MOST)
        if self.micro_batch_size is not None:
            whole("micro_batch_size", self.micro_batch_size, 1)
        for name in ("evaluate_every", "patience", "save_every", "seed"):
            whole(name, getattr(self, name), 0)
        whole("log_every", self.log_every, 1)
        for name in ("lr", "weight_decay", "clip"):
            number(name, getattr(self, name), 0.0)
        if self.head_lr is not None:
            number("head_lr", self.head_lr, 0.0)
        if not is_number(self.warmup) or not 0.0 <= self.warmup < 1.0:
            raise ValueError(f"warmup is a fraction of the steps in [0, 1), got {self.warmup!r}")
        number("floor", self.floor, 0.0)
        if self.floor > 1.0:
            raise ValueError(f"floor is a fraction of the peak learning rate in [0, 1], got {self.floor!r}")
        number("ema", self.ema, 0.0)
        if self.ema >= 1.0:
            raise ValueError(f"ema is a decay in [0, 1), got {self.ema!r}; 0.99 looks back over about 100 steps")
        choice("schedule", self.schedule, SCHEDULES)
        choice("precision", self.precision, PRECISIONS)
        choice("split", self.split, ("train", "train+validation"))
        choice("keep", self.keep, ("best", "last"))
        choice("device", self.device, ("auto", "cpu"))
        if self.split == "train+validation" and (self.evaluate_every or self.patience):
            raise ValueError(
                "split='train+validation' leaves no validation examples, so evaluate_every and patience must be 0"
            )
        if self.patience and not self.evaluate_every:
            raise ValueError(f"patience={self.patience} counts evaluations; give evaluate_every as well")
        object.__setattr__(self, "betas", _betas("betas", self.betas))
        if not isinstance(self.alpha, AlphaSettings):
            table("section [training.alpha]", self.alpha)
            object.__setattr__(self, "alpha", from_mapping(AlphaSettings, "training.alpha", self.alpha))


Section = TypeVar("Section")


def from_mapping(cls: type[Section], section: str, values: Mapping[str, Any]) -> Section:
    """A dataclass of settings from the keys of a file's section.

    Raises:
        ValueError: a key is unknown, or a value is impossible.
    """
    known_keys(cls, section, values)
    return cls(**values)


def known_keys(cls: type, section: str, values: Mapping[str, Any]) -> None:
    """Raise ValueError if a file's section has a key that is no field of its dataclass."""
    known = {spec.name for spec in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"section [{section}] has unknown keys {unknown}; it knows {sorted(known)}")


def _betas(name: str, value: Any) -> tuple[float, float]:
    pair = isinstance(value, Sequence) and len(value) == 2
    if not pair or not all(is_number(beta) and 0.0 <= beta < 1.0 for beta in value):
        raise ValueError(f"{name} must be two numbers in [0, 1), got {value!r}")
    return float(value[0]), float(value[1])
