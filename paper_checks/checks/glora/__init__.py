"""The claims of the GLoRA paper."""
