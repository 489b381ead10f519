"""What stands in a model under PEFT's protocol where a module of the base stood: adapted layers and normalisations."""

from __future__ import annotations

from typing import Any, cast

from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from glora.config import LayerConfig
from glora.layer.adapter import Adapter
from glora.layer.wrappers import Parameters, bias_in_use, merged_parameters, parameters_of, swap, weight_in_use

NAME = "glora_peft"
ADAPTERS = f"{NAME}_adapters"


class Tuned(nn.Module, BaseTunerLayer):
    """A module of the base with something of each adapter, under PEFT's protocol."""

    adapter_layer_names = (ADAPTERS,)
    other_param_names = ()

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        setattr(self, ADAPTERS, nn.ModuleDict())
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter: str | list[str] = []

    @property
    def _adapters(self) -> nn.ModuleDict:
        return getattr(self, ADAPTERS)

    def _active(self) -> list[str]:
        """The adapters in use; none while one is merged."""
        if self.disable_adapters or self.merged:
            return []
        return [name for name in self.active_adapters if name in self._adapters]

    def _to_merge(self, adapter_names: list[str] | None) -> str | None:
        """The one adapter to be merged here, if any."""
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self._adapters]
        if len(names) > 1 or (names and self.merged_adapters):
            raise ValueError(
                f"one adapter can be merged at a time, asked for {names} with {self.merged_adapters} merged; "
                "unmerge first"
            )
        return names[0] if names else None


class AdaptedNorm(Tuned):
    """A normalisation with running statistics: each adapter has its own, and the base's never change."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self._originals: dict[str, Tensor | None] | None = None

    def add(self, adapter_name: str) -> None:
        """Start the statistics of an adapter at the base's."""
        own = nn.Module()
        for key, buffer in self.base_layer._buffers.items():
            own.register_buffer(key, None if buffer is None else buffer.detach().clone())
        self._adapters[adapter_name] = own

    def __getattr__(self, name: str) -> Any:
        """Own submodules, then the public attributes of the normalisation."""
        modules = self.__dict__.get("_modules", {})
        if name in modules or name.startswith("_") or "base_layer" not in modules:
            return super().__getattr__(name)
        return getattr(modules["base_layer"], name)

    def forward(self, x: Tensor) -> Tensor:
        """The base's output with the statistics of the active adapter, which training moves."""
        active = self._active()
        if self.disable_adapters and self.merged:
            self.unmerge()
        base = self.base_layer
        kept = base._buffers
        own = self._adapters[active[0]]._buffers if active else None
        if own is None and self.training and not self.merged:
            own = {key: None if buffer is None else buffer.clone() for key, buffer in kept.items()}  # and drop them
        if own is None:
            return base(x)
        base._buffers = own
        try:
            return base(x)
        finally:
            base._buffers = kept

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the statistics of one adapter into the base."""
        name = self._to_merge(adapter_names)
        if name is None:
            return
        self._originals = dict(self.base_layer._buffers)
        self.merged_adapters.append(name)
        self.base_layer._buffers = {
            key: None if buffer is None else buffer.clone() for key, buffer in self._adapters[name]._buffers.items()
        }

    def unmerge(self) -> None:
        """Put the base's statistics back, bit for bit."""
        if self._originals is not None:
            self.base_layer._buffers = self._originals
        self._originals = None
        self.merged_adapters.clear()


class AdaptedLinear(Tuned):
    """A layer with adapters under PEFT's protocol; the arithmetic is `glora.layer.adapter.Adapter`'s."""

    def __init__(self, base_layer: nn.Module, layer_name: str = "") -> None:
        super().__init__(base_layer)
        self._originals: Parameters | None = None
        self._layer_name = layer_name

    def _acting(self) -> Adapter | None:
        """The adapter that takes part in the computation."""
        active = self._active()
        return cast(Adapter, self._adapters[active[0]]) if len(active) == 1 else None

    @property
    def weight(self) -> Tensor:
        """The weight that the layer computes with; see `glora.layer.wrappers.AdaptedLayer.weight`."""
        return weight_in_use(self._acting(), self.get_base_layer(), layer_name=self._layer_name)

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """The bias that the layer computes with, likewise."""
        return bias_in_use(self._acting(), self.get_base_layer(), layer_name=self._layer_name)

    def update_layer(self, adapter_name: str, config: LayerConfig, inference_mode: bool) -> None:
        """Add an adapter."""
        self._adapters[adapter_name] = Adapter.create(config, self.get_base_layer()).train(self.training)
        active = self.active_adapters or [adapter_name]
        self.set_adapter(active, inference_mode=inference_mode)

    def _freeze_non_trainable_peft_weights(self, adapter_names: Any = None) -> None:
        # PEFT thaws parameter by parameter and then calls this: an α that is not trained stays frozen.
        for adapter in self._adapters.values():
            adapter = cast(Adapter, adapter)
            if adapter.A is not None and not adapter.config.train_alpha:
                adapter.A.requires_grad_(False)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put one adapter into the base weights; always checked, always all or nothing."""
        name = self._to_merge(adapter_names)
        if name is None:
            return
        base = self.get_base_layer()
        merged = merged_parameters(cast(Adapter, self._adapters[name]), base)
        # Noted before the change, so that unmerge mends a merge that was interrupted.
        self._originals = parameters_of(base)
        self.merged_adapters.append(name)
        swap(base, merged)

    def unmerge(self) -> None:
        """Put the original weights back, bit for bit."""
        if self._originals is not None:
            swap(self.get_base_layer(), self._originals)
        self._originals = None
        self.merged_adapters.clear()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The active adapter's output, or the base layer's."""
        if kwargs.pop("adapter_names", None) is not None:
            raise ValueError("batches that mix adapters are not supported by this tuner; switch with set_adapter")
        if self.disable_adapters and self.merged:
            self.unmerge()
        active = self._active()
        if not active:
            return self.base_layer(x, *args, **kwargs)
        if len(active) > 1:
            raise ValueError(f"one adapter can be active at a time, got {active}; choose with set_adapter")
        return self._adapters[active[0]](x, self.base_layer)
