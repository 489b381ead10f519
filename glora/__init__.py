"""One adapter layer with five support tensors: GLoRA, and LoRA, SSF, BitFit and α-LoRA inside it."""
