"""One adapted layer: its support tensors, its geometry, how it is computed, what stands in the model."""
