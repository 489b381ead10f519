"""The search space: which structures every layer may take, and what each costs.

A *genome* is an integer array (layers, 5): the index of the structure of A, B, C, D and E in
`config.STRUCTURES`.  Parameters are additive over its entries, so a table of costs holds all there is to know
about budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from glora.config import STRUCTURES, TENSORS, GLoRAConfig, LayerConfig

Genome = NDArray[np.int8]  # shape: (layers, 5)

#: Structures a tensor may take at most.
CHOICES = max(len(structures) for structures in STRUCTURES.values())


@dataclass(frozen=True)
class SearchLayer:
    """A layer of the space: its name in the model, its shape as a matrix, and whether it has a bias."""

    name: str
    out_features: int
    in_features: int
    bias: bool = True


@dataclass(frozen=True)
class Budget:
    """How many parameters a subnet may have: ``low ≤ parameters ≤ high``.

    Raises:
        ValueError: the interval is empty or negative.
    """

    high: int
    low: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(
                f"a budget needs 0 ≤ low ≤ high, got low={self.low}, high={self.high} (parameters, not millions)"
            )

    @classmethod
    def around(cls, parameters: int, tolerance: float = 0.05) -> Budget:
        """At most `parameters` and at most `tolerance` below."""
        return cls(parameters, int(np.ceil(parameters * (1 - tolerance))))

    def holds(self, parameters: int) -> bool:
        """True if a subnet of this size fits."""
        return self.low <= parameters <= self.high


@dataclass(frozen=True)
class SearchSpace:
    """All subnets of a model: every layer chooses the structures of A … E on its own.

    Args:
        layers: the layers.
        rank: rank of every "lora" tensor.
        structures: structures allowed for each tensor; the paper's 4·4·3·3·3 = 432 by default.

    Raises:
        ValueError: no layer, or a structure that does not exist.
    """

    layers: tuple[SearchLayer, ...]
    rank: int
    structures: Mapping[str, Sequence[str]] | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a search space needs at least one layer; check the target")
        for tensor, allowed in (self.structures or {}).items():
            if tensor not in STRUCTURES:
                raise ValueError(f"structures names the tensor {tensor!r}; tensors are {', '.join(TENSORS)}")
            listed = isinstance(allowed, Sequence) and not isinstance(allowed, str)
            if not listed or not allowed or any(name not in STRUCTURES[tensor] for name in allowed):
                raise ValueError(
                    f"structures[{tensor!r}] must be a list of some of {', '.join(STRUCTURES[tensor])}; got {allowed!r}"
                )
        LayerConfig(rank=self.rank)

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Which choices exist, shape (layers, 5, `CHOICES`)."""
        mask = np.zeros((len(self.layers), len(TENSORS), CHOICES), dtype=bool)
        for t, (tensor, names) in enumerate(STRUCTURES.items()):
            for c, name in enumerate(names):
                mask[:, t, c] = name in (self.structures or {}).get(tensor, names)
        for number, layer in enumerate(self.layers):
            if not layer.bias:
                # D scales a bias that is not there: all its structures are the same subnet.
                mask[number, TENSORS.index("D")] = [True] + [False] * (CHOICES - 1)
        return mask

    @cached_property
    def costs(self) -> NDArray[np.int64]:
        """Parameters of every choice, shape (layers, 5, `CHOICES`); those not allowed count 0."""
        table = np.zeros(self.allowed.shape, dtype=np.int64)
        for number, layer in enumerate(self.layers):
            for t, (tensor, names) in enumerate(STRUCTURES.items()):
                for c, name in enumerate(names):
                    config = LayerConfig(rank=self.rank, **{tensor: name})  # type: ignore[arg-type]
                    table[number, t, c] = config.count(layer.out_features, layer.in_features, layer.bias)[tensor]
        return np.where(self.allowed, table, 0)

    @property
    def log10_size(self) -> float:
        """log10 of the number of subnets (48·log10 432 = 126.5 for the paper's ViT-B/16)."""
        return float(np.log10(self.allowed.sum(axis=2)).sum())

    @cached_property
    def smallest(self) -> Genome:
        """The cheapest subnet (all "none" where that is allowed)."""
        return np.where(self.allowed, self.costs, np.iinfo(np.int64).max).argmin(axis=2).astype(np.int8)

    @cached_property
    def largest(self) -> Genome:
        """The subnet with most parameters."""
        return np.where(self.allowed, self.costs, -1).argmax(axis=2).astype(np.int8)

    def sample(self, rng: np.random.Generator) -> Genome:
        """A subnet, uniform over all of them."""
        return np.where(self.allowed, rng.random(self.allowed.shape), -1.0).argmax(axis=2).astype(np.int8)

    def count(self, genome: Genome) -> int:
        """Parameters of a subnet, without the modules that are trained in full."""
        return int(self.gene_costs(genome).sum())

    def gene_costs(self, genome: Genome) -> NDArray[np.int64]:
        """Parameters of every support tensor, shape (layers, 5)."""
        return np.take_along_axis(self.costs, genome[..., None].astype(np.int64), axis=2)[..., 0]

    def configs(self, genome: Genome) -> dict[str, LayerConfig]:
        """The configuration of every layer, empty ones included."""
        return {layer.name: layer_config(genes, self.rank) for layer, genes in zip(self.layers, genome, strict=True)}

    def config(self, genome: Genome, modules_to_save: Sequence[str] = (), *, steps: str = "balanced") -> GLoRAConfig:
        """The subnet as a configuration for `glora.attach`; layers without any support tensor are left out."""
        found = {name: layer for name, layer in self.configs(genome).items() if not layer.is_empty}
        if not found:
            # Nothing but the saved modules: a linear probe.
            return GLoRAConfig(modules_to_save=tuple(modules_to_save), steps=steps)
        return GLoRAConfig.explicit(found, modules_to_save, steps=steps)

    def genome(self, configs: Mapping[str, LayerConfig]) -> Genome:
        """Inverse of `configs`; layers that are absent have no support tensor.

        Raises:
            ValueError: a layer is not in the space, or a structure is not allowed there.
        """
        unknown = sorted(set(configs) - {layer.name for layer in self.layers})
        if unknown:
            raise ValueError(f"layers {unknown} are not in the search space; check its target")
        genome = np.zeros((len(self.layers), len(TENSORS)), dtype=np.int8)
        for number, layer in enumerate(self.layers):
            config = configs.get(layer.name, LayerConfig(rank=self.rank))
            for t, (tensor, names) in enumerate(STRUCTURES.items()):
                genome[number, t] = names.index(getattr(config, tensor))
        self.check(genome)
        return genome

    def check(self, genome: Genome) -> None:
        """Raise ValueError unless `genome` is a subnet of this space."""
        if genome.shape != self.allowed.shape[:2]:
            raise ValueError(f"genome has shape {genome.shape}, this space needs {self.allowed.shape[:2]}")
        if not np.isin(genome, np.arange(CHOICES)).all() or not np.all(
            np.take_along_axis(self.allowed, genome[..., None].astype(np.int64), axis=2)
        ):
            raise ValueError("genome holds a structure that is not allowed in this space")

    def fits(self, budget: Budget) -> None:
        """Raise ValueError if no subnet lies inside the budget."""
        self._overlaps(budget)
        costs = np.sort(np.where(self.allowed, self.costs, self.costs.max(axis=2, keepdims=True)), axis=2)
        # From the smallest subnet to the largest, genes grow in steps of at most this size: none jumps over a budget
        # that is as wide.
        step = int(np.diff(costs, axis=2).max())
        if budget.high - budget.low < step and not self._sizes(budget)[-1] >> budget.low:
            raise ValueError(
                f"no subnet has {budget.low:,} to {budget.high:,} parameters; widen the budget: a width of {step:,} "
                "always holds one"
            )

    def _overlaps(self, budget: Budget) -> None:
        """Raise ValueError if the budget lies outside the sizes of the space."""
        least, most = self.count(self.smallest), self.count(self.largest)
        if least > budget.high or most < budget.low:
            raise ValueError(
                f"the budget {budget.low:,}..{budget.high:,} fits no subnet: this space has {least:,} to {most:,} "
                f"parameters at rank {self.rank}; change the budget, the rank or the target"
            )

    def _sizes(self, budget: Budget) -> list[int]:
        """Which sizes up to the budget's limit the first 0, 1 … all genes can have together: bit s for size s."""
        within = (1 << min(budget.high, self.count(self.largest)) + 1) - 1
        sizes = [1]
        for allowed, costs in zip(self.allowed.reshape(-1, CHOICES), self.costs.reshape(-1, CHOICES), strict=True):
            grown = 0
            for cost in costs[allowed]:
                grown |= sizes[-1] << int(cost)
            sizes.append(grown & within)
        return sizes

    def repair(self, genome: Genome, budget: Budget, rng: np.random.Generator) -> Genome:
        """A subnet inside the budget, near the given one: random genes shrink, or grow, until it fits.

        A subnet that fits comes back unchanged. Where random steps do not arrive, because the budget is narrow, any
        random subnet inside it comes back.

        Raises:
            ValueError: no subnet fits the budget (see `fits`).
        """
        self._overlaps(budget)
        genome = genome.copy()
        for _ in range(64):
            if self._step_down(genome, budget, rng) and self._step_up(genome, budget, rng):
                return genome
        self.fits(budget)
        return self._assembled(budget, rng)

    def _assembled(self, budget: Budget, rng: np.random.Generator) -> Genome:
        """A subnet of a random size inside the budget, put together gene by gene from the last."""
        sizes = self._sizes(budget)
        fitting = bin(sizes[-1] >> budget.low)[:1:-1]
        left = budget.low + int(rng.choice([place for place, bit in enumerate(fitting) if bit == "1"]))
        genes = np.zeros(self.allowed[..., 0].size, dtype=np.int8)
        for gene in reversed(range(genes.size)):
            layer, tensor = divmod(gene, len(TENSORS))
            costs = self.costs[layer, tensor]
            options = [c for c in np.flatnonzero(self.allowed[layer, tensor]) if costs[c] <= left]
            genes[gene] = rng.choice([c for c in options if sizes[gene] >> (left - int(costs[c])) & 1])
            left -= int(costs[genes[gene]])
        return genes.reshape(self.allowed.shape[:2])

    def _step_down(self, genome: Genome, budget: Budget, rng: np.random.Generator) -> bool:
        """Shrink random genes until at most `budget.high` parameters are left."""
        while (size := self.count(genome)) > budget.high:
            cheaper = self.allowed & (self.costs < self.gene_costs(genome)[..., None])
            self._move(genome, cheaper, rng)
        return size <= budget.high

    def _step_up(self, genome: Genome, budget: Budget, rng: np.random.Generator) -> bool:
        """Grow random genes without passing `budget.high`; False if none can before `budget.low` is met."""
        while (size := self.count(genome)) < budget.low:
            growth = self.costs - self.gene_costs(genome)[..., None]
            costlier = self.allowed & (growth > 0) & (growth <= budget.high - size)
            if not costlier.any():
                # Stuck below a narrow budget: give something back, and let the caller try again.
                if self.count(genome) > self.count(self.smallest):
                    self._move(genome, self.allowed & (growth < 0), rng)
                return False
            self._move(genome, costlier, rng)
        return True

    @staticmethod
    def _move(genome: Genome, moves: NDArray[np.bool_], rng: np.random.Generator) -> None:
        """Take one of the moves, uniform over genes and then over the gene's choices."""
        genes = np.argwhere(moves.any(axis=2))
        layer, tensor = genes[rng.integers(len(genes))]
        genome[layer, tensor] = rng.choice(np.flatnonzero(moves[layer, tensor]))


def layer_config(genes: NDArray[np.int8], rank: int) -> LayerConfig:
    """The configuration of one layer from its five genes, with GLoRA's initialisation."""
    fields = {tensor: names[gene] for (tensor, names), gene in zip(STRUCTURES.items(), genes, strict=True)}
    return LayerConfig(rank=rank, init="xavier", **fields)
