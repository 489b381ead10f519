"""The geometry of the layers that can be adapted, each seen as a matrix (out, in) acting on its input."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight


@dataclass(frozen=True)
class LinearOp:
    """y = x Wᵀ + b over the last dimension.

    Attributes:
        transposed: the layer keeps its weight as (in, out), as transformers' Conv1D does.
    """

    transposed: bool = False

    channels_last = True

    def matrix(self, weight: Tensor) -> Tensor:
        """The layer's weight as (out, in), a view."""
        return weight.t() if self.transposed else weight

    def to_weight(self, matrix: Tensor, like: Tensor) -> Tensor:
        """Inverse of `matrix`: a contiguous tensor with the shape and dtype of `like`."""
        return (matrix.t() if self.transposed else matrix).to(like.dtype).contiguous()

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (…, in), weight (out, in), bias (out,) → (…, out)."""
        return F.linear(x, weight, bias)

    def reduce(self, x: Tensor, right: Tensor) -> Tensor:
        """Apply the input-side factor: x (…, in), right (k, in) → (…, k)."""
        return F.linear(x, right)

    def expand(self, u: Tensor, left: Tensor, shift: Tensor | None) -> Tensor:
        """Apply the output-side factor: u (…, k), left (out, k), shift (out,) → (…, out)."""
        return F.linear(u, left, shift)

    def rows(self, v: Tensor) -> Tensor:
        """A vector over outputs, shaped to broadcast against the output."""
        return v

    def input_grad(self, grad: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Gradient with respect to x, given that of the output."""
        return grad @ weight

    def weight_grad(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Gradient with respect to the weight, (out, in)."""
        return grad.reshape(-1, grad.shape[-1]).t() @ x.reshape(-1, x.shape[-1])


@dataclass(frozen=True)
class ConvOp:
    """A 2-d convolution; its weight is handled as a matrix (out, in/groups · k · k).

    Attributes:
        kernel: shape of the weight without its first dimension, (in/groups, k, k).
        pad: explicit padding for `F.pad`, or None if `padding` says it all.
        pad_mode: mode of `F.pad`.
    """

    kernel: tuple[int, int, int]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    pad: tuple[int, ...] | None = None
    pad_mode: str = "constant"

    channels_last = False

    @classmethod
    def of(cls, conv: nn.Conv2d) -> ConvOp:
        """The geometry of a convolution layer."""
        _, channels, height, width = conv.weight.shape
        padding: tuple[int, ...] = (0, 0)
        pad: tuple[int, ...] | None = None
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            pad = tuple(conv._reversed_padding_repeated_twice)
        else:
            padding = tuple(conv.padding)
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        return cls((channels, height, width), conv.stride, padding, conv.dilation, conv.groups, pad, mode)

    def matrix(self, weight: Tensor) -> Tensor:
        """The layer's weight as (out, in/groups·k·k), a view."""
        return weight.flatten(1)

    def to_weight(self, matrix: Tensor, like: Tensor) -> Tensor:
        """Inverse of `matrix`: a contiguous tensor with the shape and dtype of `like`."""
        return matrix.reshape(like.shape).to(like.dtype).contiguous()

    def padded(self, x: Tensor) -> Tensor:
        """The input with its explicit padding."""
        return x if self.pad is None else F.pad(x, self.pad, mode=self.pad_mode)

    def unpadded(self) -> ConvOp:
        """The geometry for inputs that went through `padded`."""
        return dataclasses.replace(self, pad=None)

    def _geometry(self) -> tuple[Any, Any, Any, int]:
        return self.stride, self.padding, self.dilation, self.groups

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (n, in, h, w), weight (out, in/groups·k·k), bias (out,) → (n, out, h', w')."""
        return F.conv2d(self.padded(x), weight.reshape(-1, *self.kernel), bias, *self._geometry())

    def reduce(self, x: Tensor, right: Tensor) -> Tensor:
        """Apply the input-side factor to each group: right (k, in/groups·k·k) → (n, groups·k, h', w')."""
        right = right.reshape(-1, *self.kernel).repeat(self.groups, 1, 1, 1)
        return F.conv2d(self.padded(x), right, None, *self._geometry())

    def expand(self, u: Tensor, left: Tensor, shift: Tensor | None) -> Tensor:
        """Apply the output-side factor: u (n, groups·k, h', w'), left (out, k) → (n, out, h', w')."""
        return F.conv2d(u, left[:, :, None, None], shift, groups=self.groups)

    def rows(self, v: Tensor) -> Tensor:
        """A vector over output channels, shaped to broadcast against the output."""
        return v[:, None, None]

    def input_grad(self, grad: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Gradient with respect to x; `_EffectiveWeight` sees inputs that are padded already."""
        return conv2d_input(x.shape, weight.reshape(-1, *self.kernel), grad, *self._geometry())

    def weight_grad(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Gradient with respect to the weight, (out, in/groups·k·k)."""
        shape = (weight.shape[0], *self.kernel)
        return conv2d_weight(x, shape, grad, *self._geometry()).reshape(weight.shape)


Op = LinearOp | ConvOp

#: Dtypes that a weight can have, float8 and whole numbers not among them.
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

SUPPORTED = "nn.Linear and its subclasses, transformers' Conv1D, nn.Conv2d"


def op_for(module: nn.Module) -> Op | None:
    """The geometry of a layer, or None if it is not of a supported type."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dtype not in DTYPES or not_mergeable(module):
        return None  # quantised weights included
    if isinstance(module, nn.Linear):
        return LinearOp()
    if isinstance(module, nn.Conv2d):
        return ConvOp.of(module)
    if is_transformers_conv1d(module):
        return LinearOp(transposed=True)
    return None


def not_mergeable(module: nn.Module) -> str | None:
    """Why nothing can be merged into the weight of a layer of a supported type, with a remedy; None if it can be.

    The weight of such a layer is computed anew at each use (weight_norm, spectral_norm, orthogonal, pruning), is not
    there yet (LazyLinear) or is float8, so a merged one would be overwritten, have no place or be lost in rounding.
    """
    if not isinstance(module, (nn.Linear, nn.Conv2d)) and not is_transformers_conv1d(module):
        return None
    own = module._parameters
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in own.values()):
        return "it has no weight yet (a lazy module); run the model on a batch first"
    for name in ("weight", "bias"):
        if name not in own:
            return (
                f"its {name} is not a parameter but computed from others (weight_norm, spectral_norm, orthogonal, "
                "pruning …); make it plain first (torch.nn.utils.parametrize.remove_parametrizations, "
                "remove_weight_norm, remove_spectral_norm, prune.remove) or leave it out with "
                "overrides={name: LayerConfig()}"
            )
    dtype = own["weight"].dtype if own["weight"] is not None else torch.float32
    if dtype.is_floating_point and dtype not in DTYPES:
        return f"its weight is {dtype}, which no sum can be rounded to; convert the layer (layer.to(torch.bfloat16))"
    return None


def is_transformers_conv1d(module: nn.Module) -> bool:
    """True for GPT-2's linear layer, recognised by name so that transformers need not be imported."""
    return any(
        cls.__name__ == "Conv1D" and cls.__module__ == "transformers.pytorch_utils" for cls in type(module).__mro__
    )


def is_plain(module: nn.Module) -> bool:
    """True if the layer computes exactly its operation: no forward of its own, no hooks."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return False
    return type(module).forward in (nn.Linear.forward, nn.Conv2d.forward) or is_transformers_conv1d(module)
