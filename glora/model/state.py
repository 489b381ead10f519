"""What is attached to a model: kept on the model itself, nothing is global."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from glora.layer.wrappers import Adapted, AdaptedLayer, SavedModule
from glora.model.targets import Selection

STATE = "_glora_state"


@dataclass
class State:
    """What is attached to a model.

    Attributes:
        adapters: what every adapter covers, by its name.
        active: name of the adapter in use, or None.
        merged: name of the adapter merged into the base weights, or None.
        trainable: names of the base parameters that were trainable before the first `attach`.
    """

    adapters: dict[str, Selection] = field(default_factory=dict)
    active: str | None = None
    merged: str | None = None
    trainable: frozenset[str] = frozenset()


def switch(model: nn.Module, name: str | None, *, trainable: bool = True) -> None:
    """Make another adapter the active one, and the only one that trains.

    Args:
        model: a model with adapters.
        name: which adapter; None computes the base model.
        trainable: whether the adapter's parameters get gradients.

    Raises:
        ValueError: there is no such adapter, or one is merged.
    """
    state = require_state(model)
    if name is not None:
        require_adapter(state, name)
    if state.merged is not None and state.merged != name:
        raise ValueError(f"adapter {state.merged!r} is merged into the weights; unmerge it before switching")
    for _, module in adapted_modules(model):
        module.select(name, trainable=trainable)
    state.active = name


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
    if name not in state.adapters:
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
