"""Adapters on a whole model: which layers, attach, switch, merge, save."""
