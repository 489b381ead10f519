"""One adapter layer with five support tensors: GLoRA, and LoRA, SSF, BitFit and α-LoRA inside it.

>>> import glora
>>> report = glora.attach(model, glora.presets.alpha_lora(rank=8, target=r"(q_proj|v_proj)$"))  # doctest: +SKIP
"""

from glora import presets
from glora.config import GLoRAConfig, LayerConfig, all_layer_configs
from glora.model.attaching import alphas, attach, count_parameters, detach, disabled
from glora.model.balancing import balance
from glora.model.certify import certify
from glora.model.checkpoint import load, save
from glora.model.merging import export, merge, merged, merged_copy, unmerge
from glora.model.report import LayerReport, Report
from glora.model.state import switch
from glora.search.supernet import SuperNet

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
