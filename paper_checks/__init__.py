"""The papers' claims as programs: each check computes figures and a verdict by a stated rule."""
