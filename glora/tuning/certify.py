"""Proof that an adapter does what it says, on a probe batch: it reaches, acts, merges, exports and leaves no trace.

>>> certificate = glora.certify(model, {"input_ids": ids})  # doctest: +SKIP
>>> print(certificate)  # doctest: +SKIP

A layer of the adapter *acts* if the probe reaches it, its tensors get a gradient and nothing computes with its frozen
weight behind its back. It is *dead* without a gradient, *bypassed* if an operator outside of it takes its weight,
*untrained* if its tensors have their initial values; *not reached* (a layer that the probe does not use) is no fault.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor, nn

from glora.layer.adapter import Adapter
from glora.layer.wrappers import AdaptedLayer, SavedModule
from glora.model import checkpoint, first_calls
from glora.model.attaching import detach, disabled
from glora.model.merging import export, merged, merged_copy, unmerged
from glora.model.state import adapted_modules, get_state, require_adapter, require_intact, require_state, switch, unwrap
from glora.model.statistics import different, equal, tensors
from glora.model.targets import base_modules
from glora.tuning.certificate import Certificate, LayerEffect, Statement
from glora.tuning.probe import (
    Batch,
    Probe,
    call,
    cotangents,
    distance,
    floats,
    matrix_flops,
    moved,
    no_progress_bars,
    sampled,
)

#: Largest relative difference of outputs that rounding may make between ways to compute the same, by dtype.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


# What several steps of a check have to name.
_ACTS, _TRAINED = "every layer that is reached acts", "the adapter is trained"
# Calls of the model that the verdicts on layers take: watched (twice its work), counted, forward and backward.
_CALLS_OF_LAYERS = 8


def certify(
    model: nn.Module,
    batch: Batch,
    *,
    name: str | None = None,
    reference: nn.Module | None = None,
    stored: list[Tensor] | None = None,
    quick: bool = False,
    seconds: float | None = None,
) -> Certificate:
    """Check an adapter on a probe batch; the model comes back as it was.

    Args:
        model: a model with adapters, merged or not.
        batch: the input: a tensor, a tuple of arguments or a dictionary of named ones.
        name: which adapter; the active one if None.
        reference: the base model as it was before `attach`, to compare with bit for bit; what stands in `model` if
            None.
        stored: outputs as `glora.tuning.probe.load` gives them, from whoever certified the adapter before.
        quick: leave out what copies the model (export, reload, detach).
        seconds: leave out, and say so, what would take longer than that in all, judged by the time of one call; None
            does not look at the clock.

    Raises:
        ValueError: there is no such adapter, or one of its layers was replaced since `attach`.

    >>> import glora
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> certificate = glora.certify(model, torch.randn(8, 16))
    >>> print(str(certificate).splitlines()[0])
    adapter 'default': 1 of 2 layers adapted (50 %, 80 % of its matrix products)
    """
    state = require_state(model)
    name = require_adapter(state, name or state.active)
    require_intact(model, name)
    model = unwrap(model)
    before = state.active
    with unmerged(model), _as_it_was(model), first_calls.unwatched(model):
        switch(model, name)
        try:
            model.eval()
            return _Check(model, batch, name, reference, stored, seconds).run(quick)
        finally:
            switch(model, before)


class _Check:
    """One certification of the active adapter, in evaluation mode."""

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        name: str,
        reference: nn.Module | None,
        stored: list[Tensor] | None,
        seconds: float | None,
    ) -> None:
        self.model, self.batch, self.name, self.reference, self.stored = model, batch, name, reference, stored
        self.seconds, self.start = seconds, monotonic()
        self.statements: list[Statement] = []
        self.base_output: list[Tensor] | None = None

    def run(self, quick: bool) -> Certificate:
        total = 0
        with torch.no_grad():
            # Watching keeps PyTorch from its fused paths, so the outputs to be compared come from unwatched runs.
            watch = Probe(self.model, self.name)
            before = monotonic()
            with watch.counting():
                self.output = floats(call(self.model, self.batch))
            self.one_call = monotonic() - before
            if not self.output:
                raise ValueError("the model's output has no floating-point tensor to compare; probe a part that has")
            if self._affords(_TRAINED, 1):
                with disabled(self.model):
                    self.base_output = floats(call(self.model, self.batch))
            reached = self._affords(_ACTS, _CALLS_OF_LAYERS)
            if reached:
                with watch:
                    call(self.model, self.batch)
                with disabled(self.model):
                    total = matrix_flops(lambda: call(self.model, self.batch))
        dtype = min((tensor.dtype for tensor in self.output), key=lambda d: -TOLERANCES.get(d, 0))
        compute = [p.dtype for p in self.model.parameters() if p.is_floating_point()]
        self.tolerance = max(TOLERANCES.get(d, 0.0) for d in {dtype, *compute})
        layers = self._layers(watch) if reached else None
        if layers is not None:
            self._say_reached(layers)
        if self.base_output is not None:
            self._say_trained(watch, layers, self.base_output)
        self._check("finite outputs", self._finite)
        if self._affords("merged = unmerged", 1, self._merging):
            self._check("merged = unmerged", self._merged)
        if not quick:
            self._check("exported = unmerged", self._exported)
            self._check("reloaded = saved", self._reloaded)
            self._check("base untouched after detach, bit for bit", self._detached)
        if self.stored is not None:
            self._check("outputs = those stored with the adapter", self._same_as_stored)
        own = [m for _, m in base_modules(self.model) if isinstance(m, nn.Linear) or hasattr(m, "kernel_size")]
        known = len({id(m) for m in own} | {id(m.base) for m in watch.layers.values()})
        share = min(1.0, watch.flops / total) if total else None
        coverage = {"adapted": len(watch.layers), "layers": known, "share": share}
        return Certificate(
            self.name, str(dtype).removeprefix("torch."), coverage, tuple(layers or ()), tuple(self.statements)
        )

    def _affords(self, claim: str, calls: float, more: Callable[[], float] = float) -> bool:
        """Whether so many calls of the model, and `more` seconds, fit into the time; it is said if they do not."""
        if self.seconds is None:
            return True
        needed = calls * self.one_call
        left = self.start + self.seconds - monotonic()
        if needed <= left:
            needed += more()
        if needed <= self.start + self.seconds - monotonic():
            return True
        self.statements.append(
            Statement(claim, None, f"left out: it takes about {needed:.1f} s of the {self.seconds:.1f} s for all")
        )
        return False

    def _merging(self) -> float:
        """About how many seconds it takes to form all merged weights, by the largest one."""
        layers = [m for _, m in adapted_modules(self.model) if isinstance(m, AdaptedLayer) and self.name in m.adapters]
        if not layers:
            return 0.0
        sizes = [layer.base.weight.numel() for layer in layers]  # type: ignore[operator]
        largest, before = layers[sizes.index(max(sizes))], monotonic()
        with torch.no_grad(), suppress(ValueError):
            largest.merged_parameters(self.name)
        return (monotonic() - before) * sum(sizes) / max(sizes)

    def _check(self, claim: str, check: Callable[[], tuple[bool, str]]) -> None:
        holds: bool | None
        try:
            with torch.no_grad():
                holds, detail = check()
        except Exception as error:  # what cannot be checked is said, and the rest is checked
            holds, detail = None, f"{type(error).__name__}: {error}"
        self.statements.append(Statement(claim, holds, detail))

    # ------------------------------------------------------------------------------------------------ the layers

    def _layers(self, watch: Probe) -> list[LayerEffect]:
        gradients, self.gradient_note = self._gradients(watch)
        found = []
        for key, layer in watch.layers.items():
            adapter = layer.adapters[self.name]
            assert isinstance(adapter, Adapter)
            trainable, unmoved = moved(adapter)
            calls, reads, gradient = watch.calls[key], watch.reads[key], gradients.get(key)
            reached = calls + reads > 0
            verdict = "acts"
            if key in watch.bypassed:
                verdict = "bypassed"
            elif not reached:
                verdict = "not reached"
            elif gradient == 0:
                verdict = "dead"
            elif trainable and len(unmoved) == len(trainable):
                verdict = "untrained"
            found.append(
                LayerEffect(key, verdict, calls, reads, watch.effect(key), gradient if reached else None, unmoved)
            )
        self.bypassed = watch.bypassed
        return found

    def _gradients(self, watch: Probe) -> tuple[dict[str, float], str]:
        """Norm of the gradient of each layer's tensors, in training mode if the model can."""
        for training in (True, False):
            try:
                return self._gradients_in(watch, training), "" if training else " (in evaluation mode)"
            except (RuntimeError, ValueError) as error:
                note = f"{type(error).__name__}: {error}"
        return {}, f"; gradients could not be taken: {note}"

    def _gradients_in(self, watch: Probe, training: bool) -> dict[str, float]:
        parameters = {
            key: [p for p in layer.adapters[self.name].parameters() if p.requires_grad]
            for key, layer in watch.layers.items()
        }
        flat = list(dict.fromkeys(p for group in parameters.values() for p in group))
        # A step of training moves running statistics, which the later checks must not see.
        with _as_it_was(self.model):
            self.model.train(training)
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                outputs = [t for t in floats(call(self.model, self.batch)) if t.requires_grad]
                if not outputs:
                    return dict.fromkeys(parameters, 0.0)
                total = sum(((t * r).sum() for t, r in zip(outputs, cotangents(outputs), strict=True)), start=0.0)
                found = torch.autograd.grad(total, flat, allow_unused=True)  # type: ignore[arg-type]
        norms = {p: 0.0 if g is None else float(g.double().norm()) for p, g in zip(flat, found, strict=True)}
        return {key: sum(norms[p] ** 2 for p in group) ** 0.5 for key, group in parameters.items() if group}

    def _say_reached(self, layers: list[LayerEffect]) -> None:
        faults = [layer for layer in layers if layer.verdict in ("dead", "bypassed")]
        reached = [layer for layer in layers if layer.verdict not in ("not reached", "bypassed")]
        idle = len(layers) - len(reached) - len([1 for layer in faults if layer.verdict == "bypassed"])
        detail = f"{len(reached)} of {len(layers)} layers{self.gradient_note}"
        detail += f", {idle} not reached by the probe" if idle else ""
        if faults:
            how = {key: f" by {operator}" for key, operator in self.bypassed.items()}
            detail += ": " + ", ".join(f"{x.name} is {x.verdict}{how.get(x.name, '')}" for x in faults[:8])
        holds = False if faults or (layers and not reached) else None if "could not" in self.gradient_note else True
        self.statements.append(Statement(_ACTS, holds, detail))

    def _say_trained(self, watch: Probe, layers: list[LayerEffect] | None, base_output: list[Tensor]) -> None:
        if layers is not None:
            untrained = [layer.name for layer in layers if layer.verdict == "untrained"]
        else:
            parts = {key: moved(watch.layers[key].adapters[self.name]) for key in watch.acted or ()}  # type: ignore[arg-type]
            untrained = [key for key, (tensors_of, unmoved) in parts.items() if 0 < len(tensors_of) == len(unmoved)]
        change = distance(self.output, base_output)
        saved = any(isinstance(m, SavedModule) and self.name in m.adapters for _, m in adapted_modules(self.model))
        text = f"the outputs differ from the base's by {change:.2g}"
        if untrained:
            text += f"; at their initial values: {', '.join(untrained[:8])}"
        holds = not untrained and (change > 0 or (not watch.layers and saved))
        self.statements.append(Statement(_TRAINED, holds, text))

    # --------------------------------------------------------------------------------------------- the statements

    def _compare(self, outputs: list[Tensor], tolerance: float | None = None) -> tuple[bool, str]:
        tolerance = self.tolerance if tolerance is None else tolerance
        error = distance(outputs, self.output)
        known = self.base_output is not None
        does = f"; the adapter does {distance(self.output, self.base_output or []):.2g}" if known else ""
        return error <= tolerance, f"differ by {error:.2g} (allowed {tolerance:.0e}{does})"

    def _finite(self) -> tuple[bool, str]:
        good = all(bool(torch.isfinite(tensor).all()) for tensor in self.output)
        return good, "all numbers are finite" if good else "there are NaN or infinite numbers"

    def _merged(self) -> tuple[bool, str]:
        with merged(self.model, self.name):
            return self._compare(floats(call(self.model, self.batch)))

    def _exported(self) -> tuple[bool, str]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), no_progress_bars(self.model):
            warnings.simplefilter("ignore")
            export(self.model, folder, self.name)
            if callable(getattr(self.model, "save_pretrained", None)):
                kind: Any = type(self.model)
                plain = kind.from_pretrained(folder, dtype=next(self.model.parameters()).dtype, trust_remote_code=False)
            else:
                from safetensors.torch import load_model

                plain = merged_copy(self.model, self.name)
                for parameter in plain.parameters():
                    parameter.detach().zero_()
                load_model(plain, str(Path(folder, "model.safetensors")))
            plain.to(next(self.model.parameters()).device).eval()
            return self._compare(floats(call(plain, self.batch)))

    def _reloaded(self) -> tuple[bool, str]:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(self.model, folder, self.name)
            plain = copy.deepcopy(self.model)
            detach(plain)
            checkpoint.load(plain, folder, "reloaded")
            plain.eval()
            return self._compare(floats(call(plain, self.batch)), 0.0)

    def _detached(self) -> tuple[bool, str]:
        known = self._base_tensors(self.model if self.reference is None else self.reference)
        plain = copy.deepcopy(self.model)
        detach(plain)
        wrong = different(self._base_tensors(plain), known)
        if wrong:
            return False, f"{len(wrong)} tensors differ: {', '.join(wrong[:4])}"
        if self.reference is not None:
            self.reference.eval()
            plain.eval()
            if distance(floats(call(plain, self.batch)), floats(call(self.reference, self.batch))):
                return False, "all tensors agree, but the outputs differ"
        return True, f"{len(known)} tensors agree" + (
            "" if self.reference is None else " with the base, and the outputs"
        )

    @staticmethod
    def _base_tensors(model: nn.Module) -> dict[str, Tensor]:
        state = get_state(model)
        return tensors(model, state.base_buffers if state is not None else {})

    def _same_as_stored(self) -> tuple[bool, str]:
        assert self.stored is not None
        own = sampled(self.output)
        if [t.shape for t in own] != [t.shape for t in self.stored]:
            return False, "the outputs have other shapes"
        error = distance(own, self.stored)
        return error <= self.tolerance, f"differ by {error:.2g} (allowed {self.tolerance:.0e})"


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Give modes, flags and all buffers back as they were."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for buffer, value in buffers.items():
                if not equal(buffer, value):
                    buffer.copy_(value)
