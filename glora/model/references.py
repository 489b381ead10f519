"""References to a layer that are no submodules: a list of modules, a bound method, another name of its weight.

A parent that keeps its layers in a plain list calls what is in the list, so the list has to hold what stands in the
model. A parameter that another module has too is computed with there without the layer, hence without its adapter.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MethodType
from typing import Any

from torch import nn

from glora.layer.geometry import op_for
from glora.layer.wrappers import Adapted
from glora.model.targets import base_modules

# What nn.Module keeps in its dictionary; the submodules among it are `state.replace`'s business.
_OWN = frozenset(vars(nn.Module()))
_DEPTH = 2


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


def warn_of_aliases(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Warn once if a module that is no layer of its own computes, or may compute, with the weight of an adapted layer.

    An embedding or another linear layer that shares the weight does its own work with it, and is no reason to warn.

    Args:
        model: the model.
        layers: the adapted layers as they are in the base, by name.
    """
    weights = {id(layer._parameters["weight"]): name for name, layer in layers.items()}
    adapted = {id(layer) for layer in layers.values()}
    for key, module in base_modules(model):
        if id(module) in adapted or op_for(module) is not None or isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            continue
        held = list(module._parameters.items())
        held += [(name, value) for name, value in vars(module).items() if name not in _OWN]
        for attribute, value in held:
            items = (
                value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else [value]
            )
            for item in items:
                if isinstance(item, nn.Parameter) and id(item) in weights:
                    warnings.warn(
                        f"the weight of the adapted layer {weights[id(item)]!r} is also "
                        f"{f'{key}.{attribute}' if key else attribute}; what computes with it there ignores the "
                        "adapter (glora.certify tells): let it read the layer's weight, or leave the layer out",
                        stacklevel=4,
                    )
                    return
