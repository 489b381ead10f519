"""Inclusion of hypothesis classes: each method's functions are among GLoRA's, so its VC dimension is no larger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from paper_checks.core import Check, Context, Figures, Outcome, Row, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from glora.config import LayerConfig

EXACT = 1e-12
DRAWS = 20


class HypothesisClass(Check):
    """See the module's docstring."""

    id = "glora.hypothesis_class"
    claim = "GLoRA's hypothesis class contains that of each method, so its VC dimension is at least as large."
    short = "GLoRA's hypothesis class contains that of each method."
    shown = ("GLoRA: dimension", "dimensions (others: at most 69)")
    scale = "one linear layer"
    where = "GLoRA, Section 2.6 (a reviewer calls the classes undefined; the statement is from memory)"
    rule = (
        f"Shown by construction if, over {DRAWS} random layers, every method's function equals GLoRA's largest "
        f"structure at the stated parameters (relative difference ≤ {EXACT:g}) and that structure's family has no "
        "smaller dimension (rank of the derivative with respect to the parameters at a random point); else not "
        "reproduced. The inequality of VC dimensions follows from inclusion and says nothing more."
    )

    def cells(self, context: Context) -> Sequence[str]:
        return ["inclusion"]

    def compute(self, context: Context, cell: str) -> Figures:
        import torch

        from paper_checks.studies.published import LARGEST, adapted, difference, frozen_layer, inputs, methods

        worst: dict[str, float] = {}
        dimension: dict[str, int] = {}
        for index in range(DRAWS):
            seed = context.seed_for(self.id, str(index))
            base, x = frozen_layer(seed), inputs(seed)
            for name, method in methods(seed).items():
                expected = method.forward(x, base.weight, base.bias)
                with torch.no_grad():
                    actual = adapted(base, LARGEST, method.embedded(base.weight))(x)
                worst[name] = max(worst.get(name, 0.0), difference(actual, expected))
                if index == 0:
                    dimension[name] = _dimension(method.config, method.parameters, seed)
            if index == 0:
                dimension["GLoRA"] = _dimension(LARGEST, {}, seed)
        return {"difference": worst, "dimension": dimension, "draws": DRAWS}

    def judge(self, cells: Mapping[str, Figures]) -> Outcome:
        figures = cells["inclusion"]
        worst, dimension = figures["difference"], figures["dimension"]
        holds = all(value <= EXACT for value in worst.values()) and all(
            dimension[name] <= dimension["GLoRA"] for name in worst
        )
        rows = [Row(f"{name}: difference from GLoRA's largest structure", None, v) for name, v in worst.items()]
        rows += [Row(f"{name}: dimension of its family on one layer", None, v) for name, v in dimension.items()]
        return Outcome(
            Verdict.BY_CONSTRUCTION if holds else Verdict.NOT_REPRODUCED,
            f"{len(worst)} methods lie inside (largest difference {max(worst.values()):.1e}); dimension "
            f"{dimension['GLoRA']} against at most {max(dimension[name] for name in worst)}.",
            tuple(rows),
        )


def _dimension(config: LayerConfig, parameters: dict[str, Tensor], seed: int) -> int:
    """Rank of the derivative of (outputs on random inputs) with respect to all parameters, at a random point."""
    import torch

    from paper_checks.studies.published import adapted, frozen_layer, inputs

    layer = adapted(frozen_layer(seed), config, parameters)
    values = {name: p.detach() for name, p in layer.named_parameters() if p.requires_grad}
    if not values:
        return 0
    generator = torch.Generator().manual_seed(seed)
    values = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in values.items()}
    x = inputs(seed)
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(layer, p, (x,)).flatten())(values)
    columns = [part.reshape(x.shape[0] * layer.base.out_features, -1) for part in jacobian.values()]  # type: ignore[operator]
    return int(torch.linalg.matrix_rank(torch.cat(columns, dim=1)))


CHECK = HypothesisClass()
