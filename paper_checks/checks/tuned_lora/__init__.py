"""Claims of "tuned LoRA equals its variants" (arXiv 2602.04998), at our size."""

NAME = "tuned LoRA"
PAPER = "Tuned LoRA against its variants (arXiv 2602.04998)"
