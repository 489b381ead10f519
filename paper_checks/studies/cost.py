"""What training with a method costs: memory above the loaded base model, and the time of a step.

Both are measured in a process of its own. A process's peak memory never falls, so in one that has computed other cells
it says nothing about this one; and libraries that are imported on the way would count as the method's. The steps are
those of `glora.training.loop.train`, all on the same batch, for LoRA and the method in turn, so that a machine that
slows down slows both.

Memory is the peak resident set (Linux and, coarser, other Unix) or CUDA's peak allocation, minus what there was when
the base model had been loaded: adapter, gradients, optimizer states and activations. Time is CPU time of one thread,
which other processes hardly touch, or wall time of a GPU between synchronisations. α-LoRA's steps on α are part of
the peak but not of the time: the studies take their passes off the adapter's.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from paper_checks.core import Context, Figures, NotAvailable, Row

STEPS, ROUNDS = 3, 4


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Args:
        task: where model and batches come from; all steps use its longest examples, or its first if all are as long.
        settings: a `glora.runs.settings.TrainingSettings`; its length is not used.
        adapt: puts the method onto a base model, in place or not, and returns it.
    """

    task: Any
    settings: Any
    adapt: Callable[[Any], Any]


class Costed(Protocol):
    """A check that can say what its methods train; it is made anew in the measuring process, without arguments."""

    def subject(self, context: Context, method: str) -> Subject:
        """The method as the check trains it.

        Raises:
            NotAvailable: what it needs is not there.
        """


def measure(check: Costed, context: Context, method: str, against: str = "lora") -> Figures:
    """Cost of a method, in a process of its own.

    Args:
        check: whose method it is.
        context: where its data are.
        method: the method's name for ``check.subject``.
        against: the method whose steps are timed in turn with this one's: the check's LoRA.

    Returns:
        ``parameters`` trained (heads included), ``memory_mib`` above the base model's ``base_mib``, the median
        ``seconds`` of a step, its ``ratio`` to a step of LoRA with ``error``, and the ``device``.

    Raises:
        NotAvailable: see `Costed.subject`.
        RuntimeError: the measuring process failed; the message ends with its last words.
    """
    check.subject(context, method)  # says what is missing before a process is started
    request = {
        "check": [type(check).__module__, type(check).__qualname__],
        "out": str(context.out),
        "data": None if context.data is None else str(context.data),
        "seed": context.seed,
        "methods": [method, against],
    }
    paths = [path for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(request)], env=environment, capture_output=True, text=True
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"measuring the cost of {method!r} failed: {done.stderr.strip()[-2000:]}")
    answer = json.loads(lines[-1])
    if "missing" in answer:
        raise NotAvailable(answer["missing"])
    return answer


def rows(
    costs: Mapping[str, Figures], label: Callable[[str], str], against: Callable[[str], str] = lambda method: "lora"
) -> Iterable[Row]:
    """Rows of a table: memory and step time of each method, and both as multiples of LoRA's.

    Args:
        costs: figures of `measure` by method.
        label: what a method is called in the table.
        against: the LoRA that a method was measured against.
    """
    for method, cost in costs.items():
        kind = "CPU" if cost["device"] == "cpu" else "GPU"
        yield Row(f"{label(method)}: training memory above the base model (MiB)", None, cost["memory_mib"])
        yield Row(f"{label(method)}: {kind} seconds a training step", None, cost["seconds"])
        if method == against(method):
            continue
        lora = costs.get(against(method))
        if lora is not None:
            yield Row(f"{label(method)} / LoRA: training memory", None, cost["memory_mib"] / lora["memory_mib"])
        yield Row(f"{label(method)} / LoRA: time of a training step", None, cost["ratio"], cost["error"])


# ------------------------------------------------------------------------------------------ in the measuring process


def main(arguments: Sequence[str]) -> None:
    """Measure what the request says and print the figures as one line of JSON."""
    request = json.loads(arguments[0])
    module, name = request["check"]
    check: Costed = getattr(importlib.import_module(module), name)()
    data = None if request["data"] is None else Path(request["data"])
    context = Context(out=Path(request["out"]), data=data, seed=request["seed"])
    try:
        answer = _measure(check, context, *request["methods"])
    except NotAvailable as reason:
        answer = {"missing": str(reason)}
    print(json.dumps(answer))


def _measure(check: Costed, context: Context, method: str, against: str) -> Figures:
    import torch

    torch.set_num_threads(1)
    subject = _short(check.subject(context, method))
    cuda = subject.settings.device != "cpu" and torch.cuda.is_available()
    _warm_up(subject.settings)
    memory = _CudaMemory() if cuda else _ProcessMemory()
    model = subject.task.build_model(0)
    subject.task.batch(subject.settings.split, range(subject.settings.batch_size))  # what it caches is not the method's
    if cuda:
        model = model.cuda()
    base = memory.mark()
    model = subject.adapt(model)
    # An α step after every adapter step: its activations count as well.
    often = replace(subject.settings.alpha, every=1)
    _train(subject, model, replace(subject.settings, steps=2 * STEPS, alpha=often))
    peak = memory.peak()

    clock = _gpu_clock if cuda else time.process_time
    other = _short(check.subject(context, against))
    both = [(subject, model), (other, other.adapt(other.task.build_model(0)))]
    seconds: list[list[float]] = [[], []]
    for number in range(ROUNDS):
        for which in (0, 1) if number % 2 else (1, 0):
            one, its_model = both[which]
            # The first step makes the optimizer's states.
            seconds[which] += _train(one, its_model, one.settings, clock)[1:]
    ratios = np.array(seconds[0]) / np.array(seconds[1])
    return {
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "memory_mib": (peak - base) / 2**20,
        "base_mib": base / 2**20,
        "seconds": float(np.median(seconds[0])),
        "ratio": float(np.median(ratios)),
        "error": float(1.2533 * ratios.std(ddof=1) / np.sqrt(len(ratios))),  # of a median
        "steps": len(ratios),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def _short(subject: Subject) -> Subject:
    """The same on one batch, a few steps long, without evaluations."""
    changes: dict[str, Any] = {"epochs": None, "steps": STEPS, "evaluate_every": 0, "patience": 0, "keep": "last"}
    settings = replace(subject.settings, split="train+validation", **changes)
    settings = replace(settings, batch_size=min(settings.batch_size, subject.task.size(settings.split)))
    return replace(subject, task=_OneBatch(subject.task, settings.split), settings=settings)


class _OneBatch:
    """A task that answers every request with its longest examples, or its first if there are no lengths."""

    def __init__(self, task: Any, split: str) -> None:
        from glora.tasks.base import UnequalExamples

        self._task, self._order = task, list(range(task.size(split)))
        if isinstance(task, UnequalExamples):
            self._order.sort(key=lambda i: -task.length(split, i))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def batch(self, split: str, indices: Sequence[int], generator: Any = None) -> Any:
        """As many examples as asked for, always the same ones."""
        return self._task.batch(split, self._order[: len(indices)], generator)


def _train(subject: Subject, model: Any, settings: Any, clock: Callable[[], float] = time.process_time) -> list[float]:
    """Seconds of each step of a short training."""
    from glora.training.loop import train

    marks: list[float] = []
    train(model, subject.task, settings, before_step=lambda step: marks.append(clock()))
    marks.append(clock())
    return np.diff(marks).tolist()


def _warm_up(settings: Any) -> None:
    """Import what training imports, and let the libraries take their work space, before memory is looked at."""
    import accelerate
    import torch

    accelerate.Accelerator(cpu=settings.device == "cpu")
    layer = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(64, 64)).sum().backward()
    optimizer.step()


class _ProcessMemory:
    """Resident memory of this process in bytes."""

    def mark(self) -> int:
        """What is in use now; the peak is forgotten where the system can."""
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)  # what loading has freed would be used again unseen
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        return self._field("VmRSS")

    def peak(self) -> int:
        """The most since `mark`, or, where the system cannot tell, since the process began."""
        return self._field("VmHWM")

    @staticmethod
    def _field(name: str) -> int:
        # Not `ru_maxrss`: a new process inherits that from the one that started it.
        status = Path("/proc/self/status")
        if status.is_file():
            found = re.search(rf"^{name}:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
            if found:
                return 1024 * int(found[1])
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else 1024 * used


class _CudaMemory:
    """Memory allocated on the GPU in bytes."""

    def mark(self) -> int:
        """What is in use now; the peak is forgotten."""
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        """The most since `mark`."""
        import torch

        return torch.cuda.max_memory_allocated()


def _gpu_clock() -> float:
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main(sys.argv[1:])
