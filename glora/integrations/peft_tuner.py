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

import copy
import warnings
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import peft
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from glora.config import GLoRAConfig, LayerConfig
from glora.layer import steps
from glora.layer.adapter import Adapter
from glora.model.balancing import Forward, Place, Steps, measure, set_factors

try:
    from peft.config import PeftConfig
    from peft.tuners.tuners_utils import BaseTuner
    from peft.utils import PeftType, register_peft_method
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    from peft.utils.other import AuxiliaryTrainingWrapper

    from glora.integrations.peft_layers import ADAPTERS, NAME, AdaptedLinear, AdaptedNorm, Tuned

    BaseTuner._remove_adapter_name_from_key  # noqa: B018
except (ImportError, AttributeError) as error:
    raise ImportError(f"glora.peft needs peft >= 0.21, found {peft.__version__}") from error


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


class GLoRAPeftModel(BaseTuner):
    """The tuner that `peft.get_peft_model` makes of a `GLoRAPeftConfig`."""

    prefix = f"{NAME}_"
    tuner_layer_cls = Tuned
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
        layer = target if isinstance(target, AdaptedLinear) else AdaptedLinear(target, current_key)
        layer.update_layer(adapter_name, config, peft_config.inference_mode)
        _set_steps(layer, adapter_name, current_key, cast(GLoRAPeftConfig, peft_config))
        if adapter_name not in self.active_adapters:
            layer._adapters[adapter_name].requires_grad_(False)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Put an adapter into the model, all of it or nothing; normalisations get statistics for it too.

        It works on a copy of the configuration: steps are this model's, and the caller's stays what it was.
        """
        config = copy.copy(self.peft_config[adapter_name])
        if isinstance(config, GLoRAPeftConfig):
            config.step_factors = dict(config.step_factors)
        self.peft_config[adapter_name] = config
        before = {id(parent): dict(parent._modules) for parent in model.modules()}
        flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
            self._own_statistics(model, adapter_name)
        except BaseException:  # an interrupt too
            for parent in list(model.modules()):
                if isinstance(parent, Tuned) and adapter_name in parent._adapters:
                    del parent._adapters[adapter_name]
            for parent in list(model.modules()):
                parent._modules.update(before.get(id(parent), {}))
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)
            raise

    def _own_statistics(self, model: nn.Module, adapter_name: str) -> None:
        """Give each normalisation that is not trained in full statistics of this adapter's own."""
        for key, parent in list(model.named_modules()):
            if isinstance(parent, (Tuned, AuxiliaryTrainingWrapper)) or _is_inside(model, key):
                continue
            for name, child in list(parent._modules.items()):
                if isinstance(child, _NormBase) and child.running_mean is not None:
                    norm = AdaptedNorm(child)
                    norm.train(child.training)
                    norm.set_adapter(self.active_adapters)
                    parent._modules[name] = norm
        for module in model.modules():
            if isinstance(module, AdaptedNorm) and adapter_name not in module._adapters:
                module.add(adapter_name)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge in all layers; whatever ends that early, an interrupt too, leaves none merged."""
        before = {id(m) for m in self.model.modules() if isinstance(m, Tuned) and m.merged}
        try:
            super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)
        except BaseException:
            for module in self.model.modules():
                if isinstance(module, Tuned) and id(module) not in before:
                    module.unmerge()
            raise

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> Any:
        # All layers are merged, or none, before the first one is taken out of the model.
        if merge and not any(isinstance(m, Tuned) and m.merged for m in self.model.modules()):
            self.merge_adapter(kwargs.get("adapter_names"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All adapters are already merged")
            return super()._unload_and_optionally_merge(merge, *args, **kwargs)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT expects the adapter's name last or last but one; ours is followed by tensor and part.
        return key.replace(f".{ADAPTERS}.{adapter_name}.", f".{ADAPTERS}.")


def _is_inside(model: nn.Module, key: str) -> bool:
    """Whether a module stands in one that is trained in full."""
    parts = key.split(".")
    parents = (".".join(parts[:end]) for end in range(1, len(parts)))
    return any(isinstance(model.get_submodule(parent), AuxiliaryTrainingWrapper) for parent in parents)


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
