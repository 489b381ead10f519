"""Whether an operator takes the frozen weight of an adapted layer past its adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from glora.layer.geometry import op_for
from glora.layer.wrappers import AdaptedLayer


class Watch(TorchDispatchMode):
    """Sees the operators of a model while it runs inside the ``with`` block.

    An operator that takes a layer's frozen weight while neither the layer's adapter nor the forming of its effective
    weight is at work bypasses the adapter. A module that shares the weight, an embedding or another linear layer, does
    work of its own with it.

    Args:
        layers: adapted layers by name.
        name: the adapter.
        modules: the modules of the base model.

    Attributes:
        layers: see there.
        bypassed: layers whose frozen weight an operator took, with that operator's name.
    """

    def __init__(self, layers: Mapping[str, AdaptedLayer], name: str, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = {key: layer for key, layer in layers.items() if name in layer.adapters}
        self.bypassed: dict[str, str] = {}
        self._name, self._inside = name, 0
        self._storages = {storage(layer.base.weight): key for key, layer in self.layers.items()}
        self._storages.pop(0, None)
        self._hooks: list[Any] = []
        own = {id(layer.base) for layer in self.layers.values()}
        self._sharers = [
            module
            for module in {id(module): module for module in modules}.values()
            if id(module) not in own
            and (op_for(module) is not None or isinstance(module, (nn.Embedding, nn.EmbeddingBag)))
            and any(storage(p) in self._storages for p in module._parameters.values() if p is not None)
        ]

    def __enter__(self) -> Watch:
        """Start to watch."""
        # Not by hooks on the layers, which a parent that calls ``layer.forward`` would not run.
        for key, layer in self.layers.items():
            adapter: Any = layer.adapters[self._name]
            adapter.forward = partial(self._called, key, adapter)
            layer.watch = partial(self._read, key)
        for module in self._sharers:
            self._hooks.append(module.register_forward_pre_hook(self._enter))
            self._hooks.append(module.register_forward_hook(self._leave, always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop."""
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        for layer in self.layers.values():
            layer.watch = None
            vars(layer.adapters[self._name]).pop("forward", None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See every operator."""
        if not self._inside and self._storages and not _is_view(func):
            for value in torch.utils._pytree.tree_leaves((args, kwargs)):
                if isinstance(value, Tensor):
                    key = self._storages.get(storage(value))
                    if key is not None:
                        self.bypassed.setdefault(key, str(func))
        return func(*args, **(kwargs or {}))

    def _enter(self, *_: Any) -> None:
        self._inside += 1

    def _leave(self, *_: Any) -> None:
        self._inside -= 1

    def _read(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        self._inside += 1
        try:
            return make()
        finally:
            self._inside -= 1

    def _called(self, key: str, adapter: Any, x: Tensor, base: nn.Module) -> Tensor:
        self._inside += 1
        try:
            output: Tensor = type(adapter).forward(adapter, x, base)
            return self._seen(key, adapter, x, base, output)
        finally:
            self._inside -= 1

    def _seen(self, key: str, adapter: Any, x: Tensor, base: nn.Module, output: Tensor) -> Tensor:
        """Called with the output of every layer."""
        return output


def storage(tensor: Any) -> int:
    """What tells the memory of a tensor; 0 for one that is not laid out in memory."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return 0


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write
