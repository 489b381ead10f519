"""One adapter layer with five support tensors: GLoRA, and LoRA, SSF, BitFit and α-LoRA inside it.

>>> import glora
>>> report = glora.attach(model, glora.presets.alpha_lora(rank=8, target=r"(q_proj|v_proj)$"))  # doctest: +SKIP
"""

from glora import presets
from glora.checkpoint import load, save
from glora.config import GLoRAConfig, LayerConfig, all_layer_configs
from glora.merging import export, merge, merged, merged_copy, unmerge
from glora.model import alphas, attach, count_parameters, detach, disabled
from glora.report import LayerReport, Report
from glora.state import switch
from glora.supernet import SuperNet

__all__ = [
    "GLoRAConfig",
    "LayerConfig",
    "LayerReport",
    "Report",
    "SuperNet",
    "all_layer_configs",
    "alphas",
    "attach",
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
