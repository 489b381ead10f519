"""The support tensors: small objects that stand for a matrix without holding it.

Each knows the shape (rows, cols) of the matrix it stands for, its parameters and their initial values, its
dense form, and what stands for it without the dense form: `factors` (an exact factorisation with few columns)
and `column` (for the one-column tensors C, D, E).  All start at zero, so that an adapted layer starts as the
layer it adapts.  The matrix is a fixed factor, `step`, times what the parameters say: see `glora.layer.steps`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SupportTensor(nn.Module):
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

    def factors(self) -> tuple[Tensor, Tensor]:
        """`(left, right)` of shapes (rows, k) and (k, cols) with ``left @ right == dense()`` and k small."""
        raise NotImplementedError

    def column(self, *, bare: bool = False) -> Tensor:
        """The only column, (rows,), of a tensor with cols = 1; `bare`: without the step."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Shape of the matrix, for ``print(model)``."""
        return f"{self.rows}×{self.cols}" + ("" if self.step == 1.0 else f", step {self.step:.3g}")

    def _stepped(self, parameter: Tensor) -> Tensor:
        # Not a product with 1: raw tensors cost nothing and keep their bits.
        return parameter if self.step == 1.0 else parameter * self.step


class _Plain(SupportTensor):
    """A tensor whose numbers are its entries, up to the step. Parameter: `value`."""

    value: nn.Parameter

    @property
    def entries(self) -> Tensor:
        """The numbers that the matrix holds: step · value."""
        return self._stepped(self.value)


class Scalar(_Plain):
    """One number, the same for every entry. Parameter: `value` (1,)."""

    def __init__(self, rows: int, cols: int, dtype: torch.dtype, fill: float = 0.0) -> None:
        super().__init__(rows, cols)
        self.value = nn.Parameter(torch.full((1,), fill, dtype=dtype))

    def factors(self) -> tuple[Tensor, Tensor]:
        """(rows, 1) and a row of ones (1, cols)."""
        return self.entries.expand(self.rows, 1), self.value.new_ones(1, self.cols)

    def column(self, *, bare: bool = False) -> Tensor:
        """The entry, once a row."""
        return (self.value if bare else self.entries).expand(self.rows)


class Vector(_Plain):
    """One number a row. Parameter: `value` (rows,)."""

    def __init__(self, rows: int, cols: int, dtype: torch.dtype, fill: float = 0.0) -> None:
        super().__init__(rows, cols)
        self.value = nn.Parameter(torch.full((rows,), fill, dtype=dtype))

    def factors(self) -> tuple[Tensor, Tensor]:
        """(rows, 1) and a row of ones (1, cols)."""
        return self.entries[:, None], self.value.new_ones(1, self.cols)

    def column(self, *, bare: bool = False) -> Tensor:
        """The entries themselves."""
        return self.value if bare else self.entries


class Diagonal(_Plain):
    """A diagonal matrix: a vector A in the matrix-product reading. Parameter: `value` (rows,)."""

    def __init__(self, rows: int, dtype: torch.dtype, fill: float = 0.0) -> None:
        super().__init__(rows, rows)
        self.value = nn.Parameter(torch.full((rows,), fill, dtype=dtype))

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """(rows, rows)."""
        return self._stepped(torch.diag(self.value.to(dtype)))


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

    def __init__(
        self,
        rows: int,
        cols: int,
        rank: int,
        dtype: torch.dtype,
        init: str = "kaiming",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(rows, cols)
        self.left = nn.Parameter(torch.zeros(rows, rank, dtype=dtype))
        self.right = nn.Parameter(torch.empty(rank, cols, dtype=dtype))
        if init == "kaiming":
            nn.init.kaiming_uniform_(self.right, a=math.sqrt(5), generator=generator)
        elif init == "xavier":
            nn.init.xavier_uniform_(self.right, generator=generator)
        else:
            nn.init.normal_(self.right, std=1 / math.sqrt(rank), generator=generator)

    def factors(self) -> tuple[Tensor, Tensor]:
        """(rows, rank) and (rank, cols): the parameters themselves, `left` times the step."""
        return self._stepped(self.left), self.right

    def column(self, *, bare: bool = False) -> Tensor:
        """The product."""
        return ((self.left if bare else self._stepped(self.left)) @ self.right)[:, 0]

    def extra_repr(self) -> str:
        """Shape, step and rank, for ``print(model)``."""
        return f"{super().extra_repr()}, rank {self.left.shape[1]}"


def build(
    structure: str,
    rows: int,
    cols: int,
    rank: int,
    *,
    dtype: torch.dtype,
    init: str = "kaiming",
    fill: float = 0.0,
    generator: torch.Generator | None = None,
) -> SupportTensor | None:
    """The support tensor of the given structure, or None for "none".

    Args:
        structure: "none", "scalar", "vector", "lora", or "diagonal" for a square matrix.
        rows, cols: shape of the matrix it stands for.
        rank: rank of a "lora" tensor.
        dtype: dtype of the parameters.
        init: see `LayerConfig.init`.
        fill: initial value of a scalar or vector.
        generator: source of the random factor (torch's global one if None).
    """
    if structure == "none":
        return None
    if structure == "diagonal":
        return Diagonal(rows, dtype, fill)
    if structure == "scalar":
        return Scalar(rows, cols, dtype, fill)
    if structure == "vector":
        return Vector(rows, cols, dtype, fill)
    return LowRank(rows, cols, rank, dtype, init, generator)
