"""PEFT's checkpoints of LoRA and GLoRA into our layers, and ours into PEFT's LoRA where the structure allows.

Reading needs no PEFT: a checkpoint is ``adapter_config.json`` and ``adapter_model.safetensors``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from glora._digests import sealed, unsealed
from glora._files import as_path, naming, read_json, write_atomic
from glora.config import LayerConfig
from glora.layer.adapter import Adapter
from glora.layer.wrappers import AdaptedLayer
from glora.model.attaching import attach_selection
from glora.model.report import Report
from glora.model.state import adapted_modules, require_adapter, require_state, unwrap
from glora.model.targets import Selection, base_modules

_PREFIX = "base_model.model."
# Fields of PEFT's configurations that this module reads, or that do not change what a checkpoint computes. A field that
# is none of these must be unset: PEFT adds fields, and most of them make another method of LoRA (activated LoRA, DoRA,
# QA-LoRA, block-diagonal LoRA …).
_HARMLESS = frozenset(
    {"task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"}
    | {"inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out"}
    | {"use_rslora", "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"}
    | {"megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config"}
    | {"qalora_group_size", "config_A_B", "config_C", "config_D_E", "init_weights", "init_lora_weights"}
)
# Initialisations after which a LoRA checkpoint still refers to the base weights as they were.
_KEEPS_BASE = ("none", "true", "false", "gaussian", "eva", "orthogonal")

# Parameters of one layer, named as in our checkpoints ("B.left"), and its configuration.
Layer = tuple[LayerConfig, dict[str, Tensor]]


def load(model: nn.Module, folder: str | Path, name: str = "default") -> Report:
    """Attach an adapter from a PEFT LoRA or GLoRA checkpoint, computing the same function as PEFT's layer.

    Args:
        model: the base model.
        folder: a folder that ``save_pretrained`` of PEFT wrote.
        name: name of the adapter in this model.

    Returns:
        The same report as `glora.attach`.

    Raises:
        ValueError: the checkpoint uses something our layer does not have (DoRA, trained base biases, an
            initialisation that changes the base …), or does not fit the model; the model is left as it was.
        FileNotFoundError: no checkpoint in the folder.
    """
    folder = as_path("folder", folder)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"no {file} in {folder}")
    remedy = "write or fetch the checkpoint again"
    config = read_json(folder / "adapter_config.json", remedy)
    if not isinstance(config, dict):
        raise ValueError(f"{str(folder / 'adapter_config.json')!r} holds no JSON object; {remedy}")
    stored = unsealed(folder / "adapter_model.safetensors", remedy)
    tensors = {key.removeprefix(_PREFIX): value for key, value in stored.items()}
    kind = config.get("peft_type")
    if kind not in ("LORA", "GLORA"):
        hint = "; open it with glora.peft and peft.PeftModel.from_pretrained" if kind == "GLORA_PEFT" else ""
        raise ValueError(f"{folder} holds a PEFT checkpoint of type {kind!r}, expected LORA or GLORA{hint}")
    _check_fields(config)
    try:
        layers, rest = _from_lora(config, tensors) if kind == "LORA" else _from_glora(config, tensors)
    except (KeyError, TypeError, AttributeError, IndexError, re.error) as error:
        raise ValueError(f"the checkpoint in {folder} is damaged or incomplete ({error!r}); {remedy}") from None
    inner = unwrap(model)
    saved = _saved_modules(inner, config, rest)
    _check_fit(inner, layers)
    selection = Selection({key: layer for key, (layer, _) in layers.items()}, tuple(saved), ())
    report = attach_selection(inner, selection, name, generator=torch.Generator())
    wrappers = dict(adapted_modules(inner))
    with torch.no_grad():
        for key, (_, parts) in layers.items():
            own = dict(wrappers[key].adapters[name].named_parameters())
            for part, value in parts.items():
                own[part].copy_(value.reshape(own[part].shape))
        for key, state in saved.items():
            wrappers[key].adapters[name].load_state_dict(state)
    return report


def save_as_peft_lora(model: nn.Module, folder: str | Path, name: str | None = None) -> None:
    """Write an adapter as a PEFT LoRA checkpoint, for tools that read nothing else.

    Args:
        model: a model with adapters.
        folder: where to write.
        name: which adapter; the active one if None.

    Raises:
        ValueError: the adapter has more than a low-rank B in some layer, or one adapts a grouped convolution.
    """
    from peft import LoraConfig

    state = require_state(model)
    name = require_adapter(state, name or state.active)
    selection = state.adapters[name]
    tensors: dict[str, Tensor] = {}
    for key, wrapper in adapted_modules(model):
        if name not in wrapper.adapters:
            continue
        parts = wrapper.adapters[name].state_dict()
        if not isinstance(wrapper, AdaptedLayer):
            tensors |= {f"{_PREFIX}{key}.{part}": value for part, value in parts.items()}
            continue
        if set(parts) != {"B.left", "B.right"} or getattr(wrapper.base, "groups", 1) != 1:
            raise ValueError(
                f"layer {key!r} has {selection.layers[key].summary}; only B=lora, and no grouped convolution, "
                "can be written as PEFT LoRA (glora.export writes any adapter as merged weights)"
            )
        left, right = parts["B.left"], parts["B.right"]
        left = left * cast(Adapter, wrapper.adapters[name]).steps["B"]
        if isinstance(wrapper.base, nn.Conv2d):
            left, right = left[:, :, None, None], right.reshape(-1, *wrapper.base.weight.shape[1:])
        tensors[f"{_PREFIX}{key}.lora_A.weight"] = right
        tensors[f"{_PREFIX}{key}.lora_B.weight"] = left
    # LoRA's α is the numerator of its factor α/r.
    numerators = {key: layer.lora_scale * layer.rank for key, layer in selection.layers.items()}
    ranks = {key: layer.rank for key, layer in selection.layers.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    numerator = Counter(numerators.values()).most_common(1)[0][0]
    config = LoraConfig(
        r=rank,
        lora_alpha=numerator,  # type: ignore[arg-type]  # PEFT computes with floats too
        target_modules=list(selection.layers),
        rank_pattern={f"^{re.escape(key)}": value for key, value in ranks.items() if value != rank},
        alpha_pattern={f"^{re.escape(key)}": value for key, value in numerators.items() if value != numerator},
        modules_to_save=list(selection.saved) or None,
        inference_mode=True,
    )
    folder = as_path("folder", folder)
    write_atomic(folder / "adapter_model.safetensors", sealed(tensors, format="pt"))
    with naming(folder):
        config.save_pretrained(str(folder))


def _check_fields(config: dict[str, Any]) -> None:
    """Raise ValueError if a field asks for something that the layer does not have."""
    for name, value in config.items():
        if name not in _HARMLESS and value not in (None, False, "none", [], {}, ""):
            raise ValueError(
                f"{name}={value!r} of adapter_config.json has no counterpart in this layer; load the checkpoint with "
                "PEFT, or train without it"
            )
    init = str(config.get("init_lora_weights")).lower()
    if init not in _KEEPS_BASE:
        raise ValueError(
            f"init_lora_weights={init!r} may change the base weights, so the checkpoint has no counterpart in this "
            "layer; let PEFT convert it to plain LoRA (path_initial_model_for_weight_conversion)"
        )


def _from_lora(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Layer], dict[str, Tensor]]:
    """Layers of a LoRA checkpoint, and the tensors that belong to none."""
    layers: dict[str, Layer] = {}
    rest = dict(tensors)
    for key in tensors:
        if not key.endswith(".lora_A.weight"):
            continue
        layer = key.removesuffix(".lora_A.weight")
        right, left = rest.pop(key), rest.pop(f"{layer}.lora_B.weight")
        rank = right.shape[0]
        numerator = _by_pattern(config.get("alpha_pattern"), layer, config["lora_alpha"])
        scale = numerator / (math.sqrt(rank) if config.get("use_rslora") else rank)
        dropout = config.get("lora_dropout", 0.0)
        layer_config = LayerConfig(B="lora", rank=rank, lora_scale=scale, dropout=dropout)
        layers[layer] = layer_config, {"B.left": left.flatten(1), "B.right": right.flatten(1)}
    return layers, rest


def _from_glora(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Layer], dict[str, Tensor]]:
    """Layers of a GLoRA checkpoint, without the zero buffers PEFT stores with it."""
    found: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for key, value in tensors.items():
        match = re.fullmatch(r"(.+)\.glora_([ABCDE])\.(Xd|Xu|X|zeros)", key)
        if match is None:
            rest[key] = value
        else:
            parts = found.setdefault(match[1], {})
            if match[3] != "zeros":
                parts[f"{match[2]}.{ {'Xd': 'left', 'Xu': 'right', 'X': 'value'}[match[3]] }"] = value
    layers: dict[str, Layer] = {}
    for layer, parts in found.items():
        structures: dict[str, Any] = {}
        for part, value in parts.items():
            tensor, field = part.split(".")
            structures[tensor] = "lora" if field != "value" else "scalar" if value.shape == (1,) else "vector"
        layers[layer] = LayerConfig(rank=config["r"], **structures), parts
    return layers, rest


def _by_pattern(patterns: dict[str, float] | None, name: str, default: float) -> float:
    """PEFT's rule: the first pattern that matches the end of the name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def _saved_modules(model: nn.Module, config: dict[str, Any], rest: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """State of the modules trained in full; every tensor that is left over must belong to one."""
    names = [name for name, _ in base_modules(model)]
    saved: dict[str, dict[str, Tensor]] = {}
    for wanted in config.get("modules_to_save") or ():
        for name in names:
            # PEFT lists candidates for a task ("classifier", "score") whether or not the model has them.
            state = {k.removeprefix(name + "."): v for k, v in rest.items() if k.startswith(name + ".")}
            if state and (name == wanted or name.endswith("." + wanted)):
                saved[name] = state
                rest = {key: value for key, value in rest.items() if not key.startswith(name + ".")}
    if rest:
        raise ValueError(f"the checkpoint has tensors with no counterpart in this layer or model: {sorted(rest)[:5]}")
    return saved


def _check_fit(model: nn.Module, layers: dict[str, Layer]) -> None:
    modules = dict(base_modules(model))
    for key, (config, parts) in layers.items():
        if key not in modules:
            raise ValueError(f"the model has no layer {key!r}")
        own = dict(Adapter(config, modules[key], torch.Generator()).named_parameters())
        if own.keys() != parts.keys() or any(own[p].numel() != parts[p].numel() for p in own):
            shapes = {part: tuple(value.shape) for part, value in parts.items()}
            raise ValueError(f"layer {key!r} has another shape than in the checkpoint, which has {shapes}")
