"""The claims of the GLoRA paper."""

NAME = "GLoRA"
PAPER = "One-for-All: Generalized LoRA (GLoRA, arXiv 2306.07967)"
