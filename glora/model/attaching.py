"""Adapters on a model: attach, disable, detach, count.

`attach` replaces every targeted layer by an `AdaptedLayer` that stands where the layer stood, so the model
keeps its class and its methods.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from glora._checks import fits_memory
from glora.config import GLoRAConfig
from glora.layer.adapter import Adapter
from glora.layer.wrappers import AdaptedLayer, SavedModule
from glora.model import first_calls, statistics
from glora.model.balancing import estimate
from glora.model.merging import unmerge, unmerged
from glora.model.report import Report, describe
from glora.model.state import (
    STATE,
    State,
    adapted_modules,
    check_name,
    get_state,
    relink,
    replace,
    require_adapter,
    require_state,
    switch,
    unwrap,
)
from glora.model.targets import Selection, base_modules, is_inside, select


def attach(
    model: nn.Module,
    config: GLoRAConfig,
    name: str = "default",
    *,
    generator: torch.Generator | None = None,
) -> Report:
    """Put an adapter on a model, in place, make it the active one and freeze everything else.

    Unless ``config.steps`` is "raw", its tensors have the steps that the weights suggest; `glora.balance` measures
    better ones.

    Args:
        model: any PyTorch model; other adapters may be attached already.
        config: which layers, and how; see `GLoRAConfig` and `glora.presets`.
        name: name of the adapter.
        generator: source of the random factors (on the CPU); torch's global generator if None.

    Returns:
        Which layers got which tensors, and how many parameters; ``str(report)`` is a table.

    Raises:
        ValueError: `config` matches nothing or something unsupported, the name is taken, or an adapter is
            merged. The model is left as it was.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> len(report.layers), report.trainable
    (1, 192)
    """
    if not isinstance(config, GLoRAConfig):
        raise ValueError(f"config must be a GLoRAConfig, got {type(config).__name__}; see glora.presets")
    model = unwrap(model)
    selection = select(model, config)
    report = attach_selection(model, selection, name, generator=generator)
    if config.steps != "raw":
        estimate(model, name)
    idle = sum(
        config.layer_for(layer.name).D != "none" and not layer.config.tie_a_d and layer.parameters["D"] == 0
        for layer in report.layers
    )
    if idle:
        warnings.warn(
            f"D scales the bias, which {idle} of {len(report.layers)} adapted layers do not have; "
            "D has no parameters there",
            stacklevel=2,
        )
    return report


def attach_selection(
    model: nn.Module, selection: Selection, name: str, *, generator: torch.Generator | None = None
) -> Report:
    """`attach` for layers that are named one by one already, as a checkpoint names them; all steps are 1."""
    check_name(name)
    state = get_state(model)
    if state is not None and name in state.adapters:
        raise ValueError(f"an adapter called {name!r} is attached already; detach it or take another name")
    if state is not None and state.merged is not None:
        raise ValueError(f"adapter {state.merged!r} is merged into the weights; unmerge it first")
    present = dict(adapted_modules(model))
    _check_overlap(selection, present)
    report = describe(model, selection)
    modules = dict(base_modules(model))
    if not any(parameter.is_meta for parameter in model.parameters()):
        fits_memory(
            f"an adapter of {report.adapter_parameters:,} numbers", 4.0 * report.adapter_parameters, "lower rank"
        )
    # Everything that can fail comes before the first change.
    adapters = {key: Adapter(layer, modules[key], generator) for key, layer in selection.layers.items()}
    before = None if state is None else state.active
    try:
        state = state or _start(model)
        _put(model, selection, name, adapters, modules, present)
        state.adapters[name] = selection
        relink(model, {id(m.base): m for _, m in adapted_modules(model)})
        switch(model, name)
    except BaseException:  # an interrupt too
        _remove(model, [name], before)
        raise
    first_calls.watch(model)
    return report


def _start(model: nn.Module) -> State:
    """Freeze a model without adapters, and note what it is."""
    trainable = frozenset(key for key, p in model.named_parameters() if p.requires_grad)
    state = State(trainable=trainable, base_buffers=statistics.snapshot(model))
    setattr(model, STATE, state)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return state


def _put(
    model: nn.Module,
    selection: Selection,
    name: str,
    adapters: Mapping[str, Adapter],
    modules: Mapping[str, nn.Module],
    present: Mapping[str, AdaptedLayer | SavedModule],
) -> None:
    """Put adapters and copies into the model, in wrappers that stand there already or are new."""
    wrappers: dict[nn.Module, nn.Module] = {}
    for key, adapter in adapters.items():
        layer = present.get(key)
        if layer is None:
            layer = wrappers[modules[key]] = AdaptedLayer(modules[key], key)
            layer.train(modules[key].training)
        layer.adapters[name] = adapter.train(layer.training)
    for key in selection.saved:
        wrapper = present.get(key)
        if wrapper is None:
            wrapper = wrappers[modules[key]] = SavedModule(modules[key], key)
            wrapper.train(modules[key].training)
        assert isinstance(wrapper, SavedModule)
        wrapper.add(name)
    replace(model, wrappers)


def _check_overlap(selection: Selection, present: Mapping[str, AdaptedLayer | SavedModule]) -> None:
    """Raise ValueError if a module that one adapter trains in full holds a layer that another one adapts."""
    for other, module in present.items():
        if isinstance(module, SavedModule):
            clashes = [key for key in selection.layers if is_inside(key, other)]
        else:
            clashes = [key for key in selection.saved if is_inside(other, key)]
        if clashes:
            raise ValueError(
                f"{clashes[0]!r} and {other!r} overlap: another adapter of this model has one of them trained in "
                "full and the other adapted; treat the module alike in both adapters"
            )


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block the model computes what it did before adapters, merged or not.

    >>> import glora
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.alpha_lora(rank=4, target=["0"]))
    >>> x = torch.ones(1, 16)
    >>> with glora.disabled(model):
    ...     base = model(x)
    >>> bool((base == model(x)).all())  # untrained: the same outputs
    True
    """
    active = require_state(model).active
    flags = {parameter: parameter.requires_grad for parameter in unwrap(model).parameters()}
    with unmerged(model):
        switch(model, None)
        try:
            yield
        finally:
            switch(model, active)
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)


def detach(model: nn.Module, name: str | None = None) -> None:
    """Remove one adapter, or all of them; with the last one the model is what it was before `attach`.

    A merged adapter is unmerged first; `glora.merged_copy` gives a plain model with the adapter inside.

    Raises:
        ValueError: there is no such adapter.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> glora.detach(model)
    >>> type(model[0]).__name__
    'Linear'
    """
    state = require_state(model)
    model = unwrap(model)
    removed = [require_adapter(state, name)] if name is not None else list(state.adapters)
    if state.merged in removed:
        unmerge(model)
    _remove(model, removed, state.active)


def _remove(model: nn.Module, names: Iterable[str], active: str | None) -> None:
    """Take adapters out of the model, those that are only half in too; `active` goes on if it stays."""
    state = get_state(model)
    if state is None:
        return
    names = set(names)
    bases: dict[nn.Module, nn.Module] = {}
    for _, module in list(adapted_modules(model)):
        for key in names & set(module.adapters):
            del module.adapters[key]
        if not module.adapters:
            bases[module] = module.base
    replace(model, bases)
    relink(model, {id(module): base for module, base in bases.items()})
    for key in names:
        state.adapters.pop(key, None)
    if state.adapters:
        if state.active != active or active in names:
            switch(model, active if active in state.adapters else next(iter(state.adapters)))
        for key in names:
            state.buffers.pop(key, None)
        return
    statistics.put(model, state.base_buffers, {})
    statistics.freeze_norms(model, False)
    first_calls.stop(model)
    delattr(model, STATE)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key in state.trainable)


def count_parameters(
    model_or_config: nn.Module | GLoRAConfig, model: nn.Module | None = None, *, name: str | None = None
) -> Report:
    """Trainable parameters per layer, per tensor and per layer type.

    Args:
        model_or_config: a model with adapters, or a configuration to be counted on `model` without attaching
            it.
        model: the model for a configuration (a model on the meta device will do).
        name: which adapter of a model; the active one if None.

    Raises:
        ValueError: a configuration without a model, or a model without that adapter.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.alpha_lora(rank=4, target=["0"]))
    >>> glora.count_parameters(model).trainable
    224
    """
    if isinstance(model_or_config, GLoRAConfig):
        if model is None:
            raise ValueError("a configuration has no shapes: count_parameters(config, model) counts it on a model")
        return describe(unwrap(model), select(unwrap(model), model_or_config))
    state = require_state(model_or_config)
    return describe(unwrap(model_or_config), state.adapters[require_adapter(state, name or state.active)])


def alphas(model: nn.Module) -> dict[str, Tensor]:
    """The scale ``alpha = 1 + A`` of every layer whose active adapter has a scalar or vector A, by layer
    name.

    To set them, assign to the layers: ``model.get_submodule(name).alpha = value``.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.alpha_lora(rank=4, target=["0"]))
    >>> {name: tuple(scale.shape) for name, scale in glora.alphas(model).items()}
    {'0': (32,)}
    """
    require_state(model)
    found = {}
    for name, module in adapted_modules(model):
        if isinstance(module, AdaptedLayer) and module.active is not None:
            adapter = module.adapters[module.active]
            if isinstance(adapter, Adapter) and adapter.config.A in ("scalar", "vector"):
                found[name] = adapter.alpha
    return found
