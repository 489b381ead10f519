"""The layer inside other libraries: PEFT, transformers' Trainer, lm-evaluation-harness."""
