"""The search space of a model: the layers that a target names, with their shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from glora.config import GLoRAConfig, Target
from glora.engines.space import SearchLayer, SearchSpace
from glora.model.report import describe
from glora.model.targets import base_modules, select


def space_of(
    model: nn.Module,
    rank: int,
    target: Target = "all-linear",
    *,
    modules_to_save: Sequence[str] = (),
    structures: Mapping[str, Sequence[str]] | None = None,
) -> SearchSpace:
    """The space over the layers of a model that `target` names (see `GLoRAConfig`).

    Raises:
        ValueError: the target matches nothing, or see `SearchSpace`.
    """
    config = GLoRAConfig(target=target, E="vector", rank=rank, modules_to_save=modules_to_save)
    selection = select(model, config)
    modules = dict(base_modules(model))
    layers = tuple(
        SearchLayer(layer.name, layer.out_features, layer.in_features, modules[layer.name].bias is not None)
        for layer in describe(model, selection).layers
    )
    return SearchSpace(layers, rank, structures)
