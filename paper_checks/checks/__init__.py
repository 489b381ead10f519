"""The claims, one module each; `paper_checks.core` finds them."""
