"""A door to `glora.integrations.lm_eval`, and its command: ``python -m glora.harness``."""

import sys

from glora.integrations.lm_eval import build_parser, evaluate, main

__all__ = ["build_parser", "evaluate", "main"]

if __name__ == "__main__":
    sys.exit(main())
