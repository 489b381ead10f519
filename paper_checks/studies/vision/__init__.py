"""The vision study: GLoRA against LoRA at equal parameters, cell by cell."""
