"""What is attached to a model, kept on the model itself, and where it stands: submodules and other references.

A parent that keeps its layers in a plain list calls what is in the list, so the list has to hold what stands in the
model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

from torch import nn

from glora.layer.watching import Watch
from glora.layer.wrappers import Adapted, AdaptedLayer, SavedModule
from glora.model import statistics
from glora.model.targets import Selection

STATE = "_glora_state"
# What nn.Module keeps in its dictionary; the submodules among it are `state.replace`'s business.
_OWN = frozenset(vars(nn.Module()))
_DEPTH = 2


@dataclass
class State:
    """What is attached to a model.

    Attributes:
        adapters: what every adapter covers, by its name.
        active: name of the adapter in use, or None.
        merged: name of the adapter merged into the base weights, or None.
        trainable: names of the base parameters that were trainable before the first `attach`.
        base_buffers: the base's buffers before the first `attach`.
        buffers: the buffers that each adapter's training changed, as of when it was last active.
        unseen: modes (training or not) in which the model's first call is still to be watched.
        watch: what watches a call now.
    """

    adapters: dict[str, Selection] = field(default_factory=dict)
    active: str | None = None
    merged: str | None = None
    trainable: frozenset[str] = frozenset()
    base_buffers: statistics.Buffers = field(default_factory=dict)
    buffers: dict[str, statistics.Buffers] = field(default_factory=dict)
    unseen: set[bool] = field(default_factory=set)
    watch: Watch | None = None


def switch(model: nn.Module, name: str | None, *, trainable: bool = True) -> None:
    """Make another adapter the active one, and the only one that trains.

    Args:
        model: a model with adapters.
        name: which adapter; None computes the base model.
        trainable: whether the adapter's parameters get gradients.

    Raises:
        ValueError: there is no such adapter, or one is merged.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> other = glora.attach(model, glora.presets.lora(2, target=["0"]), "second")
    >>> glora.switch(model, "default")
    >>> glora.count_parameters(model).trainable
    192
    """
    state = require_state(model)
    if name is not None:
        require_adapter(state, name)
    if state.merged is not None and state.merged != name:
        raise ValueError(f"adapter {state.merged!r} is merged into the weights; unmerge it before switching")
    inner = unwrap(model)
    if name != state.active:
        # What the base's buffers became while no adapter was active is dropped: the base does not change.
        if state.active in state.adapters:
            state.buffers[state.active] = statistics.changed(inner, state.base_buffers)
        statistics.put(inner, state.base_buffers, state.buffers.get(name, {}) if name is not None else {})
        statistics.freeze_norms(inner, name is not None and state.adapters[name].norms == "frozen")
    for _, module in adapted_modules(model):
        module.select(name, trainable=trainable)
    state.active = name


def buffers_of(model: nn.Module, name: str) -> statistics.Buffers:
    """The buffers that differ from the base's under the adapter called `name`."""
    state = require_state(model)
    if name == state.active:
        return statistics.changed(unwrap(model), state.base_buffers)
    return state.buffers.get(name, {})


def set_buffers(model: nn.Module, name: str, buffers: statistics.Buffers) -> None:
    """Give the adapter called `name` these buffers; those not among them are the base's."""
    state = require_state(model)
    state.buffers[name] = {key: value.clone() for key, value in buffers.items()}
    if name == state.active:
        statistics.put(unwrap(model), state.base_buffers, buffers)


def require_intact(model: nn.Module, name: str) -> None:
    """Raise ValueError if a layer of the adapter called `name` is adapted no longer.

    Something has put another module in its place, as ``resize_token_embeddings`` does with an output layer.
    """
    selection = require_state(model).adapters[name]
    present = {key for key, module in adapted_modules(model) if name in module.adapters}
    lost = [key for key in (*selection.layers, *selection.saved) if key not in present]
    if lost:
        raise ValueError(
            f"adapter {name!r} covers {lost[0]!r}, but the module there was replaced after attach and is adapted no "
            "longer; change the model (resize_token_embeddings …) before glora.attach"
        )


def adapted_modules(model: nn.Module) -> Iterator[tuple[str, AdaptedLayer | SavedModule]]:
    """(name, module) of the adapted layers and saved modules, each once."""
    for name, module in unwrap(model).named_modules():
        if isinstance(module, (AdaptedLayer, SavedModule)):
            yield name, module


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, torch.compile and the like."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner


def get_state(model: nn.Module) -> State | None:
    """What is attached to the model, or None."""
    return getattr(unwrap(model), STATE, None)


def require_state(model: nn.Module) -> State:
    """What is attached to the model.

    Raises:
        ValueError: nothing is.
    """
    state = get_state(model)
    if state is None:
        raise ValueError("no adapter is attached to this model; call glora.attach or glora.load first")
    return state


def require_adapter(state: State, name: str | None) -> str:
    """`name` itself if there is such an adapter.

    Raises:
        ValueError: there is none.
    """
    if name is None:
        raise ValueError(f"no adapter is active; name one of {sorted(state.adapters)}")
    if not isinstance(name, str) or name not in state.adapters:
        raise ValueError(f"no adapter is called {name!r}; attached are {sorted(state.adapters)}")
    return name


def check_name(name: str) -> None:
    """Raise ValueError unless `name` can name an adapter (it becomes part of parameter names)."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name) or hasattr(nn.ModuleDict, name):
        raise ValueError(
            f"name={name!r} cannot name an adapter: only letters, digits, _ and -, and no method of ModuleDict"
        )


def replace(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Replace modules wherever they stand in the model (but not inside their own wrappers), in one walk.

    Args:
        model: the model.
        new: what comes in the place of each module.
    """
    for parent in [*model.modules(), *new.values()]:
        for key, child in list(parent._modules.items()):
            other = new.get(child) if child is not None else None
            if other is None or parent is other or (isinstance(parent, Adapted) and parent.base is child):
                continue
            parent._modules[key] = other


def relink(model: nn.Module, new: Mapping[int, nn.Module]) -> None:
    """Let plain attributes of modules (lists, tuples, tables and bound methods too) refer to the new modules.

    Args:
        model: the model.
        new: the new module by the ``id`` of the old one.
    """
    for module in model.modules():
        if isinstance(module, Adapted) or id(module) in new:
            continue
        for key, value in list(vars(module).items()):
            if key not in _OWN:
                linked = _linked(value, new, _DEPTH)
                if linked is not value:
                    object.__setattr__(module, key, linked)


def _linked(value: Any, new: Mapping[int, nn.Module], depth: int) -> Any:
    if isinstance(value, nn.Module):
        return new.get(id(value), value)
    if isinstance(value, MethodType) and id(value.__self__) in new:
        return getattr(new[id(value.__self__)], value.__name__)
    if depth and type(value) in (list, dict):
        for key, item in list(enumerate(value) if type(value) is list else value.items()):
            linked = _linked(item, new, depth - 1)
            if linked is not item:
                value[key] = linked
    if depth and type(value) is tuple:
        items = tuple(_linked(item, new, depth - 1) for item in value)
        return value if all(one is other for one, other in zip(items, value, strict=True)) else items
    return value
