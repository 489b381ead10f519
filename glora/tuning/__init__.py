"""One run from its configuration to its figures, and back from its folder."""
