"""The support tensors: small objects that stand for a matrix without holding it.

Each knows the shape (rows, cols) of the matrix it stands for, its parameters and their initial values, its
dense form, and what stands for it without the dense form: `factors` (an exact factorisation with few columns),
`column` (for the one-column tensors C, D, E), `as_a` and `as_b` (what it does to a layer as A and as B).  All start at
zero, so that an adapted layer starts as the layer it adapts.  The matrix is a fixed factor, `step`, times what the
parameters say: see `glora.layer.steps`.

A new structure is a class here, its name in `STRUCTURES`, and its line in `glora.config`, which says which tensors may
have it and counts its parameters without PyTorch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from glora.layer.forward import Factors, Terms
from glora.layer.geometry import ConvOp, Op


class Start(NamedTuple):
    """What the initial numbers of a support tensor are made from.

    Attributes:
        rank: rank of a low-rank tensor.
        dtype: dtype of the parameters.
        init: see `LayerConfig.init`.
        fill: initial value of a scalar or vector.
        generator: source of the random factor (torch's global one if None).
    """

    rank: int
    dtype: torch.dtype
    init: str = "kaiming"
    fill: float = 0.0
    generator: torch.Generator | None = None


class SupportTensor(nn.Module, ABC):
    """One of A … E of a layer: stands for a matrix of shape (rows, cols).

    Attributes:
        step: fixed factor on the matrix, no parameter and in no state dict; 1 is the paper's.
    """

    step: float = 1.0

    def __init__(self, rows: int, cols: int) -> None:
        super().__init__()
        self.rows, self.cols = rows, cols

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix itself, shape (rows, cols), formed in `dtype`: for merging and for tests."""
        left, right = self.factors()
        return left.to(dtype) @ right.to(dtype)

    @classmethod
    @abstractmethod
    def create(cls, rows: int, cols: int, start: Start) -> Self:
        """A tensor with its initial numbers."""

    @classmethod
    def slice_of(cls, source: SupportTensor) -> SupportTensor:
        """The tensor of this structure on the numbers of a larger one, taken anew at each use."""
        raise NotImplementedError

    @property
    @abstractmethod
    def numbers(self) -> nn.Parameter:
        """The parameter that starts at zero and that the step acts on."""

    def copy_from(self, source: SupportTensor) -> None:
        """Take over the numbers, and the step, of a tensor of the same structure."""
        self.step = source.step
        self.numbers.copy_(source.numbers)

    def factors(self) -> tuple[Tensor, Tensor]:
        """`(left, right)` of shapes (rows, k) and (k, cols) with ``left @ right == dense()`` and k small."""
        raise NotImplementedError

    def as_a(self, op: Op, weight: Tensor, product: bool) -> Terms:
        """What it does to a layer with this weight (out, in) as A; `product`: as W0 A, not W0∘A."""
        raise NotImplementedError

    def multiplies(self, product: bool) -> bool:
        """Whether as A it multiplies W0 as a matrix, in the reading that `product` says."""
        return False

    def as_b(self, lora_scale: float, dropout: float) -> Factors:
        """The thin product that it adds to the weight as B."""
        return Factors(*self.factors())

    def scale_as_b(self, lora_scale: float) -> float:
        """Its factor as B: LoRA's own scale is for a low-rank B."""
        return 1.0

    def column(self, *, bare: bool = False) -> Tensor:
        """The only column, (rows,), of a tensor with cols = 1; `bare`: without the step."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Shape of the matrix, for ``print(model)``."""
        return f"{self.rows}×{self.cols}" + ("" if self.step == 1.0 else f", step {self.step:.3g}")

    def _stepped(self, parameter: Tensor) -> Tensor:
        # Not a product with 1: raw tensors cost nothing and keep their bits.
        return parameter if self.step == 1.0 else parameter * self.step


class Entries(SupportTensor):
    """A tensor whose numbers are its entries, up to the step. Parameter: `value`."""

    value: nn.Parameter

    @property
    def numbers(self) -> nn.Parameter:
        """`value`."""
        return self.value

    @property
    def entries(self) -> Tensor:
        """The numbers that the matrix holds: step · value."""
        return self._stepped(self.value)

    @classmethod
    def create(cls, rows: int, cols: int, start: Start) -> Self:
        """All numbers are `fill`."""
        tensor = cls(rows, cols)
        tensor.value = nn.Parameter(torch.full((cls.count(rows),), start.fill, dtype=start.dtype))
        return tensor

    @staticmethod
    def count(rows: int) -> int:
        """How many numbers there are: one a row."""
        return rows

    def as_a(self, op: Op, weight: Tensor, product: bool) -> Terms:
        """It scales the outputs, in both readings."""
        return Terms(scale=self.entries)


class Scalar(Entries):
    """One number, the same for every entry. Parameter: `value` (1,)."""

    @staticmethod
    def count(rows: int) -> int:
        """One."""
        return 1

    @classmethod
    def slice_of(cls, source: SupportTensor) -> SupportTensor:
        """Entry (0, 0) of a left factor, or entry 0 of a vector."""
        return _SlicedScalar(source)

    def factors(self) -> tuple[Tensor, Tensor]:
        """(rows, 1) and a row of ones (1, cols)."""
        return self.entries.expand(self.rows, 1), self.value.new_ones(1, self.cols)

    def column(self, *, bare: bool = False) -> Tensor:
        """The entry, once a row."""
        return (self.value if bare else self.entries).expand(self.rows)


class Vector(Entries):
    """One number a row. Parameter: `value` (rows,)."""

    @classmethod
    def slice_of(cls, source: SupportTensor) -> SupportTensor:
        """Column 0 of a left factor, or a vector itself."""
        return _SlicedVector(source)

    def factors(self) -> tuple[Tensor, Tensor]:
        """(rows, 1) and a row of ones (1, cols)."""
        return self.entries[:, None], self.value.new_ones(1, self.cols)

    def column(self, *, bare: bool = False) -> Tensor:
        """The entries themselves."""
        return self.value if bare else self.entries


class Diagonal(Entries):
    """A diagonal matrix: a vector A in the matrix-product reading. Parameter: `value` (rows,)."""

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """(rows, rows)."""
        return self._stepped(torch.diag(self.value.to(dtype)))

    def as_a(self, op: Op, weight: Tensor, product: bool) -> Terms:
        """It scales the inputs; a kernel's taps are scaled one by one, which no scaling of the input does."""
        if isinstance(op, ConvOp):
            return Terms(hadamard=Factors(self.value.new_ones(weight.shape[0], 1), self.entries[None]))
        return Terms(input_scale=self.entries)

    def multiplies(self, product: bool) -> bool:
        """Always: it exists in that reading only."""
        return True


def share_value(tensor: Scalar | Vector, value: nn.Parameter) -> None:
    """Let a tensor hold the parameter of another one from here on.

    In a state dict it has a copy under its own name, so that safetensors, which refuses tensors that share memory,
    writes it (transformers' Trainer does); loading fills the one parameter from each of the equal copies.
    """
    if value is not tensor.value:
        tensor.value = value
        tensor.register_state_dict_post_hook(_copy_value)


def _copy_value(tensor: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    state[f"{prefix}value"] = state[f"{prefix}value"].clone()


class LowRank(SupportTensor):
    """A product of two thin matrices. Parameters: `left` (rows, rank), zero; `right` (rank, cols), drawn.

    GLoRA calls the two factors "down" and "up"; LoRA calls them B and A.
    """

    left: nn.Parameter
    right: nn.Parameter

    @classmethod
    def create(cls, rows: int, cols: int, start: Start) -> Self:
        """`left` zero, `right` drawn as `init` says."""
        tensor = cls(rows, cols)
        tensor.left = nn.Parameter(torch.zeros(rows, start.rank, dtype=start.dtype))
        tensor.right = nn.Parameter(torch.empty(start.rank, cols, dtype=start.dtype))
        if start.init == "kaiming":
            nn.init.kaiming_uniform_(tensor.right, a=math.sqrt(5), generator=start.generator)
        elif start.init == "xavier":
            nn.init.xavier_uniform_(tensor.right, generator=start.generator)
        else:
            nn.init.normal_(tensor.right, std=1 / math.sqrt(start.rank), generator=start.generator)
        return tensor

    @classmethod
    def slice_of(cls, source: SupportTensor) -> SupportTensor:
        """The whole low-rank tensor, with a step of its own."""
        return _SlicedLowRank(source)

    @property
    def numbers(self) -> nn.Parameter:
        """`left`."""
        return self.left

    def copy_from(self, source: SupportTensor) -> None:
        """Both factors, and the step."""
        super().copy_from(source)
        assert isinstance(source, LowRank)
        self.right.copy_(source.right)

    def as_a(self, op: Op, weight: Tensor, product: bool) -> Terms:
        """W0 A is thin itself; W0∘A is the one structure that needs an object the size of W0."""
        left, right = self.factors()
        if product:
            return Terms(additive=(Factors(weight @ left.to(weight.dtype), right),))
        return Terms(hadamard=Factors(left, right))

    def multiplies(self, product: bool) -> bool:
        """In the matrix-product reading."""
        return product

    def as_b(self, lora_scale: float, dropout: float) -> Factors:
        """LoRA, with its scale and its dropout."""
        left, right = self.factors()
        return Factors(left if lora_scale == 1.0 else left * lora_scale, right, dropout)

    def scale_as_b(self, lora_scale: float) -> float:
        """LoRA's own scale."""
        return lora_scale

    def factors(self) -> tuple[Tensor, Tensor]:
        """(rows, rank) and (rank, cols): the parameters themselves, `left` times the step."""
        return self._stepped(self.left), self.right

    def column(self, *, bare: bool = False) -> Tensor:
        """The product."""
        return ((self.left if bare else self._stepped(self.left)) @ self.right)[:, 0]

    def extra_repr(self) -> str:
        """Shape, step and rank, for ``print(model)``."""
        return f"{super().extra_repr()}, rank {self.left.shape[1]}"


class _Sliced(SupportTensor):
    """A support tensor whose value is a slice of another's, taken anew at each use so that gradients reach it."""

    def __init__(self, source: SupportTensor) -> None:
        super().__init__(source.rows, source.cols)
        # Not a submodule: the numbers belong to the supernet.
        object.__setattr__(self, "source", source)


class _SlicedVector(_Sliced, Vector):
    """Column 0 of a left factor, or a vector itself."""

    source: Vector | LowRank

    @property
    def value(self) -> Tensor:  # type: ignore[override]
        """(rows,)."""
        # Contiguous, so that W0 C adds up in the order it does for a plain vector: outputs agree bit for bit.
        return self.source.left[:, 0].contiguous() if isinstance(self.source, LowRank) else self.source.value


class _SlicedScalar(_Sliced, Scalar):
    """Entry (0, 0) of a left factor, or entry 0 of a vector."""

    source: Vector | LowRank

    @property
    def value(self) -> Tensor:  # type: ignore[override]
        """(1,)."""
        return self.source.left[0, :1] if isinstance(self.source, LowRank) else self.source.value[:1]


class _SlicedLowRank(_Sliced, LowRank):
    """The whole low-rank tensor with a step of its own."""

    source: LowRank

    @property
    def left(self) -> Tensor:  # type: ignore[override]
        """(rows, rank)."""
        return self.source.left

    @property
    def right(self) -> Tensor:  # type: ignore[override]
        """(rank, cols)."""
        return self.source.right


#: The structures by the name that a configuration gives them; "diagonal" is a vector A in the matrix-product reading.
STRUCTURES: dict[str, type[SupportTensor]] = {
    "scalar": Scalar,
    "vector": Vector,
    "diagonal": Diagonal,
    "lora": LowRank,
}
