"""Merging: the adapter inside the base weights, exactly, and out again bit for bit.

Merged weights are formed in float64 and rounded once to the base's dtype: relative error ≤ 2⁻²⁴ of the
largest term in float32, ≤ 2⁻⁸ in bfloat16.  The original parameters are kept while an adapter is merged and
put back by `unmerge`; nothing is divided by 1 + A, so 1 + A = 0 is no exception.  The price is a second copy
of the adapted weights while merged.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from glora._digests import writing
from glora._files import as_path
from glora.layer.wrappers import AdaptedLayer, SavedModule, swap_out_all
from glora.model import first_calls, statistics
from glora.model.state import (
    STATE,
    adapted_modules,
    relink,
    replace,
    require_adapter,
    require_intact,
    require_state,
    switch,
    unwrap,
)
from glora.model.targets import base_modules


def merge(model: nn.Module, name: str | None = None) -> None:
    """Put an adapter into the base weights, so that the model runs at the base's speed.

    Merging the same adapter again changes nothing.  All merged weights are computed and checked before the
    first
    one is put in place: a failure leaves the model as it was.  A weight that is tied to another module's (an
    embedding) is untied while merged.

    Args:
        model: a model with adapters.
        name: which adapter; the active one if None.

    Raises:
        ValueError: there is no such adapter, another one is merged, or a merged weight is not finite.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> glora.merge(model)
    >>> glora.unmerge(model)
    >>> type(model[0]).__name__
    'AdaptedLayer'
    """
    state = require_state(model)
    name = require_adapter(state, name or state.active)
    if state.merged == name:
        return
    if state.merged is not None:
        raise ValueError(f"adapter {state.merged!r} is merged already; unmerge it before merging {name!r}")
    require_intact(model, name)
    layers = [(key, m) for key, m in adapted_modules(model) if isinstance(m, AdaptedLayer) and name in m.adapters]
    merged = []
    for key, layer in layers:
        try:
            merged.append(layer.merged_parameters(name))
        except ValueError as error:
            raise ValueError(f"layer {key!r}: {error}") from error
    if state.active != name:
        switch(model, name)
    try:
        for (_, layer), parameters in zip(layers, merged, strict=True):
            layer.swap_in(name, parameters)
        state.merged = name
    except BaseException:  # an interrupt too
        swap_out_all(layer for _, layer in layers)
        state.merged = None
        raise


def unmerge(model: nn.Module) -> None:
    """Put the original weights back, bit for bit; nothing happens if no adapter is merged.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> glora.merge(model)
    >>> glora.unmerge(model)
    >>> type(model[0]).__name__
    'AdaptedLayer'
    """
    state = require_state(model)
    swap_out_all(module for _, module in adapted_modules(model) if isinstance(module, AdaptedLayer))
    state.merged = None


@contextmanager
def merged(model: nn.Module, name: str | None = None) -> Iterator[None]:
    """Inside the ``with`` block the adapter is merged: inference at the base's speed, e.g. for evaluation.

    >>> import glora
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> with glora.merged(model):
    ...     outputs = model(torch.zeros(1, 16))
    >>> tuple(outputs.shape)
    (1, 4)
    """
    before = require_state(model).merged
    merge(model, name)
    try:
        yield
    finally:
        if before is None:
            unmerge(model)


@contextmanager
def unmerged(model: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block a merged adapter is out of the weights; nothing changes if none is merged."""
    name = require_state(model).merged
    unmerge(model)
    try:
        yield
    finally:
        if name is not None:
            merge(model, name)


def merged_copy(model: nn.Module, name: str | None = None) -> nn.Module:
    """A plain copy of the model with the adapter in its weights: no trace of glora, nothing frozen.

    Layers without a bias have one in the copy if C or E asks for it.

    Args:
        model: a model with adapters; unchanged.
        name: which adapter; the active one if None.

    Raises:
        ValueError: see `merge`.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> plain = glora.merged_copy(model)
    >>> type(plain[0]).__name__, type(model[0]).__name__
    ('Linear', 'AdaptedLayer')
    """
    state = require_state(model)
    name = require_adapter(state, name or state.active)
    plain = copy.deepcopy(unwrap(model))
    ties = _ties(plain)
    merge(plain, name)
    found: dict[nn.Module, nn.Module] = {}
    for _, module in adapted_modules(plain):
        trained_in_full = isinstance(module, SavedModule) and name in module.adapters
        found[module] = module.adapters[name] if trained_in_full else module.base
    replace(plain, found)
    relink(plain, {id(module): new for module, new in found.items()})
    first_calls.stop(plain)
    delattr(plain, STATE)
    statistics.freeze_norms(plain, False)
    _report_untied(plain, ties)
    return plain.requires_grad_(True)


def _ties(model: nn.Module) -> list[list[str]]:
    """Groups of names that stand for one parameter of the base."""
    names: dict[int, list[str]] = {}
    for key, module in base_modules(model):
        for part, parameter in module._parameters.items():
            if parameter is not None:
                names.setdefault(id(parameter), []).append(f"{key}.{part}" if key else part)
    return [group for group in names.values() if len(group) > 1]


def _report_untied(plain: nn.Module, ties: list[list[str]]) -> None:
    """Warn of parameters that were one in the base and are several now; transformers' flag follows."""
    now = dict(plain.named_parameters(remove_duplicate=False))
    untied = [group for group in ties if len({id(now[name]) for name in group if name in now}) > 1]
    if not untied:
        return
    for config in (getattr(plain, "config", None), getattr(getattr(plain, "config", None), "text_config", None)):
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False  # type: ignore[union-attr]
    warnings.warn(
        f"{' and '.join(untied[0])} are one parameter in the base and differ with the adapter inside; a class that "
        "ties them loads one for both, silently wrong: build it untied (transformers: tie_word_embeddings=False, set "
        "here), or leave tied layers out of the target",
        stacklevel=3,
    )


def export(model: nn.Module, folder: str | Path, name: str | None = None) -> list[str]:
    """Write the merged model as a plain checkpoint that loads without glora.

    A transformers model is written by its own ``save_pretrained``; any other model as ``model.safetensors``
    for ``load_state_dict``.

    Args:
        model: a model with adapters; unchanged.
        folder: where to write.
        name: which adapter; the active one if None.

    Returns:
        Names of the layers that have a bias in the checkpoint and had none in the base.  An architecture that
        builds these layers without a bias drops it when loading, so a warning names them: give them a bias
        first (Llama: ``attention_bias=True``, ``mlp_bias=True`` in its config), or train without C and E.

    >>> import glora
    >>> import os, tempfile
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> report = glora.attach(model, glora.presets.lora(4, target=["0"]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = glora.export(model, folder)
    ...     files = sorted(os.listdir(folder))
    >>> files
    ['model.safetensors']
    """
    name = require_adapter(require_state(model), name or require_state(model).active)
    plain = merged_copy(model, name)
    had_bias = {
        key: layer.base.bias is not None for key, layer in adapted_modules(model) if isinstance(layer, AdaptedLayer)
    }
    added = [key for key, had in had_bias.items() if not had and plain.get_submodule(key).bias is not None]
    if added:
        warnings.warn(
            f"{len(added)} layers have a bias in this checkpoint and had none in the base "
            f"({', '.join(added[:3])} …); the architecture must be built with a bias there to load it",
            stacklevel=2,
        )
    folder = as_path("folder", folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_pretrained = getattr(plain, "save_pretrained", None)
    if callable(save_pretrained):
        with writing(folder):
            save_pretrained(folder)
        return added
    from safetensors.torch import save_model

    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
    os.close(handle)
    try:
        with writing(folder / "model.safetensors"):
            save_model(plain, temporary)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only the owner can read
        os.replace(temporary, folder / "model.safetensors")
    finally:
        Path(temporary).unlink(missing_ok=True)
    return added
