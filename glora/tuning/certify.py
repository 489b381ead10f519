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
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glora.layer.adapter import Adapter
from glora.layer.wrappers import SavedModule
from glora.model import checkpoint
from glora.model.attaching import detach, disabled
from glora.model.merging import export, merged, merged_copy, unmerged
from glora.model.state import adapted_modules, get_state, require_adapter, require_intact, require_state, switch, unwrap
from glora.model.statistics import different, equal, tensors
from glora.model.targets import base_modules
from glora.tuning.probe import (
    Batch,
    Watch,
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


@dataclass(frozen=True)
class LayerEffect:
    """What one adapted layer does on the probe.

    Attributes:
        name: the layer.
        verdict: "acts", "dead", "bypassed", "untrained" or "not reached".
        calls: how often the layer was called; `reads`: how often its weight or bias was read instead.
        effect: relative change of the layer's output (of its weight, if only read); None if not reached.
        gradient: norm of the gradient of its tensors; None if not reached.
        unmoved: its trainable tensors that have their initial values.
    """

    name: str
    verdict: str
    calls: int
    reads: int
    effect: float | None
    gradient: float | None
    unmoved: tuple[str, ...]


@dataclass(frozen=True)
class Statement:
    """One thing that is proved (`holds` True), false (False) or could not be checked (None), and the figures."""

    claim: str
    holds: bool | None
    detail: str


@dataclass(frozen=True)
class Certificate:
    """The answer of `certify`; ``str`` is a page.

    Attributes:
        adapter: name of the adapter.
        dtype: of the model's outputs; it chooses the tolerance.
        coverage: layers adapted and layers there are, and the share of the matrix products of one forward pass that
            goes through adapted layers (None if nothing was counted).
        layers: one entry a layer of the adapter.
        statements: what was checked.
    """

    adapter: str
    dtype: str
    coverage: dict[str, Any]
    layers: tuple[LayerEffect, ...]
    statements: tuple[Statement, ...]

    @property
    def holds(self) -> bool | None:
        """True if every statement is proved, False if one is false, None if one could not be checked."""
        found = {statement.holds for statement in self.statements}
        return False if False in found else None if None in found else True

    @property
    def exit_code(self) -> int:
        """0 all proved, 1 a statement is false, 2 one could not be checked."""
        return {True: 0, False: 1, None: 2}[self.holds]

    def named(self, verdict: str) -> list[str]:
        """Names of the layers with a verdict."""
        return [layer.name for layer in self.layers if layer.verdict == verdict]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "holds": self.holds, "exit_code": self.exit_code}

    def __str__(self) -> str:
        marks = {True: "proved ", False: "FALSE  ", None: "unknown"}
        cover = self.coverage
        share = "" if cover["share"] is None else f", {100 * cover['share']:.0f} % of its matrix products"
        percent = 100 * cover["adapted"] / max(1, cover["layers"])
        covered = f"{cover['adapted']} of {cover['layers']} layers adapted ({percent:.0f} %{share})"
        lines = [
            f"adapter {self.adapter!r}: {covered}",
            *(f"{marks[s.holds]}  {s.claim}: {s.detail}" for s in self.statements),
        ]
        kinds: dict[str, list[LayerEffect]] = {}
        for layer in self.layers:
            kinds.setdefault(layer.verdict, []).append(layer)
        for verdict, layers in kinds.items():
            effects = [layer.effect for layer in layers if layer.effect is not None]
            span = f", output changed by {min(effects):.2g} … {max(effects):.2g}" if effects else ""
            shown = ", ".join(layer.name for layer in layers[:4]) + (" …" if len(layers) > 4 else "")
            lines.append(f"  {verdict}: {len(layers)} ({shown}){span}")
        return "\n".join(lines)


def certify(
    model: nn.Module,
    batch: Batch,
    *,
    name: str | None = None,
    reference: nn.Module | None = None,
    stored: list[Tensor] | None = None,
    quick: bool = False,
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
    with unmerged(model), _as_it_was(model):
        switch(model, name)
        try:
            model.eval()
            return _Check(model, batch, name, reference, stored).run(quick)
        finally:
            switch(model, before)


class _Check:
    """One certification of the active adapter, in evaluation mode."""

    def __init__(
        self, model: nn.Module, batch: Batch, name: str, reference: nn.Module | None, stored: list[Tensor] | None
    ) -> None:
        self.model, self.batch, self.name, self.reference, self.stored = model, batch, name, reference, stored
        self.statements: list[Statement] = []

    def run(self, quick: bool) -> Certificate:
        with torch.no_grad():
            # Watching keeps PyTorch from its fused paths, so the outputs to be compared come from unwatched runs.
            watch = Watch(self.model, self.name)
            with watch.counting():
                self.output = floats(call(self.model, self.batch))
            with watch:
                call(self.model, self.batch)
            with disabled(self.model):
                self.base_output = floats(call(self.model, self.batch))
                total = matrix_flops(lambda: call(self.model, self.batch))
        if not self.output:
            raise ValueError("the model's output has no floating-point tensor to compare; probe a part that has")
        dtype = min((tensor.dtype for tensor in self.output), key=lambda d: -TOLERANCES.get(d, 0))
        compute = [p.dtype for p in self.model.parameters() if p.is_floating_point()]
        self.tolerance = max(TOLERANCES.get(d, 0.0) for d in {dtype, *compute})
        layers = self._layers(watch)
        self._say_reached(layers)
        self._check("finite outputs", self._finite)
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
            self.name, str(dtype).removeprefix("torch."), coverage, tuple(layers), tuple(self.statements)
        )

    def _check(self, claim: str, check: Callable[[], tuple[bool, str]]) -> None:
        holds: bool | None
        try:
            with torch.no_grad():
                holds, detail = check()
        except Exception as error:  # what cannot be checked is said, and the rest is checked
            holds, detail = None, f"{type(error).__name__}: {error}"
        self.statements.append(Statement(claim, holds, detail))

    # ------------------------------------------------------------------------------------------------ the layers

    def _layers(self, watch: Watch) -> list[LayerEffect]:
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

    def _gradients(self, watch: Watch) -> tuple[dict[str, float], str]:
        """Norm of the gradient of each layer's tensors, in training mode if the model can."""
        for training in (True, False):
            try:
                return self._gradients_in(watch, training), "" if training else " (in evaluation mode)"
            except (RuntimeError, ValueError) as error:
                note = f"{type(error).__name__}: {error}"
        return {}, f"; gradients could not be taken: {note}"

    def _gradients_in(self, watch: Watch, training: bool) -> dict[str, float]:
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
        self.statements.append(Statement("every layer that is reached acts", holds, detail))
        untrained = [layer.name for layer in layers if layer.verdict == "untrained"]
        change = distance(self.output, self.base_output)
        saved = any(isinstance(m, SavedModule) and self.name in m.adapters for _, m in adapted_modules(self.model))
        text = f"the outputs differ from the base's by {change:.2g}"
        if untrained:
            text += f"; at their initial values: {', '.join(untrained[:8])}"
        holds = not untrained and (change > 0 or (not layers and saved))
        self.statements.append(Statement("the adapter is trained", holds, text))

    # --------------------------------------------------------------------------------------------- the statements

    def _compare(self, outputs: list[Tensor], tolerance: float | None = None) -> tuple[bool, str]:
        tolerance = self.tolerance if tolerance is None else tolerance
        error = distance(outputs, self.output)
        effect = distance(self.output, self.base_output)
        return error <= tolerance, f"differ by {error:.2g} (allowed {tolerance:.0e}; the adapter does {effect:.2g})"

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
                plain = kind.from_pretrained(folder, dtype=next(self.model.parameters()).dtype)
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
