"""One model that holds all 432 structures of every layer, with shared weights.

The supernet is the adapter with A, B, C low-rank and D, E vectors; every other structure is a slice of it, as
in the official code of GLoRA (arXiv 2306.07967): "vector" is column 0 of the same left factor, "scalar" its
entry (0, 0).  Training draws one subnet a step; the search then compares subnets without training them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glora.config import STEPS, STRUCTURES, TENSORS, GLoRAConfig, LayerConfig, Target
from glora.engines.space import Genome, layer_config
from glora.layer.adapter import Adapter
from glora.layer.forward import join
from glora.layer.tensors import LowRank, Scalar, SupportTensor, Vector
from glora.layer.wrappers import AdaptedLayer, SavedModule, parameters_of, swap_out_all
from glora.model.attaching import attach, detach
from glora.model.balancing import estimate
from glora.model.report import Report
from glora.model.state import adapted_modules, buffers_of, check_name, require_state, set_buffers, switch, unwrap
from glora.search.model_space import space_of

#: How a training step draws its subnets.
SAMPLINGS = ("uniform", "sandwich")
#: Structures that a layer keeps ready, the newest; each takes about 8 KiB, and there are 432.
KEPT = 32


class SuperNet:
    """A model with the weight-shared adapter of all subnets, attached in place.

    Args:
        model: any model; everything of it is frozen but `modules_to_save`.
        rank: rank of the low-rank tensors.
        target: which layers; see `GLoRAConfig`.
        modules_to_save: modules trained in full and shared by all subnets (the head).
        structures: structures allowed for each tensor, all of them by default.
        generator: source of the random factors; torch's global generator if None.
        name: name of the adapter on the model.
        steps: see `GLoRAConfig`. Every choice of every tensor has a step of its own, so that subnets trained together
            move alike; the paper's supernet is "raw".

    Attributes:
        model: the model.
        space: its search space.
        report: parameters of the largest subnet.

    Raises:
        ValueError: the target matches nothing, the name is taken, or there is nothing to train; the model is left as
            it was.

    >>> import glora
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    >>> supernet = glora.SuperNet(model, rank=2, target=["0"])
    >>> len(supernet.draws(seed=0, step=0, count=3))
    3
    """

    def __init__(
        self,
        model: nn.Module,
        rank: int = 4,
        target: Target = "all-linear",
        *,
        modules_to_save: Sequence[str] = (),
        structures: dict[str, Sequence[str]] | None = None,
        generator: torch.Generator | None = None,
        name: str = "supernet",
        steps: str = "balanced",
    ) -> None:
        check_name(name)
        if steps not in STEPS:
            raise ValueError(f"steps must be one of {', '.join(STEPS)}; got {steps!r}")
        self.model, self.name, self.steps = model, name, steps
        self.modules_to_save = tuple(modules_to_save)
        self.space = space_of(unwrap(model), rank, target, modules_to_save=modules_to_save, structures=structures)
        if not self.modules_to_save and not self.space.count(self.space.largest):
            raise ValueError("nothing is to be trained: structures allows only 'none', and modules_to_save is empty")
        layers = {layer.name: full_config(rank, layer.bias) for layer in self.space.layers}
        raw = GLoRAConfig.explicit(layers, modules_to_save, steps="raw")
        self.report: Report = attach(model, raw, name, generator=generator)
        self._layers: list[tuple[AdaptedLayer, SuperAdapter]] = []
        modules = dict(adapted_modules(model))
        for layer in self.space.layers:
            module = modules[layer.name]
            assert isinstance(module, AdaptedLayer)
            adapter = SuperAdapter(module.adapters[name])  # type: ignore[arg-type]
            module.adapters[name] = adapter
            self._layers.append((module, adapter))
        if steps != "raw":
            estimate(model, name)  # with the slices' own steps, which a plain adapter has not
        self.genome: Genome = self.space.largest
        self.select(self.genome)

    def select(self, genome: Genome) -> None:
        """Compute with this subnet from now on.

        Raises:
            ValueError: `genome` is no subnet of the space.
        """
        self.space.check(genome)
        for (_, adapter), genes in zip(self._layers, genome, strict=True):
            adapter.choose(layer_config(genes, self.space.rank))
        self.genome = genome.copy()

    def draws(self, seed: int, step: int, sampling: str = "uniform", count: int = 1) -> list[Genome]:
        """The subnets that training step `step` averages its gradient over.

        They follow from (seed, step) alone, so a resumed run draws what an unbroken one would. At least one of them
        has something to train.

        Args:
            seed, step: where in the run.
            sampling: "uniform" draws `count` subnets (the paper: one); "sandwich" adds the largest and the
                smallest to them.
            count: number of random subnets.

        Raises:
            ValueError: `sampling` is neither, or `count` < 1.
        """
        if sampling not in SAMPLINGS or count < 1:
            raise ValueError(
                f"sampling must be one of {', '.join(SAMPLINGS)} and count at least 1; got {sampling!r}, {count}"
            )
        rng = np.random.default_rng([seed, step])
        random = [self.space.sample(rng) for _ in range(count)]
        # Without a head, subnets of nothing leave nothing to train in this step: draw again.
        while not self.modules_to_save and not any(map(self.space.count, random)):
            random = [self.space.sample(rng) for _ in range(count)]
        return random if sampling == "uniform" else [self.space.largest, *random, self.space.smallest]

    @contextmanager
    def merged(self, genome: Genome) -> Iterator[None]:
        """Inside the ``with`` block the model is the base model with this subnet in its weights.

        Formed in the adapter's precision, not float64 as `glora.merge` does: a search merges a thousand
        times. Relative error ≤ 1e-6 in float32.
        """
        state = require_state(self.model)
        if state.merged is not None:
            raise ValueError(f"adapter {state.merged!r} is merged into the weights: unmerge it first (glora.unmerge)")
        if state.active != self.name:
            switch(self.model, self.name)
        before = self.genome
        layers = [module for module, _ in self._layers]
        try:
            self.select(genome)
            for module, adapter in self._layers:
                empty = adapter.choice.config.is_empty
                base = module.base
                module.swap_in(self.name, parameters_of(base) if empty else adapter.choice_parameters(base))
            state.merged = self.name
            yield
        finally:
            swap_out_all(layers)
            state.merged = None
            self.select(before)

    def config(self, genome: Genome) -> GLoRAConfig:
        """The subnet as a configuration for `glora.attach`."""
        return self.space.config(genome, self.modules_to_save, steps=self.steps)

    def extract(self, genome: Genome, model: nn.Module | None = None, name: str = "found") -> Report:
        """Attach the subnet as a plain adapter with the weights it has in the supernet.

        Its outputs are those of the selected subnet, bit for bit.

        Args:
            genome: which subnet.
            model: a model like the one the supernet was built on; the supernet's own if None.
            name: name of the new adapter, which becomes the active one.

        Raises:
            ValueError: see `glora.attach`; the model is left as it was.
        """
        model = self.model if model is None else model
        generator = torch.Generator()  # the drawn factors are overwritten; the caller's numbers stay undisturbed
        report = attach(model, self.config(genome), name, generator=generator)
        targets = dict(adapted_modules(model))
        with torch.no_grad():
            for layer, (_, adapter), genes in zip(self.space.layers, self._layers, genome, strict=True):
                config = layer_config(genes, self.space.rank)
                if config.is_empty:
                    continue
                sources = Subnet(adapter, config)
                copies: Any = targets[layer.name].adapters[name]
                copies.stepped = adapter.stepped
                for tensor in TENSORS:
                    copy_tensor(getattr(sources, tensor), getattr(copies, tensor))
            for key, head in self._heads().items():
                targets[key].adapters[name].load_state_dict(head.adapters[self.name].state_dict())
        set_buffers(model, name, buffers_of(self.model, self.name))
        return report

    def _heads(self) -> dict[str, SavedModule]:
        """The modules that the supernet trains in full, by name."""
        found = dict(adapted_modules(self.model))
        return {key: m for key, m in found.items() if isinstance(m, SavedModule) and self.name in m.adapters}

    def detach(self) -> None:
        """Remove the supernet from its model (see `glora.detach`)."""
        detach(self.model, self.name)


def full_config(rank: int, bias: bool = True) -> LayerConfig:
    """The structure that all others are slices of, with the paper's initialisation."""
    d_tensor = "vector" if bias else "none"
    return LayerConfig(A="lora", B="lora", C="lora", D=d_tensor, E="vector", rank=rank, init="xavier")


class SuperAdapter(Adapter):
    """The largest adapter of a layer, computing with the slice that was chosen.

    Args:
        full: the adapter whose tensors it takes over (A, B, C low-rank, D, E vectors).
    """

    choice: Subnet

    def __init__(self, full: Adapter) -> None:
        nn.Module.__init__(self)
        self.config, self.op = full.config, full.op
        for name in TENSORS:
            setattr(self, name, getattr(full, name))
        self._subnets: dict[LayerConfig, Subnet] = {}
        self._steps: dict[str, float] = {}
        self.train(full.training)

    @property
    def step_names(self) -> dict[str, str]:
        """What has a step: each tensor, and as ``"A.vector"`` each slice of it that is another structure."""
        full = super().step_names
        slices = {
            f"{name}.{structure}": structure
            for name, own in full.items()
            for structure in STRUCTURES[name]
            if structure not in ("none", own)
        }
        return full | slices

    @property
    def steps(self) -> dict[str, float]:
        """The step of every tensor and of every slice of it."""
        return {key: self._steps.get(key, 1.0) for key in self.step_names}

    @steps.setter
    def steps(self, values: Mapping[str, float]) -> None:
        self._steps = {key: float(values.get(key, 1.0)) for key in self.step_names}
        self.stepped = True
        self._subnets.clear()
        if "choice" in self.__dict__:
            self.choose(self.choice.config)

    def step_of(self, name: str, structure: str) -> float:
        """The step of tensor `name` where it is chosen to have this structure."""
        own = getattr(self.config, name)
        return self._steps.get(name if structure == own else f"{name}.{structure}", 1.0)

    def choose(self, config: LayerConfig) -> None:
        """Compute with this structure from now on."""
        if config not in self._subnets:
            if len(self._subnets) >= KEPT:
                del self._subnets[next(iter(self._subnets))]
            self._subnets[config] = Subnet(self, config)
        # Not a submodule: its tensors are the supernet's own.
        object.__setattr__(self, "choice", self._subnets[config])

    def forward(self, x: Tensor, base: nn.Module) -> Tensor:
        """The output of `base` adapted by the chosen slice."""
        return self.choice(x, base)

    @property
    def adds_bias(self) -> bool:
        """See `Adapter.adds_bias`; of the chosen slice."""
        return self.choice.adds_bias

    @property
    def changes(self) -> tuple[bool, bool]:
        """See `Adapter.changes`; of the chosen slice."""
        return self.choice.changes

    def effective_weight(self, base: nn.Module, wide: torch.dtype) -> Tensor:
        """See `Adapter.effective_weight`; of the chosen slice."""
        return self.choice.effective_weight(base, wide)

    def effective_bias(self, base: nn.Module, wide: torch.dtype) -> Tensor | None:
        """See `Adapter.effective_bias`; of the chosen slice."""
        return self.choice.effective_bias(base, wide)

    @torch.no_grad()
    def choice_parameters(self, base: nn.Module) -> tuple[nn.Parameter, nn.Parameter | None]:
        """`effective` in the adapter's precision, as parameters."""
        original: Tensor = base.weight  # type: ignore[assignment]
        bias: Tensor | None = base.bias  # type: ignore[assignment]
        weight = self.op.matrix(original)
        terms = self.choice.terms(weight, bias)
        wide = weight.to(next(self.parameters()).dtype)
        total = wide
        if terms.hadamard is not None:
            total = torch.addcmul(wide, wide, terms.hadamard.left @ terms.hadamard.right)
        elif terms.scale is not None:
            total = wide * (1 + terms.scale.reshape(-1, 1))
        if terms.additive:
            left, right, _ = join(terms.additive)
            total = torch.addmm(total, left, right) if total is wide else total.addmm_(left, right)
        shift = terms.shift
        if bias is not None:
            scaled = bias if terms.scale is None else bias * (1 + terms.scale)
            shift = scaled if shift is None else scaled + shift
        frozen = None if shift is None else nn.Parameter(shift.to(original.dtype), requires_grad=False)
        return nn.Parameter(self.op.to_weight(total, original), requires_grad=False), frozen


class Subnet(Adapter):
    """One structure of a layer on slices of a supernet's tensors; holds no numbers of its own."""

    def __init__(self, full: SuperAdapter, config: LayerConfig) -> None:
        nn.Module.__init__(self)
        self.config, self.op, self.stepped = config, full.op, full.stepped
        for name in TENSORS:
            source: Any = getattr(full, name)
            structure = getattr(config, name) if source is not None else "none"
            setattr(self, name, _slice(source, structure, full.step_of(name, structure)))


class _Sliced(SupportTensor):
    """A support tensor whose value is a slice of another's, taken anew at each use so that gradients reach it."""

    def __init__(self, source: SupportTensor) -> None:
        SupportTensor.__init__(self, source.rows, source.cols)
        # Not a submodule: the numbers belong to the supernet.
        object.__setattr__(self, "_source", source)


class _SlicedVector(_Sliced, Vector):
    """Column 0 of a left factor, or a vector itself."""

    @property
    def value(self) -> Tensor:  # type: ignore[override]
        """(rows,)."""
        source: Any = self._source
        # Contiguous, so that W0 C adds up in the order it does for a plain vector: outputs agree bit for bit.
        return source.left[:, 0].contiguous() if isinstance(source, LowRank) else source.value


class _SlicedScalar(_Sliced, Scalar):
    """Entry (0, 0) of a left factor, or entry 0 of a vector."""

    @property
    def value(self) -> Tensor:  # type: ignore[override]
        """(1,)."""
        source: Any = self._source
        return source.left[0, :1] if isinstance(source, LowRank) else source.value[:1]


class _SlicedLowRank(_Sliced, LowRank):
    """The whole low-rank tensor with a step of its own."""

    @property
    def left(self) -> Tensor:  # type: ignore[override]
        """(rows, rank)."""
        source: Any = self._source
        return source.left

    @property
    def right(self) -> Tensor:  # type: ignore[override]
        """(rank, cols)."""
        source: Any = self._source
        return source.right


def _slice(source: SupportTensor | None, structure: str, step: float) -> SupportTensor | None:
    if structure == "none" or source is None:
        return None
    kind = {"scalar": _SlicedScalar, "vector": _SlicedVector}.get(structure, _SlicedLowRank)
    found = kind(source)
    found.step = step
    return found


def copy_tensor(source: SupportTensor | None, target: SupportTensor | None) -> None:
    """Copy the numbers of a support tensor, and its step, into one of the same structure."""
    if source is not None and target is not None:
        target.step = source.step
    if isinstance(source, LowRank) and isinstance(target, LowRank):
        target.left.copy_(source.left)
        target.right.copy_(source.right)
    elif isinstance(source, (Scalar, Vector)) and isinstance(target, (Scalar, Vector)):
        target.value.copy_(source.value)
