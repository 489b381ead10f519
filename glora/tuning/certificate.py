"""The answer of `glora.certify`: what each layer does, what was proved, and the page that says so."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerEffect:
    """What one adapted layer does on the probe.

    Attributes:
        name: the layer.
        verdict: "acts", "dead", "bypassed", "untrained" or "not reached".
        calls: how often the layer was called; `reads`: how often its weight or bias was read instead.
        effect: relative change of the layer's output (of its weight, if only read); None if not reached.
        gradient: norm of the gradient of its tensors; None if not reached.
        unmoved: its trainable tensors that have their initial values.
    """

    name: str
    verdict: str
    calls: int
    reads: int
    effect: float | None
    gradient: float | None
    unmoved: tuple[str, ...]


@dataclass(frozen=True)
class Statement:
    """One thing that is proved (`holds` True), false (False) or could not be checked (None), and the figures."""

    claim: str
    holds: bool | None
    detail: str


@dataclass(frozen=True)
class Certificate:
    """The answer of `certify`; ``str`` is a page.

    Attributes:
        adapter: name of the adapter.
        dtype: of the model's outputs; it chooses the tolerance.
        coverage: layers adapted and layers there are, and the share of the matrix products of one forward pass that
            goes through adapted layers (None if nothing was counted).
        layers: one entry a layer of the adapter.
        statements: what was checked.
    """

    adapter: str
    dtype: str
    coverage: dict[str, Any]
    layers: tuple[LayerEffect, ...]
    statements: tuple[Statement, ...]

    @property
    def holds(self) -> bool | None:
        """True if every statement is proved, False if one is false, None if one could not be checked."""
        found = {statement.holds for statement in self.statements}
        return False if False in found else None if None in found else True

    @property
    def exit_code(self) -> int:
        """0 all proved, 1 a statement is false, 2 one could not be checked."""
        return {True: 0, False: 1, None: 2}[self.holds]

    def named(self, verdict: str) -> list[str]:
        """Names of the layers with a verdict."""
        return [layer.name for layer in self.layers if layer.verdict == verdict]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "holds": self.holds, "exit_code": self.exit_code}

    def __str__(self) -> str:
        marks = {True: "proved ", False: "FALSE  ", None: "unknown"}
        cover = self.coverage
        share = "" if cover["share"] is None else f", {100 * cover['share']:.0f} % of its matrix products"
        percent = 100 * cover["adapted"] / max(1, cover["layers"])
        covered = f"{cover['adapted']} of {cover['layers']} layers adapted ({percent:.0f} %{share})"
        lines = [
            f"adapter {self.adapter!r}: {covered}",
            *(f"{marks[s.holds]}  {s.claim}: {s.detail}" for s in self.statements),
        ]
        kinds: dict[str, list[LayerEffect]] = {}
        for layer in self.layers:
            kinds.setdefault(layer.verdict, []).append(layer)
        for verdict, layers in kinds.items():
            effects = [layer.effect for layer in layers if layer.effect is not None]
            span = f", output changed by {min(effects):.2g} … {max(effects):.2g}" if effects else ""
            shown = ", ".join(layer.name for layer in layers[:4]) + (" …" if len(layers) > 4 else "")
            lines.append(f"  {verdict}: {len(layers)} ({shown}){span}")
        return "\n".join(lines)
