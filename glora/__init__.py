"""One adapter layer with five support tensors: GLoRA, and LoRA, SSF, BitFit and α-LoRA inside it.

>>> import glora
>>> report = glora.attach(model, glora.presets.alpha_lora(rank=8, target=r"(q_proj|v_proj)$"))  # doctest: +SKIP

Names are imported when first used, so that ``glora --help`` does not wait for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glora import presets
    from glora.config import GLoRAConfig, LayerConfig, all_layer_configs
    from glora.model.attaching import alphas, attach, count_parameters, detach, disabled
    from glora.model.balancing import balance
    from glora.model.checkpoint import load, save
    from glora.model.merging import export, merge, merged, merged_copy, unmerge
    from glora.model.report import LayerReport, Report
    from glora.model.state import switch
    from glora.search.supernet import SuperNet
    from glora.tuning.certify import certify

_HOME = {
    "GLoRAConfig": "config",
    "LayerConfig": "config",
    "LayerReport": "model.report",
    "Report": "model.report",
    "SuperNet": "search.supernet",
    "all_layer_configs": "config",
    "alphas": "model.attaching",
    "attach": "model.attaching",
    "balance": "model.balancing",
    "certify": "tuning.certify",
    "count_parameters": "model.attaching",
    "detach": "model.attaching",
    "disabled": "model.attaching",
    "export": "model.merging",
    "load": "model.checkpoint",
    "merge": "model.merging",
    "merged": "model.merging",
    "merged_copy": "model.merging",
    "save": "model.checkpoint",
    "switch": "model.state",
    "unmerge": "model.merging",
}

__all__ = [
    "GLoRAConfig",
    "LayerConfig",
    "LayerReport",
    "Report",
    "SuperNet",
    "all_layer_configs",
    "alphas",
    "attach",
    "balance",
    "certify",
    "count_parameters",
    "detach",
    "disabled",
    "export",
    "load",
    "merge",
    "merged",
    "merged_copy",
    "presets",
    "save",
    "switch",
    "unmerge",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _HOME:
        return getattr(importlib.import_module(f"glora.{_HOME[name]}"), name)
    try:  # rooms and modules: glora.presets, glora.plot, glora.theory_bridge …
        return importlib.import_module(f"glora.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"glora.{name}":
            raise
        raise AttributeError(f"module 'glora' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _version() -> str:
    """Of the installed distribution; "unknown" where the source tree is not installed."""
    from importlib import metadata

    try:
        return metadata.version("rescale-and-adapt")
    except metadata.PackageNotFoundError:
        return "unknown"
