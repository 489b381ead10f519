"""The GLUE study: α-LoRA against LoRA on text, cell by cell."""
