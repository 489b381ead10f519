"""The steps of a whole model: measured on a batch, estimated from the weights, read and restored.

>>> glora.attach(model, glora.presets.glora(4))  # steps estimated from the weights    # doctest: +SKIP
>>> glora.balance(model, batch)  # measured: before the first training step  # doctest: +SKIP
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glora.config import LayerConfig
from glora.layer import steps as rule
from glora.layer.adapter import Adapter
from glora.layer.steps import Moments
from glora.layer.wrappers import AdaptedLayer
from glora.model import first_calls
from glora.model.state import adapted_modules, get_state, require_adapter, require_state, unwrap

#: Steps by layer and tensor, ``{"blocks.0.attn.qkv": {"A": 31.2, "B": 1.0}}``.
Steps = dict[str, dict[str, float]]
#: How a batch is put through a model.
Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Place:
    """An adapter and where it stands: its name in the model, the module that is called, and the layer it adapts."""

    name: str
    module: nn.Module
    adapter: Adapter
    base: nn.Module


def balance(model: nn.Module, data: Any, name: str | None = None, *, forward: Forward | None = None) -> Steps:
    """Measure the steps of an adapter on data, and set them; see `glora.layer.steps` for the rule.

    Call it before training. What the model computes stays what it is, up to rounding; labels are not used, the model is
    asked in evaluation mode, and its modes and torch's random numbers are left as they were.

    Args:
        model: a model with adapters, none merged.
        data: a batch (a tensor; a tuple of arguments; a mapping of keyword arguments), or an iterable of batches such
            as a DataLoader, all of which are used.
        name: which adapter; the active one if None.
        forward: how to put a batch through the model, ``forward(model, batch)``, if it is not one of these calls.

    Returns:
        The steps by layer and tensor.

    Raises:
        ValueError: there is no such adapter or it is not active, one is merged, or there is no batch.

    Warns:
        UserWarning: once, for layers that no input reached or whose inputs were all zero or not finite (their tensors
            have step 1), and tensors that move nothing (D on a zero bias).

    >>> import glora
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.GLoRAConfig(A="vector", B="lora", rank=4, target=["0"]))
    >>> steps = glora.balance(model, torch.randn(8, 16))
    >>> sorted(steps["0"]), steps["0"]["B"]
    (['A', 'B'], 1.0)
    """
    state = require_state(model)
    name = require_adapter(state, name or state.active)
    if state.merged is not None or state.active != name:
        raise ValueError(f"adapter {name!r} must be active and none merged; call glora.switch or glora.unmerge first")
    places = places_of(model, name)
    moments = measure(model, places, data, forward)
    silent = [place.name for place in places if place.name not in moments or not moments[place.name].usable]
    found = set_factors(places, moments)
    still = [f"{key}.{tensor}" for key, tensor in _unmoved(places, moments)]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})"
        for what, names in (
            ("layers got no input, or inputs that are zero or not finite", silent),
            ("tensors move nothing", still),
        )
        if names
    ]
    if problems:
        warnings.warn("a step of 1 where nothing could be measured: " + "; ".join(problems), stacklevel=2)
    return found


def estimate(model: nn.Module, name: str) -> Steps:
    """Set the steps that the weights alone suggest (centred inputs of rms 1); layers on the meta device get 1."""
    places = places_of(model, name)
    here = [place for place in places if not place.base.weight.is_meta]
    return set_factors(places, {place.name: rule.assumed(place.adapter.op, place.base) for place in here})


def steps_of(model: nn.Module, name: str | None = None) -> Steps:
    """The steps of an adapter (the active one if None) by layer and tensor; layers without ("raw") are left out."""
    state = get_state(model)
    if state is None:  # nothing is attached: full fine-tuning
        return {}
    places = places_of(model, require_adapter(state, name or state.active))
    return {place.name: place.adapter.steps for place in places if place.adapter.stepped}


def restore_steps(model: nn.Module, steps: Mapping[str, Mapping[str, float]], name: str | None = None) -> None:
    """Set stored steps under numbers that were trained with them; they are loaded next. Layers not named are raw."""
    state = get_state(model)
    if state is None:
        return
    for place in places_of(model, require_adapter(state, name or state.active)):
        place.adapter.steps = steps.get(place.name, {})
        place.adapter.stepped = place.name in steps


def adopt_steps(model: nn.Module, steps: Mapping[str, Mapping[str, float]]) -> None:
    """Set steps that another process measured on its copy of the model; what the model computes stays what it is."""
    seen: set[int] = set()
    for place in places_of(model, str(require_state(model).active)):
        rule.apply(place.adapter, place.base, steps.get(place.name, {}), seen)


def check_steps(layers: Mapping[str, LayerConfig], steps: Mapping[str, Any]) -> None:
    """Raise ValueError unless `steps` are positive numbers for tensors of these layers."""
    for key, values in steps.items():
        if key not in layers or not isinstance(values, Mapping):
            raise ValueError(f"there are steps for layer {key!r}, which the adapter does not adapt")
        for tensor, value in values.items():
            if getattr(layers[key], str(tensor)[:1], "none") == "none":
                raise ValueError(f"there is a step for {key}.{tensor}, which the adapter does not have")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"the step of {key}.{tensor} is {value!r}, not a positive number")


def places_of(model: nn.Module, name: str) -> list[Place]:
    """The adapters called `name` and where they stand."""
    return [
        Place(key, module, module.adapters[name], module.base)  # type: ignore[arg-type]
        for key, module in adapted_modules(model)
        if isinstance(module, AdaptedLayer) and name in module.adapters
    ]


def measure(model: nn.Module, places: Iterable[Place], data: Any, forward: Forward | None = None) -> dict[str, Moments]:
    """The moments of the layers that inputs reach, by name; see `balance`."""
    found: dict[str, Moments] = {}

    def watch(place: Place) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor) and args[0].numel() and not args[0].is_meta:
                one = rule.measured(place.adapter.op, place.base, args[0].detach())
                found[place.name] = found[place.name].plus(one) if place.name in found else one

        return place.module.register_forward_pre_hook(hook)

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    hooks = [watch(place) for place in places]
    empty = True
    try:
        with _undisturbed(model), first_calls.unwatched(model), torch.no_grad():
            for batch in _batches(data):
                (forward or _call)(model, _to(batch, device))
                empty = False
    finally:
        for handle in hooks:
            handle.remove()
    if empty:
        raise ValueError("balance got no batch: the data it was given are empty")
    return found


def set_factors(places: Iterable[Place], moments: Mapping[str, Moments]) -> Steps:
    """Set the steps that these moments give; 1 in layers without. Layers that share a tensor get one step for it."""
    places, found = list(places), {}
    for place in places:
        known = moments.get(place.name)
        found[place.name] = (
            dict.fromkeys(place.adapter.step_names, 1.0)
            if known is None
            else rule.factors(place.adapter, place.base, known)
        )
    return _apply(places, found)


def unify(model: nn.Module) -> None:
    """One step for layers of the active adapter that have come to share a tensor (see `share_alpha`)."""
    name = require_state(model).active
    places = [place for place in places_of(model, str(name)) if place.adapter.stepped]
    _apply(places, {place.name: place.adapter.steps for place in places})


def _apply(places: Sequence[Place], found: Steps) -> Steps:
    shared: dict[int, list[tuple[str, str]]] = {}
    for place in places:
        for tensor, parameter in place.adapter.started_at_zero.items():
            shared.setdefault(id(parameter), []).append((place.name, tensor))
    for group in shared.values():
        if len(group) > 1:
            # One number moves all these layers: their mean square effect, in units of their references, is 1.
            common = sum(found[key][tensor] ** -2 for key, tensor in group) / len(group)
            for key, tensor in group:
                found[key][tensor] = common**-0.5
    seen: set[int] = set()
    for place in places:
        rule.apply(place.adapter, place.base, found[place.name], seen)
    return found


def _unmoved(places: Iterable[Place], moments: Mapping[str, Moments]) -> Iterator[tuple[str, str]]:
    for place in places:
        known = moments.get(place.name)
        for tensor, structure in place.adapter.step_names.items():
            whole = "." not in tensor  # a supernet's slices follow it
            if known is not None and known.usable and whole:
                moved = rule.moves(place.adapter, place.base, tensor, structure, known)
                yield from [] if moved else [(place.name, tensor)]


def _batches(data: Any) -> Iterator[Any]:
    one = isinstance(data, (Tensor, Mapping, tuple)) or hasattr(data, "keys")  # keys: transformers' BatchEncoding
    yield from (data,) if one else data


def _call(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return model(batch)
    return model(**batch) if isinstance(batch, Mapping) else model(*batch)


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if hasattr(batch, "keys"):
        return {key: _to(batch[key], device) for key in batch.keys()}  # noqa: SIM118 (BatchEncoding iterates values)
    return tuple(_to(one, device) for one in batch) if isinstance(batch, (tuple, list)) else batch


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the ``with`` block; modes and random numbers afterwards as they were."""
    modes = {module: module.training for module in unwrap(model).modules()}
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
