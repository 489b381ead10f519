"""A door to `glora.theory.bridge`: the scale that the theory recommends for a network's layers."""

from glora.theory.bridge import METHODS, LayerSuggestion, Suggestion, suggest_alpha

__all__ = ["METHODS", "LayerSuggestion", "Suggestion", "suggest_alpha"]
