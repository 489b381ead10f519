"""Settings that need both the closed forms and the fixed point."""
