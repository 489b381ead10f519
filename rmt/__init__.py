"""Random-matrix theory of α-rescaled fine-tuning, and the simulators that check it."""
