"""A door to `glora.integrations.peft_checkpoints`: PEFT's checkpoints into our layers, and ours into PEFT's LoRA."""

from glora.integrations.peft_checkpoints import load, save_as_peft_lora

__all__ = ["load", "save_as_peft_lora"]
