"""The weight and bias that a parent reads from an adapted layer: the effective ones, formed only when computed with.

Some modules never call their linear layers but compute with ``child.weight``: `nn.TransformerEncoderLayer` in
evaluation, Mamba's ``dt_proj``, WavLM's attention. An `EffectiveTensor` stands for the adapter's W_eff or b_eff there.
Its dtype, shape and device are those of the base and cost nothing; any operator gets the tensor itself, with its
gradient. A tensor of this kind also keeps PyTorch from its fused encoder layer, which would take the frozen numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# What can be asked without the numbers: methods and properties of a tensor that every supported torch has or not.
_METHODS = "dim ndimension size stride numel nelement element_size is_floating_point is_complex is_signed get_device"
_PROPERTIES = "dtype device shape ndim layout is_meta is_cuda is_cpu is_mps is_xpu is_sparse is_quantized is_nested"
_METADATA = frozenset(
    [getattr(Tensor, name) for name in f"{_METHODS} is_contiguous is_inference __len__".split()]
    + [getattr(Tensor, name).__get__ for name in f"{_PROPERTIES} itemsize nbytes is_leaf grad".split()]
    + [torch.numel, torch.is_floating_point, torch.is_complex]
)
_WRITES = frozenset(["__setitem__", "__set__"])


class EffectiveTensor(Tensor):
    """A tensor that is formed when an operator needs it.

    Args:
        like: a tensor of the same shape, dtype and device.
        make: forms the tensor, with gradient where gradients are recorded.
        trains: whether the tensor has a gradient to give.
        layer_name: the layer, for messages.
    """

    make: Callable[[], Tensor]
    trains: bool
    recorded: bool
    layer_name: str

    @staticmethod
    def __new__(  # noqa: D102
        cls, like: Tensor, make: Callable[[], Tensor], trains: bool, layer_name: str = ""
    ) -> EffectiveTensor:
        self = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=like.device, requires_grad=False)
        self.make, self.trains, self.recorded = make, trains, torch.is_grad_enabled()
        self.layer_name = layer_name
        return self

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what the base can answer; form the tensor for everything else."""
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func == Tensor.requires_grad.__get__:  # type: ignore[attr-defined]
            return args[0].trains and args[0].recorded
        name = getattr(func, "__name__", "")
        written = [kwargs.get("out")]
        if name in _WRITES or (name.endswith("_") and not name.endswith("__")):
            written += [*args[:1], kwargs.get("tensor")]
        for value in written:
            if isinstance(value, EffectiveTensor):
                raise ValueError(
                    f"{name} would write into the effective weight of {value.layer}, which is formed anew at each "
                    "use; write to layer.base.weight, or detach the adapter first"
                )
        if func in (Tensor.data.__get__, Tensor.detach):  # type: ignore[attr-defined]
            # Still not formed, so that asking for ``weight.data.dtype`` is free and writing to it is refused.
            return EffectiveTensor(args[0], args[0].make, False, args[0].layer_name)
        return func(*_formed(args), **_formed(kwargs))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Operators that bypass ``__torch_function__`` would lose the gradient.

        Raises:
            ValueError: always.
        """
        hidden = [v.layer for v in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(v, EffectiveTensor)]
        raise ValueError(
            f"{func} takes the weight of {', '.join(hidden[:1]) or 'an adapted layer'} in a way that hides it from "
            "autograd; call the layer, or merge the adapter first"
        )

    @property
    def layer(self) -> str:
        """What messages call the layer."""
        return f"the adapted layer {self.layer_name!r}" if self.layer_name else "an adapted layer"

    def form(self) -> Tensor:
        """The tensor itself."""
        if self.trains and self.recorded and not torch.is_grad_enabled():
            warnings.warn(
                f"the weight of {self.layer} was read where gradients are recorded and used where they are not (a "
                "custom autograd.Function?): the layer's adapter gets no gradient there; switch that fast path off",
                stacklevel=4,
            )
        formed = self.make()
        return formed if self.trains else formed.detach()


def _formed(value: Any) -> Any:
    if isinstance(value, EffectiveTensor):
        return value.form()
    if isinstance(value, (tuple, list)):
        return type(value)(map(_formed, value)) if type(value) in (tuple, list) else value
    if isinstance(value, dict):
        return {key: _formed(item) for key, item in value.items()}
    return value
