"""Finite samples: they know settings and scores and share no formula with the theory."""
