"""What stands in a model where a base module stood: it holds adapters by name, of which at most one is active.

`AdaptedLayer` stands for a linear or convolution layer, `SavedModule` for a module that is trained in full; merged
parameters are swapped in here and out again.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from glora.config import LayerConfig
from glora.layer.adapter import Adapter

# (weight, bias) of a layer.
Parameters = tuple[nn.Parameter | None, nn.Parameter | None]


class Adapted(nn.Module):
    """A module of the base model with named replacements, of which at most one is active.

    Attributes:
        base: the original module.
        adapters: the replacements by name.
        active: name of the one in use; None computes the base model.
        merged: name of the one merged into `base`, or None.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self.merged: str | None = None

    def select(self, name: str | None, *, trainable: bool = True) -> None:
        """Make the adapter called `name` the active one (None: the base) and the only one that trains."""
        self.active = name if name is not None and name in self.adapters else None
        for key, adapter in self.adapters.items():
            adapter.requires_grad_(trainable and key == self.active)


class AdaptedLayer(Adapted):
    """A linear or convolution layer with adapters; stands where the layer stood."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self._originals: Parameters | None = None

    def add(self, name: str, config: LayerConfig, generator: torch.Generator | None = None) -> None:
        """Add an adapter; see `Adapter` for the errors."""
        self.adapters[name] = Adapter(config, self.base, generator).train(self.training)

    @property
    def weight(self) -> Tensor:
        """The weight of the base layer, for code that looks at its dtype or device."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The bias of the base layer."""
        return self.base.bias  # type: ignore[return-value]

    @property
    def alpha(self) -> Tensor:
        """The scale 1 + A of the active adapter; see `Adapter.alpha`."""
        return self._active_adapter().alpha

    @alpha.setter
    def alpha(self, value: Tensor | float) -> None:
        self._active_adapter().alpha = value

    def _active_adapter(self) -> Adapter:
        if self.active is None:
            raise ValueError("alpha belongs to an adapter and none is active on this layer")
        return self.adapters[self.active]  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """The active adapter's output, or the base layer's."""
        if self.active is None or self.merged is not None:
            return self.base(x)
        return self.adapters[self.active](x, self.base)

    def merged_parameters(self, name: str) -> Parameters:
        """Parameters of the base layer with the adapter called `name` inside; see `merged_parameters`."""
        return merged_parameters(self.adapters[name], self.base)  # type: ignore[arg-type]

    def swap_in(self, name: str, parameters: Parameters) -> None:
        """Put merged parameters into the base layer, keeping the original ones."""
        self._originals = swap(self.base, parameters)
        self.merged = name

    def swap_out(self) -> None:
        """Give the base layer its original parameters back."""
        assert self._originals is not None
        swap(self.base, self._originals)
        self._originals = self.merged = None


class SavedModule(Adapted):
    """A module trained in full (a classification head): a copy for each adapter beside the original."""

    def add(self, name: str) -> None:
        """Start the copy for the adapter called `name` at the original."""
        self.adapters[name] = copy.deepcopy(self.base)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The active copy's output, or the original's."""
        module = self.base if self.active is None else self.adapters[self.active]
        return module(*args, **kwargs)


def merged_parameters(adapter: Adapter, base: nn.Module) -> Parameters:
    """Frozen (weight, bias) of `base` with `adapter` inside; `base` is unchanged.

    Raises:
        ValueError: a merged number is not finite.
    """
    weight, bias = adapter.effective(base)
    for kind, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and not torch.isfinite(tensor).all():
            raise ValueError(
                f"the merged {kind} has values that are not finite in {tensor.dtype}; "
                "the adapter has diverged or overflows this dtype"
            )
    frozen_bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return nn.Parameter(weight, requires_grad=False), frozen_bias


def swap(base: nn.Module, parameters: Parameters) -> Parameters:
    """Put (weight, bias) into a layer as its parameters and return those that were there.

    The parameters follow the layer to its device and dtype, which may have changed since they were made.
    """
    before = base._parameters["weight"], base._parameters["bias"]
    assert before[0] is not None
    for parameter in parameters:
        if parameter is not None:
            parameter.data = parameter.data.to(before[0].device, before[0].dtype)
    base._parameters["weight"], base._parameters["bias"] = parameters
    return before
