"""The layer inside PEFT: ``import glora.peft`` registers a tuner that PEFT and transformers treat as their
own.

>>> import glora.peft  # doctest: +SKIP
>>> model = peft.get_peft_model(model, glora.peft.GLoRAPeftConfig(A="vector", B="lora"))  # doctest: +SKIP

A process that loads such a checkpoint without the import gets ``KeyError: 'GLORA_PEFT'`` from PEFT; the name
is the module to import, and ``adapter_config.json`` says so in its field ``requires``.

PEFT knows methods by the members of its enumeration `PeftType` and has no plug-ins, so the import adds a
member. This is the only global state of the package.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import peft
from torch import Tensor, nn

from glora.config import GLoRAConfig, LayerConfig
from glora.layer import steps
from glora.layer.adapter import Adapter
from glora.layer.wrappers import Parameters, bias_in_use, merged_parameters, parameters_of, swap, weight_in_use
from glora.model.balancing import Forward, Place, Steps, measure, set_factors

try:
    from peft.config import PeftConfig
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
    from peft.utils import PeftType, register_peft_method
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    BaseTuner._remove_adapter_name_from_key  # noqa: B018
except (ImportError, AttributeError) as error:
    raise ImportError(f"glora.peft needs peft >= 0.21, found {peft.__version__}") from error

NAME = "glora_peft"
_ADAPTERS = f"{NAME}_adapters"


@dataclass
class GLoRAPeftConfig(PeftConfig):
    """Configuration for `peft.get_peft_model`; the fields of `glora.LayerConfig` with PEFT's way of naming
    layers.

    Args:
        target_modules: as everywhere in PEFT: names, a regular expression for the whole name, or
            "all-linear".
        exclude_modules: names or a regular expression of modules to leave alone.
        modules_to_save: modules trained and saved in full.
        A, B, C, D, E, rank, …: see `glora.LayerConfig`.
        overrides: ``{pattern: {field: value}}`` for layers that differ (`glora.GLoRAConfig.overrides` as
            plain dictionaries, so that PEFT can write them).
        steps: see `glora.GLoRAConfig`; `balance` measures them.
        step_factors: the steps by layer and tensor, filled in by the tuner and stored with the checkpoint.
        requires: what a process has to import to read the checkpoint.

    Raises:
        ValueError: see `glora.LayerConfig`.
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    # The fields of LayerConfig once more: PEFT writes and reads the fields of this class.
    A: str = "none"
    B: str = "none"
    C: str = "none"
    D: str = "none"
    E: str = "none"
    rank: int = 8
    a_product: str = "elementwise"
    tie_a_d: bool = False
    alpha: float = 1.0
    train_alpha: bool = True
    lora_scale: float = 1.0
    dropout: float = 0.0
    init: str = "kaiming"
    recompute: bool = False
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    # As `glora.GLoRAConfig.steps`, but "raw" where nothing is said: checkpoints from before steps say nothing.
    steps: str = "raw"
    # The steps themselves, by layer and tensor: the tuner fills them in, so that they are stored and read again.
    step_factors: dict[str, dict[str, float]] = field(default_factory=dict)
    requires: str = "import glora.peft"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[NAME.upper()]
        if isinstance(self.target_modules, list):
            self.target_modules = cast(Any, set(self.target_modules))
        self.glora_config()

    @classmethod
    def from_glora(cls, config: GLoRAConfig, **peft_fields: Any) -> GLoRAPeftConfig:
        """The same adapter as `config` in PEFT's terms; `peft_fields` such as ``task_type`` are passed on."""
        if callable(config.target):
            raise ValueError("target is a function, which PEFT cannot store; give names or a pattern")
        if config.norms != "trained":
            raise ValueError(f"norms={config.norms!r} has no counterpart in PEFT; put the norms into eval() yourself")
        target: Any = list(config.target)
        if isinstance(config.target, str):
            # PEFT matches a pattern against the whole name, glora searches it.
            target = config.target if config.target == "all-linear" else f".*(?:{config.target}).*"
        return cls(
            target_modules=target,
            modules_to_save=list(config.modules_to_save) or None,
            overrides={pattern: layer.to_dict() for pattern, layer in config.overrides.items()},
            steps=config.steps,
            **asdict(config.layer),
            **peft_fields,
        )

    def glora_config(self) -> GLoRAConfig:
        """The structure of the layers as a `glora.GLoRAConfig` (its `target` is PEFT's business)."""
        layer = {spec.name: getattr(self, spec.name) for spec in fields(LayerConfig)}
        overrides = {pattern: LayerConfig.from_dict(values) for pattern, values in self.overrides.items()}
        return GLoRAConfig(overrides=overrides, steps=self.steps, **layer)


class AdaptedLinear(nn.Module, BaseTunerLayer):
    """A layer with adapters under PEFT's protocol; the arithmetic is `glora.layer.adapter.Adapter`'s."""

    adapter_layer_names = (_ADAPTERS,)
    other_param_names = ()

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        setattr(self, _ADAPTERS, nn.ModuleDict())
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter: str | list[str] = []
        self._originals: Parameters | None = None

    @property
    def _adapters(self) -> nn.ModuleDict:
        return getattr(self, _ADAPTERS)

    def _acting(self) -> Adapter | None:
        """The adapter that takes part in the computation."""
        active = [name for name in self.active_adapters if name in self._adapters]
        acts = len(active) == 1 and not self.disable_adapters and not self.merged
        return cast(Adapter, self._adapters[active[0]]) if acts else None

    @property
    def weight(self) -> Tensor:
        """The weight that the layer computes with; see `glora.layer.wrappers.AdaptedLayer.weight`."""
        return weight_in_use(self._acting(), self.get_base_layer())

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """The bias that the layer computes with, likewise."""
        return bias_in_use(self._acting(), self.get_base_layer())

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
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self._adapters]
        if not names:
            return
        if len(names) > 1 or self.merged_adapters:
            raise ValueError(
                f"one adapter can be merged at a time, asked for {names} with {self.merged_adapters} merged; "
                "unmerge first"
            )
        base = self.get_base_layer()
        merged = merged_parameters(cast(Adapter, self._adapters[names[0]]), base)
        # Noted before the change, so that unmerge mends a merge that was interrupted.
        self._originals = parameters_of(base)
        self.merged_adapters.append(names[0])
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
        active = [name for name in self.active_adapters if name in self._adapters]
        if self.disable_adapters or self.merged or not active:
            return self.base_layer(x, *args, **kwargs)
        if len(active) > 1:
            raise ValueError(f"one adapter can be active at a time, got {active}; choose with set_adapter")
        return self._adapters[active[0]](x, self.base_layer)


class GLoRAPeftModel(BaseTuner):
    """The tuner that `peft.get_peft_model` makes of a `GLoRAPeftConfig`."""

    prefix = f"{NAME}_"
    tuner_layer_cls = AdaptedLinear
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING  # type: ignore[assignment]

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        config = cast(GLoRAPeftConfig, peft_config).glora_config().layer_for(current_key)
        if config.is_empty:
            return
        layer = target if isinstance(target, AdaptedLinear) else AdaptedLinear(target)
        layer.update_layer(adapter_name, config, peft_config.inference_mode)
        _set_steps(layer, adapter_name, current_key, cast(GLoRAPeftConfig, peft_config))
        if adapter_name not in self.active_adapters:
            layer._adapters[adapter_name].requires_grad_(False)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge in all layers; whatever ends that early, an interrupt too, leaves none merged."""
        before = {id(m) for m in self.model.modules() if isinstance(m, AdaptedLinear) and m.merged}
        try:
            super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)
        except BaseException:
            for module in self.model.modules():
                if isinstance(module, AdaptedLinear) and id(module) not in before:
                    module.unmerge()
            raise

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> Any:
        # All layers are merged, or none, before the first one is taken out of the model.
        if merge and not any(isinstance(m, AdaptedLinear) and m.merged for m in self.model.modules()):
            self.merge_adapter(kwargs.get("adapter_names"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All adapters are already merged")
            return super()._unload_and_optionally_merge(merge, *args, **kwargs)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT expects the adapter's name last or last but one; ours is followed by tensor and part.
        return key.replace(f".{_ADAPTERS}.{adapter_name}.", f".{_ADAPTERS}.")


def _set_steps(layer: AdaptedLinear, adapter_name: str, key: str, config: GLoRAPeftConfig) -> None:
    """The steps of a new adapter: those in the configuration, else what the weights suggest."""
    if config.steps == "raw":
        return
    adapter, base = cast(Adapter, layer._adapters[adapter_name]), layer.get_base_layer()
    known = config.step_factors.get(key)
    if known is None:
        here = not base.weight.is_meta
        known = steps.factors(adapter, base, steps.assumed(adapter.op, base)) if here else {}
    steps.apply(adapter, base, known, set())
    config.step_factors[key] = adapter.steps


def balance(model: Any, data: Any, *, forward: Forward | None = None) -> Steps:
    """`glora.balance` for a model of `peft.get_peft_model`: measure the steps of its active adapter.

    They go into the adapter's `GLoRAPeftConfig`, with which ``save_pretrained`` stores them. Call it before training.

    Raises:
        ValueError: no adapter of this tuner is active, one is merged, its configuration says ``steps="raw"``, or there
            is no batch.
    """
    name = model.active_adapter
    config = model.peft_config[name]
    if not isinstance(config, GLoRAPeftConfig) or config.steps == "raw":
        raise ValueError(f"adapter {name!r} has no steps to measure; give GLoRAPeftConfig steps='balanced'")
    places = [
        Place(key, module, cast(Adapter, module._adapters[name]), module.get_base_layer())
        for key, module in model.base_model.model.named_modules()
        if isinstance(module, AdaptedLinear) and name in module._adapters
    ]
    if any(cast(AdaptedLinear, place.module).merged for place in places):
        raise ValueError(f"adapter {name!r} is merged; unmerge it before measuring its steps")
    found = set_factors(places, measure(model, places, data, forward))
    config.step_factors = found
    return found


def register() -> None:
    """Make the tuner known to PEFT; done by the import, and harmless to repeat."""
    member = NAME.upper()
    if member not in PeftType.__members__:
        value = str.__new__(PeftType, member)
        value._name_, value._value_ = member, member
        PeftType._member_map_[member] = value
        PeftType._value2member_map_[member] = value
        PeftType._member_names_.append(member)
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if PeftType[member] not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=NAME, config_cls=GLoRAPeftConfig, model_cls=GLoRAPeftModel)


register()
