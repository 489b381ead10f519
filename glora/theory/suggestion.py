"""What `glora.theory.bridge` suggests: scales, predictions, and why α = 1 where it has no advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from glora.layer.wrappers import AdaptedLayer


@dataclass(frozen=True)
class LayerSuggestion:
    """What the theory says of one layer, adapted alone.

    Attributes:
        name: of the layer. alpha: the scale suggested for it alone. raw_alpha: before shrinkage and bounds.
        stderr: jackknife standard error of the estimate. gamma: penalty of the adapter. method: how it was estimated.
        accuracy_plain, accuracy_suggested: predicted test accuracy at α = 1 and at `alpha`, adapter fitted (after the
            linearisation). reason: why α = 1, or "".
    """

    name: str
    alpha: float
    raw_alpha: float
    stderr: float
    gamma: float
    method: str
    accuracy_plain: float
    accuracy_suggested: float
    reason: str = ""

    @property
    def gain(self) -> float:
        """Predicted accuracy at the suggested scale less that at α = 1."""
        return self.accuracy_suggested - self.accuracy_plain


@dataclass(frozen=True)
class Suggestion:
    """The scales for all layers together.

    Attributes:
        alphas: by layer name, what `apply` writes. layers: each layer alone. step: t of the joint line search.
        accuracy_plain, accuracy_suggested: predicted with all layers adapted, at α = 1 and at `alphas`.
        disagreement: ‖real − linear‖/‖linear − plain‖ of the margins at `alphas` (0 if α = 1 everywhere).
        examples: n. forward_passes, backward_passes: over these examples, what the suggestion cost.
        reason: why α = 1 everywhere, or "".
    """

    alphas: Mapping[str, float]
    layers: tuple[LayerSuggestion, ...]
    step: float
    accuracy_plain: float
    accuracy_suggested: float
    disagreement: float
    examples: int
    forward_passes: int
    backward_passes: int
    reason: str = ""

    @property
    def gain(self) -> float:
        """Predicted accuracy at the suggested scales less that at α = 1."""
        return self.accuracy_suggested - self.accuracy_plain

    def apply(self, model: nn.Module) -> None:
        """Write the scales into the active adapter of a model with α-LoRA attached.

        Raises:
            ValueError: a layer has no adapter with a scalar or vector A; nothing is written then.
        """
        found: dict[str, AdaptedLayer] = {}
        for name in self.alphas:
            try:
                layer = model.get_submodule(name)
            except AttributeError:
                raise ValueError(f"the model has no layer {name!r}") from None
            if not isinstance(layer, AdaptedLayer):
                raise ValueError(f"layer {name!r} has no adapter; attach glora.presets.alpha_lora to it first")
            if not hasattr(layer, "alpha"):
                raise ValueError(
                    f"layer {name!r} has no alpha: no adapter with a scalar or vector A is active on it; attach "
                    "glora.presets.alpha_lora to it first"
                )
            found[name] = layer
        for name, layer in found.items():
            layer.alpha = self.alphas[name]
