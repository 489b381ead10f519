"""The ``[method]`` section of a run: a name and its options, put onto a model.

======================================== =====================================================================
name                                     what is trained
======================================== =====================================================================
lora, alpha_lora, glora, ssf, bitfit,    the preset of that name in `glora.presets`, and the task's heads;
output_scale                             options are the preset's arguments
linear_probe                             the heads
full                                     every parameter
custom                                   what the fields of `glora.GLoRAConfig` say, and the heads
file                                     the configuration in a JSON file (``path``), as a search writes it
======================================== =====================================================================

Every method with a trainable scale takes ``share``, see `glora.training.alpha.share_alpha`. All that adapt layers take
``steps``, see `glora.GLoRAConfig`: "raw" for lora and alpha_lora, what the file says for file, else "balanced".
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glora import presets
from glora._files import read_json, unsealed
from glora.config import GLoRAConfig
from glora.model.attaching import attach
from glora.model.report import Report
from glora.training.alpha import SHARES, share_alpha

PRESETS = ("lora", "alpha_lora", "glora", "ssf", "bitfit", "output_scale")
METHODS = (*PRESETS, "linear_probe", "full", "custom", "file")


def apply(
    model: nn.Module, name: str, options: Mapping[str, Any], heads: Sequence[str], *, seed: int = 0
) -> Report | None:
    """Prepare a model for training with a method, in place.

    Args:
        model: a model as a task builds it.
        name: one of `METHODS`.
        options: the method's options.
        heads: modules trained in full whatever the method.
        seed: of the adapter's random factors.

    Returns:
        What is adapted; None for "full", which adapts nothing and trains everything.

    Raises:
        ValueError: the method or one of its options is unknown, or does not fit the model.
    """
    if name == "full":
        if options:
            raise ValueError(f"method 'full' has no options, got {sorted(options)}")
        model.requires_grad_(True)
        return None
    config, share = configuration(name, options, heads)
    report = attach(model, config, generator=torch.Generator().manual_seed(seed))
    if share is not None:
        share_alpha(model, share)
    return report


def configuration(name: str, options: Mapping[str, Any], heads: Sequence[str]) -> tuple[GLoRAConfig, str | None]:
    """The layer configuration of a method (any but "full") and how its scale is shared (None: not said).

    Raises:
        ValueError: see `apply`.
    """
    if name not in METHODS or name == "full":
        raise ValueError(f"method.name must be one of {', '.join(METHODS)}; got {name!r}")
    given = dict(options)
    share = given.pop("share", None)
    if share is not None and share not in SHARES:
        raise ValueError(f"method.share must be one of {', '.join(SHARES)}; got {share!r}")
    if name == "alpha_lora" and share is not None:
        given.setdefault("per_row", share in ("row", "qkv"))
    known = _options(name)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"method {name!r} has no option {', '.join(map(repr, unknown))}; it has {', '.join([*known, 'share'])}"
        )
    if name == "linear_probe":
        config = presets.linear_probe(modules_to_save=tuple(heads), **given)
    elif name == "custom":
        config = GLoRAConfig.from_dict({"steps": "balanced", **given})
    elif name == "file":
        if "path" not in given:
            raise ValueError("method 'file' needs path, the JSON file of a configuration")
        config = _from_file(**given)
    else:
        try:
            config = getattr(presets, name)(**given)
        except TypeError as error:  # a structure that the preset sets itself
            raise ValueError(f"method {name!r}: {error}; take method.name = 'custom'") from None
    return replace(config, modules_to_save=tuple(dict.fromkeys([*config.modules_to_save, *heads]))), share


def _options(name: str) -> list[str]:
    """The options of a method: its preset's arguments, and the fields of a configuration that the preset leaves."""
    if name == "file":
        return ["path", "steps"]
    fields = [field.name for field in dataclasses.fields(GLoRAConfig)]
    if name == "custom":
        return fields
    own = inspect.signature(getattr(presets, name)).parameters
    named = [key for key, parameter in own.items() if parameter.kind is not parameter.VAR_KEYWORD]
    if name == "linear_probe":
        return ["target"]
    return [*named, *(field for field in fields if field not in named)]


def _from_file(path: str, **changes: Any) -> GLoRAConfig:
    if not Path(path).exists():
        raise ValueError(f"method.path={path!r} does not exist; check the path")
    return GLoRAConfig.from_dict({**unsealed(read_json(path, "write it anew"), path, "write it anew"), **changes})
