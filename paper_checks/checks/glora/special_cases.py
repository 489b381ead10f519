"""Which published methods are exact special cases of GLoRA's formula, and which are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

EXACT = 1e-12
APART = 1e-2
DRAWS = 20
# Methods that are not special cases, with the nearest structure that is.
NEAREST = {
    "AdaptFormer": "its linear part: B low-rank",
    "VPT-Deep": "an additive prompt: C vector",
    "FacT": "B low-rank in every layer, without the sharing",
}


class SpecialCases(Check):
    """See the module's docstring."""

    id = "glora.special_cases"
    claim = (
        "LoRA, α-LoRA, BitFit, SSF, RepAdapter and linear probing are special cases of GLoRA; VPT, AdaptFormer and "
        "FacT, which the paper lists too, are not."
    )
    short = "LoRA, BitFit, SSF and others are special cases; VPT and AdaptFormer are not."
    shown = ("RepAdapter: difference", "largest difference")
    scale = "one linear layer"
    where = "GLoRA, Section 2 (the list of cases is from memory; a reviewer notes that no mapping is given)"
    rule = (
        f"Shown by construction: a method is exact if the relative difference over {DRAWS} random layers is ≤ "
        f"{EXACT:g} for a stated structure; it is no special case if every GLoRA structure lacks a property "
        f"(≤ {EXACT:g}) that the method has (≥ {APART:g}). AdaptFormer is not affine in its input; VPT's attention "
        "over equal tokens is not affine in the token; FacT ties the updates of different layers. The verdict "
        "holds if every method falls on the stated side, else not reproduced."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return ["exact", "not_exact"]

    def compute(self, context: Context, cell: str) -> Figures:
        import torch

        seeds = [context.seed_for(self.id, str(index)) for index in range(DRAWS)]
        with torch.no_grad():
            return _exact(seeds) if cell == "exact" else _not_exact(seeds)

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        exact = cells.get("exact", {}).get("difference", {})
        apart = cells.get("not_exact", {}).get("method", {})
        ours = cells.get("not_exact", {}).get("glora", {})
        holds = (
            bool(exact and apart)
            and all(value <= EXACT for value in exact.values())
            and all(value >= APART for value in apart.values())
            and all(value <= EXACT for value in ours.values())
        )
        rows = [Row(f"{name}: difference from our layer", None, value) for name, value in exact.items()]
        rows += [
            Row(f"{name}: the property GLoRA lacks (nearest case: {NEAREST[name]})", None, value)
            for name, value in apart.items()
        ]
        return Outcome(
            Verdict.BY_CONSTRUCTION if holds else Verdict.NOT_REPRODUCED,
            f"{', '.join(exact)} are exact (largest difference {max(exact.values(), default=0):.1e}); "
            f"{', '.join(apart)} are not special cases, whatever the structure.",
            tuple(rows),
        )


def _exact(seeds: Sequence[int]) -> Figures:
    """Largest relative difference between each method and our layer with its structure."""
    from paper_checks.studies.published import adapted, difference, frozen_layer, inputs, methods

    worst: dict[str, float] = {}
    for seed in seeds:
        base, x = frozen_layer(seed), inputs(seed)
        for name, method in methods(seed).items():
            expected = method.forward(x, base.weight, base.bias)
            actual = adapted(base, method.config, method.parameters)(x)
            worst[name] = max(worst.get(name, 0.0), difference(actual, expected))
    return {"difference": worst, "draws": len(seeds)}


def _not_exact(seeds: Sequence[int]) -> Figures:
    """The property that tells a method from GLoRA: smallest over draws for the method, largest for GLoRA."""
    import torch

    from glora.config import all_layer_configs
    from paper_checks.studies.published import IN, OUT, RANK, adapted, frozen_layer

    method: dict[str, float] = dict.fromkeys(NEAREST, float("inf"))
    ours = dict.fromkeys(NEAREST, 0.0)
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        base = frozen_layer(seed)

        def draw(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        adapter = _adaptformer(base, draw(RANK, IN), draw(OUT, RANK))
        prompted = _equal_tokens(base, draw(4, IN))
        method["AdaptFormer"] = min(method["AdaptFormer"], curvature(adapter, seed))
        method["VPT-Deep"] = min(method["VPT-Deep"], curvature(prompted, seed))
        method["FacT"] = min(method["FacT"], _sharing(draw))
    # Every structure of GLoRA is affine, and so is its attention over equal tokens (the weights sum to one).
    seed = seeds[0]
    base = frozen_layer(seed)
    for index, config in enumerate(all_layer_configs(rank=RANK)):
        layer = adapted(base, config, {})
        generator = torch.Generator().manual_seed(index)
        for parameter in layer.adapters.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        ours["AdaptFormer"] = max(ours["AdaptFormer"], curvature(layer, seed))
        ours["VPT-Deep"] = max(ours["VPT-Deep"], curvature(_equal_tokens(layer, None), seed))
    return {"method": method, "glora": ours, "draws": len(seeds)}


def curvature(function: Callable[[Tensor], Tensor], seed: int) -> float:
    """‖f(x + y) − f(x) − f(y) + f(0)‖ / ‖f(x + y)‖: zero exactly for affine functions."""
    from paper_checks.studies.published import inputs

    x, y = inputs(seed), inputs(seed + 1)
    both = function(x + y)
    return float((both - function(x) - function(y) + function(x.new_zeros(x.shape))).norm() / both.norm())


def _adaptformer(base: nn.Linear, down: Tensor, up: Tensor) -> Callable[[Tensor], Tensor]:
    """A layer with AdaptFormer's parallel bottleneck."""
    return lambda x: base(x) + (x @ down.T).relu() @ up.T


def _equal_tokens(layer: nn.Module, prompts: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x (n, in) ↦ attention (one layer for q, k and v) of five tokens that all equal x, and of prompts (p, in)."""
    import torch

    from paper_checks.studies.published import OUT

    def attend(x: Tensor) -> Tensor:
        context = torch.stack([x] * 5, dim=1)
        if prompts is not None:
            context = torch.cat([prompts.expand(len(x), -1, -1), context], dim=1)
        scores = layer(x[:, None]) @ layer(context).transpose(1, 2) / OUT**0.5
        return (scores.softmax(-1) @ layer(context))[:, 0]

    return attend


def _sharing(draw: Callable[..., Tensor], layers: int = 6) -> float:
    """Share of random low-rank updates of `layers` layers that FacT's common U, V cannot express.

    FacT writes ΔW_l = U Σ_l Vᵀ with U, V common to all layers.  Each ΔW_l alone is a low-rank B; together
    they lie in one r × r-dimensional space, which independent low-rank updates do not.
    """
    import torch

    from paper_checks.studies.published import IN, OUT, RANK

    left, _, right = torch.linalg.svd(sum(draw(OUT, RANK) @ draw(RANK, IN) for _ in range(layers)))
    u, v = left[:, :RANK], right[:RANK]
    updates = [draw(OUT, RANK) @ draw(RANK, IN) for _ in range(layers)]
    missed = sum(float((w - u @ (u.T @ w @ v.T) @ v).square().sum()) for w in updates)
    return missed / sum(float(w.square().sum()) for w in updates)


CHECK = SpecialCases()
