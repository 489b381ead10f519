"""What training changes besides parameters: running statistics and other buffers, one set for each adapter.

The base's are copied at the first `attach` and put back by `disabled` and `detach`, bit for bit; an adapter's are those
that its training left, and are saved with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from glora.model.targets import base_modules

# Buffers of whole numbers with more entries are constants (masks, packed weights) and not worth a second copy.
_LARGEST = 1 << 20

Buffers = dict[str, Tensor]


def snapshot(model: nn.Module) -> Buffers:
    """Copies of the base's buffers, by name."""
    return {key: module._buffers[part].detach().clone() for key, module, part in _places(model)}  # type: ignore[union-attr]


def changed(model: nn.Module, base: Mapping[str, Tensor]) -> Buffers:
    """Copies of the buffers that differ from `base` now."""
    found: Buffers = {}
    for key, module, part in _places(model):
        live = module._buffers[part]
        assert live is not None
        if key in base and not _same(live, base[key]):
            found[key] = live.detach().clone()
    return found


@torch.no_grad()
def put(model: nn.Module, base: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Give the model's buffers the values in `own`, or else in `base`; in place where the shape allows."""
    for key, module, part in _places(model):
        value = own.get(key, base.get(key))
        live = module._buffers[part]
        assert live is not None
        if value is None or _same(live, value):
            continue
        if live.shape == value.shape and not live.is_meta:
            live.copy_(value)
        else:
            module._buffers[part] = value.to(live.device, live.dtype, copy=True)


def freeze_norms(model: nn.Module, frozen: bool) -> None:
    """Let normalisations with running statistics use them in training too, or let them be as they were."""
    for module in {id(module): module for _, module in base_modules(model)}.values():
        if not isinstance(module, _NormBase):
            continue
        for hooks, hook in ((module._forward_pre_hooks, _enter), (module._forward_hooks, _leave)):
            for key in [key for key, found in hooks.items() if found is hook]:
                del hooks[key]
        if frozen:
            module.register_forward_pre_hook(_enter)
            module.register_forward_hook(_leave, always_call=True)


def _enter(module: nn.Module, _: Any) -> None:
    module._glora_training, module.training = module.training, False  # type: ignore[assignment]


def _leave(module: nn.Module, *_: Any) -> None:
    module.training = bool(module.__dict__.pop("_glora_training", module.training))


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(name, module, name in the module) of the base's buffers."""
    for key, module in base_modules(model):
        for part, buffer in module._buffers.items():
            if buffer is not None and (buffer.is_floating_point() or buffer.numel() <= _LARGEST):
                yield (f"{key}.{part}" if key else part), module, part


def tensors(model: nn.Module, base_buffers: Mapping[str, Tensor]) -> Buffers:
    """Parameters and buffers of the base, adapted or not; buffers as in `base_buffers` where they are there."""
    found: Buffers = {}
    for key, module in base_modules(model):
        prefix = f"{key}." if key else ""
        for part, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                found[prefix + part] = tensor.detach()
    return {**found, **{key: value for key, value in base_buffers.items() if key in found}}


def different(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that differ in a bit, or are only in one of two sets."""
    keys = sorted(one.keys() | other.keys())
    return [key for key in keys if key not in one or key not in other or not equal(one[key], other[key])]


def equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree in shape, dtype and every number, NaN included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    other = other.to(one.device)
    return torch.equal(one, other) or bool((one.isnan() & other.isnan() | (one == other)).all())


def _same(one: Tensor, other: Tensor) -> bool:
    if one.is_meta or other.is_meta:
        return True
    return one.shape == other.shape and torch.equal(one, other.to(one.device, one.dtype))
