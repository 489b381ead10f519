"""The claim of "Source-optimal training is transfer-suboptimal" (arXiv 2511.08401), known by its abstract."""

NAME = "source penalty"
PAPER = "Source-optimal training is transfer-suboptimal (arXiv 2511.08401)"
