"""What an adapter is made of: one frozen configuration a layer, and one for a model.

A configuration names the *structure* of each support tensor and nothing else decides what is computed::

    W_eff = W0 + W0∘A + B        (a_product="elementwise")      b_eff = b0 + b0∘D + E + W0 C
    W_eff = W0 + W0 A + B        (a_product="matmul")

====== ============ ============================== ==========================================
tensor shape        structures                     parameters
====== ============ ============================== ==========================================
A      (out, in)    none, scalar, vector, lora     0, 1, out, r(out + in)
A      (in, in)     the same, a_product="matmul"   0, 1, in (a diagonal), 2 r in
B      (out, in)    none, scalar, vector, lora     0, 1, out, r(out + in)
C      (in, 1)      none, vector, lora             0, in, r(in + 1)
D, E   (out, 1)     none, scalar, vector           0, 1, out
====== ============ ============================== ==========================================

Source: GLoRA (arXiv 2306.07967), Section 2 and its official code; α-LoRA (arXiv 2510.21345), Eq. 10.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

from glora._checks import of_kind, table, whole
from glora._files import DIGEST, unsealed

TENSORS = ("A", "B", "C", "D", "E")
STRUCTURES: dict[str, tuple[str, ...]] = {
    "A": ("none", "scalar", "vector", "lora"),
    "B": ("none", "scalar", "vector", "lora"),
    "C": ("none", "vector", "lora"),
    "D": ("none", "scalar", "vector"),
    "E": ("none", "scalar", "vector"),
}
A_PRODUCTS = ("elementwise", "matmul")
NORMS = ("trained", "frozen")
INITS = ("kaiming", "xavier", "gaussian")
#: Where the step of each support tensor comes from, see `GLoRAConfig`.
STEPS = ("balanced", "data-free", "raw")

#: Larger than any layer.
MOST_RANK = 10**6

Target = str | Sequence[str] | Callable[[str, Any], bool]


def structure_count(structure: str, rows: int, cols: int, rank: int) -> int:
    """Number of parameters of one support tensor of shape (rows, cols)."""
    return {"none": 0, "scalar": 1, "vector": rows, "lora": rank * (rows + cols)}[structure]


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """The five support tensors of one layer.

    Args:
        A, B, C, D, E: structure of each tensor, one of the choices in the table above.
        rank: rank of every "lora" tensor of the layer.
        a_product: "elementwise" for ``W0∘A`` (all published code) or "matmul" for ``W0 A`` (the printed
            formula).
        tie_a_d: D is the same tensor as A, so that the layer computes ``alpha ∘ (W0 x + b0) + …`` (α-LoRA).
        alpha: initial value of ``1 + A`` for a scalar or vector A; 1 starts at the identity.
        train_alpha: whether a scalar or vector A is trained.
        lora_scale: LoRA's own factor (α/r or α/√r) on a low-rank B; not to be confused with ``alpha``.
        dropout: probability of dropping an input of a low-rank B while training.
        init: how the input-side factor of a "lora" tensor is drawn: "kaiming" (uniform, a = √5, as LoRA),
            "xavier" (uniform, as GLoRA) or "gaussian" (standard deviation 1/√rank, as α-LoRA).
        recompute: recompute the base output in the backward pass instead of keeping it for A's gradient.

    Raises:
        ValueError: a field has a value that is not one of its choices, or two fields contradict each other.

    >>> import glora
    >>> layer = glora.LayerConfig(A="scalar", B="lora", rank=2)
    >>> layer.count(8, 6, bias=True)
    {'A': 1, 'B': 28, 'C': 0, 'D': 0, 'E': 0}
    """

    A: str = "none"
    B: str = "none"
    C: str = "none"
    D: str = "none"
    E: str = "none"
    rank: int = 8
    a_product: str = "elementwise"
    tie_a_d: bool = False
    alpha: float = 1.0
    train_alpha: bool = True
    lora_scale: float = 1.0
    dropout: float = 0.0
    init: str = "kaiming"
    recompute: bool = False

    def __post_init__(self) -> None:
        for name in TENSORS:
            _one_of(name, getattr(self, name), STRUCTURES[name])
        _one_of("a_product", self.a_product, A_PRODUCTS)
        _one_of("init", self.init, INITS)
        whole("rank", self.rank, 1, MOST_RANK)
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, Real) or not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout!r}")
        for name in ("tie_a_d", "train_alpha", "recompute"):
            of_kind(name, getattr(self, name), bool)
        for name in ("alpha", "lora_scale"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value!r}")
        if self.tie_a_d and (self.A not in ("scalar", "vector") or self.D != self.A):
            raise ValueError(
                f"tie_a_d=True makes D the same tensor as A, which needs A = D = 'scalar' or 'vector'; "
                f"got A={self.A!r}, D={self.D!r}"
            )
        if self.tie_a_d and self.a_product == "matmul" and self.A == "vector":
            raise ValueError(
                "tie_a_d=True needs a vector A over outputs, but a_product='matmul' makes it a diagonal over "
                "inputs; use a_product='elementwise'"
            )
        if self.A not in ("scalar", "vector") and (self.alpha != 1.0 or not self.train_alpha):
            raise ValueError(
                f"alpha={self.alpha} and train_alpha={self.train_alpha} describe a scalar or vector A, "
                f"got A={self.A!r}; set A or leave both at their defaults"
            )

    @property
    def is_empty(self) -> bool:
        """True if no support tensor is present."""
        return all(getattr(self, name) == "none" for name in TENSORS)

    @property
    def summary(self) -> str:
        """The structures in one line, for tables: ``A=vector B=lora(8)``."""
        parts = []
        for name in TENSORS:
            structure = getattr(self, name)
            if structure != "none":
                parts.append(f"{name}={structure}" + (f"({self.rank})" if structure == "lora" else ""))
        return " ".join(parts) + (" tied" if self.tie_a_d else "") if parts else "none"

    def count(self, out_features: int, in_features: int, bias: bool = True) -> dict[str, int]:
        """Trainable parameters of each support tensor on a layer of the given shape.

        Args:
            out_features: rows of W0.
            in_features: columns of W0 (in·k·k for a convolution).
            bias: whether the layer has a bias; without one D has nothing to scale and no parameters.

        Returns:
            ``{"A": …, "B": …, "C": …, "D": …, "E": …}``.
        """
        shapes = self.shapes(out_features, in_features)
        counts = {name: structure_count(getattr(self, name), *shapes[name], self.rank) for name in TENSORS}
        if self.tie_a_d or not bias:
            counts["D"] = 0
        if not self.train_alpha:
            counts["A"] = 0
        return counts

    def shapes(self, out_features: int, in_features: int) -> dict[str, tuple[int, int]]:
        """Shape (rows, cols) of the dense form of each support tensor."""
        # A scalar A is a multiple of W0 in both readings.
        square = self.a_product == "matmul" and self.A in ("vector", "lora")
        a_rows = in_features if square else out_features
        return {
            "A": (a_rows, in_features),
            "B": (out_features, in_features),
            "C": (in_features, 1),
            "D": (out_features, 1),
            "E": (out_features, 1),
        }

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults, ready for JSON or TOML."""
        return {
            spec.name: getattr(self, spec.name)
            for spec in dataclasses.fields(LayerConfig)
            if getattr(self, spec.name) != spec.default
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LayerConfig:
        """Inverse of `to_dict`; unknown fields are an error."""
        _known_fields(values, LayerConfig)
        return LayerConfig(**values)


@dataclass(frozen=True, kw_only=True)
class GLoRAConfig(LayerConfig):
    """Which layers of a model are adapted, and how: a `LayerConfig` for all of them, plus exceptions.

    Args:
        target: which layers. ``"all-linear"``: every linear layer; another string: a regular expression
            searched in module names; a list: module names, or their last components; a function ``(name,
            module) -> bool``.
        overrides: ``{pattern: LayerConfig}`` for layers that differ; the first pattern found in the layer's
            name counts. An empty `LayerConfig` leaves the layer alone.
        modules_to_save: names (or last components) of modules trained in full and stored with the adapter,
            typically the classification head.
        exclude_heads: leave output layers alone (a list of names in `target` is taken at its word).
        steps: the fixed factor of every support tensor, by which one learning rate serves all structures (see
            `glora.layer.steps`). "balanced": estimated from the weights by `attach` and measured on the first training
            batch by `glora.balance`, `glora tune` and `glora search`; "data-free": the estimate stays; "raw": all are
            1, as in the papers.
        norms: running statistics (BatchNorm) while training: "trained" moves them and keeps them with the adapter,
            "frozen" normalises with the base's in training too.

    The remaining arguments are those of `LayerConfig` and describe every targeted layer without an override.

    >>> import glora
    >>> config = glora.GLoRAConfig(A="vector", B="lora", rank=4, overrides={"2": glora.LayerConfig()})
    >>> config.A, config.rank, glora.GLoRAConfig.from_dict(config.to_dict()) == config
    ('vector', 4, True)
    """

    target: Target = "all-linear"
    overrides: Mapping[str, LayerConfig] = field(default_factory=dict)
    modules_to_save: Sequence[str] = ()
    exclude_heads: bool = True
    steps: str = "balanced"
    norms: str = "trained"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("steps", self.steps, STEPS)
        _one_of("norms", self.norms, NORMS)
        if isinstance(self.target, str):
            _pattern("target", self.target)
        elif isinstance(self.target, Sequence):
            if not self.target or not all(isinstance(name, str) for name in self.target):
                raise ValueError(f"target must be a non-empty list of module names, got {self.target!r}")
            object.__setattr__(self, "target", tuple(self.target))
        elif not callable(self.target):
            raise ValueError(f"target must be a string, a list of names or a function, got {self.target!r}")
        of_kind("exclude_heads", self.exclude_heads, bool)
        if isinstance(self.modules_to_save, str):
            raise ValueError(f"modules_to_save must be a list of names, got the string {self.modules_to_save!r}")
        table("overrides", self.overrides)
        for pattern, layer in self.overrides.items():
            _pattern("overrides", pattern)
            if not isinstance(layer, LayerConfig):
                raise ValueError(f"overrides[{pattern!r}] must be a LayerConfig, got {layer!r}")
        if not isinstance(self.modules_to_save, Sequence) or not all(isinstance(n, str) for n in self.modules_to_save):
            raise ValueError(f"modules_to_save must be a list of names, got {self.modules_to_save!r}")
        object.__setattr__(self, "modules_to_save", tuple(self.modules_to_save))
        object.__setattr__(self, "overrides", dict(self.overrides))

    @cached_property
    def layer(self) -> LayerConfig:
        """The configuration of a targeted layer without an override."""
        return LayerConfig(**{spec.name: getattr(self, spec.name) for spec in dataclasses.fields(LayerConfig)})

    def layer_for(self, name: str) -> LayerConfig:
        """The configuration of the targeted layer called `name`."""
        pattern = self.override_for(name)
        return self.layer if pattern is None else self.overrides[pattern]

    def override_for(self, name: str) -> str | None:
        """The first pattern of `overrides` that is found in a layer's name, or None."""
        exact, others = self._patterns
        found = exact.get(name, (len(self.overrides), None))
        for place, pattern in others:
            if place > found[0]:
                break
            if pattern.search(name):
                return pattern.pattern
        return found[1]

    @cached_property
    def _patterns(self) -> tuple[dict[str, tuple[int, str]], list[tuple[int, re.Pattern[str]]]]:
        """Overrides of one layer, by its name (`explicit` writes thousands), and all others, each with its place."""
        exact: dict[str, tuple[int, str]] = {}
        others: list[tuple[int, re.Pattern[str]]] = []
        for place, pattern in enumerate(self.overrides):
            name = re.sub(r"\\(.)", r"\1", pattern[1:-1])
            if pattern == f"^{re.escape(name)}$":
                exact.setdefault(name, (place, pattern))
            else:
                others.append((place, re.compile(pattern)))
        return exact, others

    @classmethod
    def explicit(
        cls, layers: Mapping[str, LayerConfig], modules_to_save: Sequence[str] = (), *, steps: str = "balanced"
    ) -> GLoRAConfig:
        """A configuration that names every layer, as a search or a checkpoint gives it.

        The most frequent `LayerConfig` becomes the default and the others become overrides, so the result is
        short for a uniform model.
        """
        common = Counter(layers.values()).most_common(1)[0][0] if layers else LayerConfig()
        overrides = {f"^{re.escape(name)}$": layer for name, layer in layers.items() if layer != common}
        return cls(
            target=tuple(layers) or "all-linear",
            overrides=overrides,
            modules_to_save=modules_to_save,
            exclude_heads=False,
            steps=steps,
            **dataclasses.asdict(common),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults, and always `steps`, ready for JSON or TOML.

        Raises:
            ValueError: `target` is a function, which has no text form.
        """
        if callable(self.target):
            raise ValueError(
                "target is a function and cannot be written to a file; attach it and save the adapter, "
                "or give the module names"
            )
        values: dict[str, Any] = {"target": self.target if isinstance(self.target, str) else list(self.target)}
        values |= super().to_dict()
        if self.overrides:
            values["overrides"] = {pattern: layer.to_dict() for pattern, layer in self.overrides.items()}
        if self.modules_to_save:
            values["modules_to_save"] = list(self.modules_to_save)
        if not self.exclude_heads:
            values["exclude_heads"] = False
        if self.norms != "trained":
            values["norms"] = self.norms
        return {**values, "steps": self.steps}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GLoRAConfig:
        """Inverse of `to_dict`; unknown fields are an error, and without `steps` they are "raw", as before there were
        any.  A ``digest`` that the file of a search carries must fit.
        """
        if DIGEST in values:
            values = unsealed(values, "configuration")
        _known_fields(values, GLoRAConfig)
        table("overrides", values.get("overrides", {}))
        overrides = {key: LayerConfig.from_dict(layer) for key, layer in values.get("overrides", {}).items()}
        return cls(**{"steps": "raw", **values, "overrides": overrides})


def all_layer_configs(**common: Any) -> Iterator[LayerConfig]:
    """The 4·4·3·3·3 = 432 structures of one layer, the search space of the GLoRA paper (all none
    included).

    >>> import glora
    >>> len(list(glora.all_layer_configs()))
    432
    """
    for structures in itertools.product(*STRUCTURES.values()):
        fields: dict[str, Any] = dict(zip(TENSORS, structures, strict=True))
        yield LayerConfig(**fields, **common)


def _one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def _pattern(name: str, value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{name}={value!r} is not a regular expression: {error}") from error


def _known_fields(values: Mapping[str, Any], cls: type) -> None:
    table("the configuration of a layer" if cls is LayerConfig else "a configuration", values)
    names = {spec.name for spec in dataclasses.fields(cls)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ValueError(f"unknown configuration fields {unknown}; known fields are {sorted(names)}")
