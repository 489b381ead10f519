"""The probe of a certificate: how a model is called, what is seen while it runs, and how both are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glora._files import write_atomic
from glora.layer.adapter import Adapter
from glora.layer.tensors import LowRank
from glora.layer.watching import Watch
from glora.layer.wrappers import AdaptedLayer
from glora.model import checkpoint
from glora.model.state import adapted_modules
from glora.model.targets import base_modules

Batch = Tensor | tuple[Tensor, ...] | Mapping[str, Any]

# Numbers kept of each output.
_KEPT = 4096


def call(model: nn.Module, batch: Batch) -> Any:
    """The model's output on a batch, which goes to the model's device."""
    device = next(model.parameters()).device

    def move(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    if isinstance(batch, Tensor):
        return model(move(batch))
    if isinstance(batch, Mapping):
        return model(**{key: move(value) for key, value in batch.items()})
    return model(*map(move, batch))


def floats(output: Any) -> list[Tensor]:
    """The floating-point tensors of an output: of a tensor, of nested lists, tuples and tables (no caches)."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [t for key, value in output.items() if "cache" not in key and "past_" not in key for t in floats(value)]
    if isinstance(output, (list, tuple)):
        return [t for value in output for t in floats(value)]
    return []


def cotangents(outputs: Iterable[Tensor]) -> list[Tensor]:
    """A fixed random weight for every number of the outputs."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(t.shape, generator=generator).to(t.device, t.dtype) for t in outputs]


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    """Largest relative distance ‖a − b‖ / ‖b‖ of corresponding tensors; infinite if they do not correspond."""
    if [t.shape for t in one] != [t.shape for t in other]:
        return float("inf")
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        a, b = a.detach().double().cpu(), b.detach().double().cpu()
        same = (a == b) | (a.isnan() & b.isnan())
        gap = float(torch.where(same, 0.0, a - b).norm())
        scale = float(torch.where(torch.isfinite(b), b, 0.0).norm())
        error = 0.0 if gap == 0 else gap / scale if scale else float("inf")
        worst = max(worst, float("inf") if error != error else error)
    return worst


def sampled(outputs: list[Tensor]) -> list[Tensor]:
    """Evenly spread numbers of each output, in float64 on the CPU: what is stored of it."""
    found = []
    for tensor in outputs:
        flat = tensor.detach().double().cpu().flatten()
        count = min(_KEPT, len(flat))
        found.append(flat[torch.arange(count) * max(0, len(flat) - 1) // max(1, count - 1)])
    return found


def matrix_flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions of a run, PyTorch's fused layers opened."""
    from torch.utils.flop_counter import FlopCounterMode

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


class Probe(Watch):
    """A `Watch` that also measures what the layers of an adapter do.

    Attributes:
        layers: the layers of the adapter by name.
        calls, reads: how often each was called, and how often its weight or bias was read.
        bypassed: layers whose frozen weight an operator took outside of the layer, with that operator's name.
        flops: operations of the base's matrix products in adapted layers.
        acted: layers that acted at all while `counting`; None before.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        layers = {key: m for key, m in adapted_modules(model) if isinstance(m, AdaptedLayer)}
        super().__init__(layers, name, (module for _, module in base_modules(model)))
        self.calls = dict.fromkeys(self.layers, 0)
        self.reads = dict.fromkeys(self.layers, 0)
        self.flops = 0
        self.acted: set[str] | None = None
        self._squares: dict[str, list[float]] = {key: [0.0, 0.0] for key in self.layers}

    def __exit__(self, *error: Any) -> None:
        """Stop."""
        super().__exit__(*error)
        for key in self.layers:
            if self.acted is not None and key not in self.acted and self.calls[key] + self.reads[key]:
                self.bypassed.setdefault(key, "a fused operator")

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Only see, in the ``with`` block, which layers act at all, in a way that no fused path can notice.

        A layer that acts when it is watched and did not here is bypassed.
        """
        self.acted = set()

        def forward(key: str, adapter: Adapter, x: Tensor, base: nn.Module) -> Tensor:
            self.acted.add(key)  # type: ignore[union-attr]
            return type(adapter).forward(adapter, x, base)

        def read(key: str, make: Callable[[], Tensor]) -> Tensor:
            self.acted.add(key)  # type: ignore[union-attr]
            return make()

        try:
            for key, layer in self.layers.items():
                adapter: Any = layer.adapters[self._name]
                adapter.forward = partial(forward, key, adapter)
                layer.watch = partial(read, key)
            yield
        finally:
            for layer in self.layers.values():
                vars(layer.adapters[self._name]).pop("forward", None)
                layer.watch = None

    def effect(self, key: str) -> float | None:
        """Relative change of a layer's output, or of its weight if it was only read; None if neither happened."""
        change, scale = self._squares[key]
        if self.calls[key]:
            return (change / scale) ** 0.5 if scale else float(change > 0)
        if not self.reads[key]:
            return None
        layer = self.layers[key]
        adapter = layer.adapters[self._name]
        assert isinstance(adapter, Adapter)
        base: Tensor = layer.base.weight  # type: ignore[assignment]
        return distance([adapter.effective(layer.base)[0]], [base])

    def _read(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        self.reads[key] += 1
        return super()._read(key, make)

    def _seen(self, key: str, adapter: Adapter, x: Tensor, base: nn.Module, output: Tensor) -> Tensor:
        self.calls[key] += 1
        with torch.no_grad():
            before = base(x)
            self._squares[key][0] += float((output - before).double().square().sum())
            self._squares[key][1] += float(before.double().square().sum())
        weight: Any = base.weight
        self.flops += 2 * output.numel() * weight.numel() // max(1, adapter.op.matrix(weight).shape[0])
        return output


def store(folder: str | Path, batch: Batch, outputs: list[Tensor]) -> None:
    """Put a probe's inputs and outputs beside an adapter; ``adapter.json`` names the file by its digest.

    Raises:
        ValueError: an input is no tensor, or the folder holds no adapter.
    """
    folder = Path(folder)
    named: Mapping[str, Any]
    if isinstance(batch, Tensor):
        named = {"input": batch}
    elif isinstance(batch, Mapping):
        named = {f"input.{key}": value for key, value in batch.items()}
    else:
        named = {f"input.{number}": value for number, value in enumerate(batch)}
    for key, value in named.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"the probe's {key} is {type(value).__name__}; only tensors can be stored")
    tensors = {**named, **{f"output.{number}": t for number, t in enumerate(sampled(outputs))}}
    index = checkpoint.read_index(folder)
    index["probe"], data = checkpoint.encoded("probe", tensors)
    write_atomic(folder / index["probe"]["tensors"], data)
    checkpoint.write_index(folder, index)


def load(folder: str | Path) -> tuple[Batch, list[Tensor]] | None:
    """The probe that `store` put beside an adapter, its digest checked; None if there is none.

    Raises:
        ValueError: the file is missing or damaged.
    """
    folder = Path(folder)
    index = checkpoint.read_index(folder)
    if "probe" not in index:
        return None
    tensors = checkpoint.read_tensors(folder, index["probe"])
    return batch_of({key: t for key, t in tensors.items() if key.startswith("input")}), [
        tensors[f"output.{number}"] for number in range(sum(key.startswith("output.") for key in tensors))
    ]


def batch_of(tensors: Mapping[str, Tensor]) -> Batch:
    """A batch from tensors named ``input`` (one tensor), ``input.0`` … (arguments) or ``input.<name>``, or by name."""
    named = {key.removeprefix("input."): value for key, value in tensors.items()}
    if set(named) == {"input"}:
        return named["input"]
    if all(key.isdigit() for key in named):
        return tuple(named[key] for key in sorted(named, key=int))
    return named


@torch.no_grad()
def outputs(model: nn.Module, batch: Batch) -> list[Tensor]:
    """The floating-point outputs of a model in evaluation mode; it comes back in the mode it was in."""
    training = model.training
    model.eval()
    try:
        return floats(call(model, batch))
    finally:
        model.train(training)


class _Seen(Exception):
    """The model is about to be called; its work is not needed."""


def of_task(model: nn.Module, task: Any, size: int = 4) -> Batch:
    """What a task gives to its model for its first validation (or training) examples.

    Raises:
        ValueError: the task never calls the model, or calls it with something else than tensors.
    """
    split = "validation" if task.size("validation") else "train"
    examples = task.batch(split, range(min(size, task.size(split))))
    seen: list[tuple[Any, Any]] = []

    def stop(_: nn.Module, args: Any, kwargs: Any) -> None:
        seen.append((args, kwargs))
        raise _Seen

    hook = model.register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), suppress(_Seen):
            device = next(model.parameters()).device
            task.loss(model, {key: value.to(device) for key, value in examples.items()})
    finally:
        hook.remove()
        model.train(training)
    if not seen:
        raise ValueError(f"the task {type(task).__name__} computes its loss without calling the model")
    args, kwargs = seen[0]
    if args and kwargs:
        raise ValueError(f"the task {type(task).__name__} mixes named and other arguments; give --batch")
    tensors = {key: value for key, value in kwargs.items() if isinstance(value, Tensor)}
    return tensors if kwargs else args[0] if len(args) == 1 else args


@contextmanager
def no_progress_bars(model: nn.Module) -> Iterator[None]:
    """Keep transformers from drawing bars for a folder that nobody sees."""
    if not callable(getattr(model, "save_pretrained", None)):
        yield
        return
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def moved(adapter: Adapter) -> tuple[list[str], tuple[str, ...]]:
    """The trainable tensors of an adapter, and those of them that still have their initial values."""
    trainable, unmoved = [], []
    for part in "ABCDE":
        tensor = getattr(adapter, part)
        if tensor is None or (part == "A" and not adapter.config.train_alpha):
            continue
        trainable.append(part)
        value = tensor.left if isinstance(tensor, LowRank) else tensor.value
        start = adapter.config.alpha - 1 if part == "A" and not isinstance(tensor, LowRank) else 0.0
        if bool((value.detach() == torch.tensor(start, dtype=value.dtype)).all()):
            unmoved.append(part)
    return trainable, tuple(unmoved)
