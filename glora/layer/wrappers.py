"""What stands in a model where a base module stood: it holds adapters by name, of which at most one is active.

`AdaptedLayer` stands for a linear or convolution layer, `SavedModule` for a module that is trained in full; merged
parameters are swapped in here and out again. To the code around it each looks like the module it stands for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from glora.config import LayerConfig
from glora.layer.adapter import Adapter, adapter_dtype
from glora.layer.effective import EffectiveTensor
from glora.layer.forward import is_traced

# (weight, bias) of a layer.
Parameters = tuple[nn.Parameter | None, nn.Parameter | None]
# Forms an effective tensor, or sees it formed.
Notice = Callable[[Callable[[], Tensor]], Tensor]

_MERGED = (
    "adapter {0!r} is merged into the weights: unmerge it first (glora.unmerge), or write the merged model with "
    "glora.export"
)


class Adapted(nn.Module):
    """A module of the base model with named replacements, of which at most one is active.

    Public attributes that it does not have are those of the module in use: ``layer.in_features``,
    ``patch_embeddings.patch_size``.

    Attributes:
        base: the original module.
        adapters: the replacements by name.
        active: name of the one in use; None computes the base model.
        merged: name of the one merged into `base`, or None.
        layer_name: where it stands in the model, for messages.
    """

    base: nn.Module
    adapters: nn.ModuleDict

    def __init__(self, base: nn.Module, layer_name: str = "") -> None:
        super().__init__()
        self.base = base
        self.layer_name = layer_name
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self.merged: str | None = None

    def select(self, name: str | None, *, trainable: bool = True) -> None:
        """Make the adapter called `name` the active one (None: the base) and the only one that trains."""
        self.active = name if name is not None and name in self.adapters else None
        for key, adapter in self.adapters.items():
            adapter.requires_grad_(trainable and key == self.active)

    def in_use(self) -> nn.Module:
        """The module whose attributes the wrapper shows."""
        return self.base

    def __getattr__(self, name: str) -> Any:
        """Own submodules, then the attributes of the module in use."""
        modules = self.__dict__.get("_modules", {})
        if name in modules:
            return modules[name]
        # Private names are hooks and marks of other libraries, which belong to the module they were put on.
        if name.startswith("_") or "base" not in modules:
            return super().__getattr__(name)
        if name in vars(type(self)):  # a property that raised
            raise AttributeError(f"{type(self).__name__}: {name} cannot be asked for now: {self._why_not(name)}")
        return getattr(self.in_use(), name)

    def _why_not(self, name: str) -> str:
        return "the module in use does not have it"


class AdaptedLayer(Adapted):
    """A linear or convolution layer with adapters; stands where the layer stood."""

    def __init__(self, base: nn.Module, layer_name: str = "") -> None:
        super().__init__(base, layer_name)
        self._originals: Parameters | None = None
        self.watch: Notice | None = None  # told when a parent reads the weight or the bias; for certify

    def add(self, name: str, config: LayerConfig, generator: torch.Generator | None = None) -> None:
        """Add an adapter; see `Adapter` for the errors."""
        self.adapters[name] = Adapter(config, self.base, generator).train(self.training)

    @property
    def weight(self) -> Tensor:
        """The weight that the layer computes with, W_eff with its gradient while an adapter is active.

        It is formed when it is computed with (see `EffectiveTensor`), without the adapter's dropout.
        """
        return weight_in_use(self._acting(), self.base, self._notice, self.layer_name)

    @property
    def bias(self) -> Tensor | None:
        """The bias that the layer computes with, likewise; None if there is none."""
        return bias_in_use(self._acting(), self.base, self._notice, self.layer_name)

    def _notice(self, make: Callable[[], Tensor]) -> Tensor:
        return make() if self.watch is None else self.watch(make)

    def _acting(self) -> Adapter | None:
        """The adapter that takes part in the computation."""
        if self.active is None or self.merged is not None:
            return None
        return self.adapters[self.active]  # type: ignore[return-value]

    @property
    def alpha(self) -> Tensor:
        """The scale 1 + A of the active adapter; see `Adapter.alpha`."""
        if self.active is None:
            raise AttributeError(_INACTIVE)
        return self.adapters[self.active].alpha  # type: ignore[return-value]

    @alpha.setter
    def alpha(self, value: Tensor | float) -> None:
        if self.active is None:
            raise ValueError(_INACTIVE)
        self._refuse_merged()
        self.adapters[self.active].alpha = value  # type: ignore[assignment]

    def _why_not(self, name: str) -> str:
        if name != "alpha" or self.active is None:
            return _INACTIVE
        return self.adapters[self.active]._no_alpha()  # type: ignore[operator]

    def forward(self, x: Tensor | None = None, **named: Tensor) -> Tensor:
        """The active adapter's output, or the base layer's; the input may be named as the base names it."""
        if x is None:
            x = _only_input(self.base, named)
        if self.active is None:
            return self.base(x)
        if self.merged is not None:
            return self._merged_forward(x)
        return self.adapters[self.active](x, self.base)

    def _merged_forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.base(x)
        if self.training and torch.is_grad_enabled() and self.merged is not None:
            anchor = next((p for p in self.adapters[self.merged].parameters() if p.requires_grad), None)
            if anchor is not None:
                return _NoTraining.apply(output, anchor, self.merged)
        return output

    def _save_to_state_dict(self, *args: Any) -> None:
        self._refuse_merged()
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._refuse_merged()
        super()._load_from_state_dict(*args)

    def _refuse_merged(self) -> None:
        """Raise ValueError while merged: a state dict would hold merged numbers under the base's names."""
        if self.merged is not None:
            raise ValueError(_MERGED.format(self.merged))

    def merged_parameters(self, name: str) -> Parameters:
        """Parameters of the base layer with the adapter called `name` inside; see `merged_parameters`."""
        return merged_parameters(self.adapters[name], self.base)  # type: ignore[arg-type]

    def swap_in(self, name: str, parameters: Parameters) -> None:
        """Put merged parameters into the base layer, keeping the original ones."""
        # Kept before the first change, so that swap_out mends a swap that was interrupted anywhere.
        self._originals = parameters_of(self.base)
        self.merged = name
        swap(self.base, parameters)

    def swap_out(self) -> None:
        """Give the base layer its original parameters back, if it has others."""
        if self._originals is not None:
            swap(self.base, self._originals)
        self._originals = self.merged = None


class SavedModule(Adapted):
    """A module trained in full (a classification head): a copy for each adapter beside the original."""

    def add(self, name: str) -> None:
        """Start the copy for the adapter called `name` at the original."""
        self.adapters[name] = copy.deepcopy(self.base)

    def in_use(self) -> nn.Module:
        """The active copy, or the original."""
        return self.base if self.active is None else self.adapters[self.active]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The active copy's output, or the original's."""
        module = self.base if self.active is None else self.adapters[self.active]
        return module(*args, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        """A member of the module in use, if that is an nn.Sequential."""
        return self.in_use()[index]  # type: ignore[index]


_INACTIVE = "alpha belongs to an adapter and none is active on this layer"


class _NoTraining(torch.autograd.Function):
    """The output of a merged layer in training mode: its adapter would get no gradient, so a backward pass says so."""

    @staticmethod
    def forward(ctx, output, anchor, name):
        ctx.name = name
        return output.view_as(output)

    @staticmethod
    def backward(ctx, grad):
        raise ValueError(f"cannot train: {_MERGED.format(ctx.name)}")


def _only_input(base: nn.Module, named: dict[str, Tensor]) -> Tensor:
    if len(named) != 1 or next(iter(named)) not in ("input", "x"):
        raise ValueError(f"an adapted {type(base).__name__} takes one input, got arguments named {sorted(named)}")
    return next(iter(named.values()))


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


def weight_in_use(
    adapter: Adapter | None, base: nn.Module, notice: Notice | None = None, layer_name: str = ""
) -> Tensor:
    """The weight that `base` computes with under an adapter; `notice` is called when it is formed."""
    original: Tensor = base.weight  # type: ignore[assignment]
    if adapter is None or not adapter.changes[0]:
        return original
    make = partial(adapter.effective_weight, base, adapter_dtype(original.dtype))
    return _in_use(adapter, make, original, notice, layer_name)


def bias_in_use(
    adapter: Adapter | None, base: nn.Module, notice: Notice | None = None, layer_name: str = ""
) -> Tensor | None:
    """The bias that `base` computes with under an adapter, likewise; None if it has none."""
    bias: Tensor | None = base.bias  # type: ignore[assignment]
    if adapter is None or not adapter.changes[1] or (bias is None and not adapter.adds_bias):
        return bias
    original: Tensor = base.weight  # type: ignore[assignment]
    like = original.new_empty(adapter.op.matrix(original).shape[0]) if bias is None else bias
    make = partial(adapter.effective_bias, base, adapter_dtype(original.dtype))
    return _in_use(adapter, make, like, notice, layer_name)  # type: ignore[arg-type]


def _in_use(
    adapter: Adapter, make: Callable[[], Tensor], like: Tensor, notice: Notice | None, layer_name: str
) -> Tensor:
    if torch.compiler.is_compiling() or is_traced():
        return make()  # what only asks for a dtype leaves nothing in the graph

    form = make if notice is None else partial(notice, make)
    return EffectiveTensor(like, form, any(p.requires_grad for p in adapter.parameters()), layer_name)


def parameters_of(base: nn.Module) -> Parameters:
    """The weight and bias that a layer has now."""
    return base._parameters["weight"], base._parameters["bias"]


def swap(base: nn.Module, parameters: Parameters) -> None:
    """Put (weight, bias) into a layer as its parameters.

    The parameters follow the layer to its device and dtype, which may have changed since they were made.
    """
    like = base._parameters["weight"]
    assert like is not None
    for parameter in parameters:
        if parameter is not None:
            parameter.data = parameter.data.to(like.device, like.dtype)
    base._parameters["weight"], base._parameters["bias"] = parameters


def swap_out_all(layers: Iterable[AdaptedLayer]) -> None:
    """Give layers their original parameters back; harmless to repeat, and for layers that have them."""
    for layer in layers:
        layer.swap_out()
