"""What every support tensor must do, against its dense form: a new structure inherits `TensorCase` and names itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glora.config import structure_count
from glora.layer.forward import adapted_forward
from glora.layer.geometry import op_for
from glora.layer.tensors import STRUCTURES, Start, SupportTensor

ROWS, COLS, RANK = 5, 7, 3


class TensorCase:
    """`structure` is its name in `STRUCTURES`; `readings`: whether A may be W0∘A (False) and W0 A (True)."""

    structure: str
    readings: tuple[bool, ...] = (False,)
    #: Whether it stands for any shape and has thin factors, so that it may be B, C, D or E.
    thin = True

    def make(self, rows: int, cols: int, *, random: bool = True) -> SupportTensor:
        generator = torch.Generator().manual_seed(0)
        tensor = STRUCTURES[self.structure].create(rows, cols, Start(RANK, torch.float64, generator=generator))
        if random:
            with torch.no_grad():
                tensor.numbers.copy_(torch.randn(tensor.numbers.shape, generator=generator, dtype=torch.float64))
        tensor.step = 0.5
        return tensor

    def shape(self, product: bool) -> tuple[int, int]:
        return (COLS, COLS) if product else (ROWS, COLS)

    def test_it_starts_at_zero_and_has_the_parameters_that_a_configuration_counts(self) -> None:
        tensor = self.make(*self.shape(self.readings[0]), random=False)
        assert not tensor.dense(torch.float64).any()
        name = "vector" if self.structure == "diagonal" else self.structure
        assert sum(p.numel() for p in tensor.parameters()) == structure_count(name, tensor.rows, tensor.cols, RANK)

    def test_as_a_it_acts_as_its_dense_form(self) -> None:
        generator = torch.Generator().manual_seed(1)
        base = nn.Linear(COLS, ROWS, dtype=torch.float64).requires_grad_(False)
        x = torch.randn(4, COLS, generator=generator, dtype=torch.float64)
        op = op_for(base)
        assert op is not None
        for product in self.readings:
            tensor = self.make(*self.shape(product))
            terms = tensor.as_a(op, base.weight, product)
            output = adapted_forward(op, base, base.weight, base.bias, x, terms)
            dense = tensor.dense(torch.float64)
            added = base.weight @ dense if tensor.multiplies(product) else base.weight * dense
            # A scale multiplies the output, its bias included; the adapter takes that off again.
            bias = base.bias if terms.scale is None else base.bias * (1 + terms.scale)
            expected = nn.functional.linear(x, base.weight + added, bias)
            self.same(output, expected, tensor)

    def test_as_b_it_is_its_dense_form_times_its_scale(self) -> None:
        if not self.thin:
            return  # it exists as A only
        tensor = self.make(ROWS, COLS)
        left, right, dropout = tensor.as_b(0.25, 0.1)
        self.same(left @ right, tensor.scale_as_b(0.25) * tensor.dense(torch.float64), tensor)
        assert dropout in (0.0, 0.1)

    def test_its_column_is_that_of_its_dense_form(self) -> None:
        if not self.thin:
            return  # it exists as A only
        tensor = self.make(ROWS, 1)
        self.same(tensor.column(), tensor.dense(torch.float64)[:, 0], tensor)
        self.same(tensor.step * tensor.column(bare=True), tensor.column(), tensor)

    def test_a_copy_is_the_same_tensor(self) -> None:
        tensor = self.make(*self.shape(self.readings[0]))
        other = self.make(*self.shape(self.readings[0]), random=False)
        with torch.no_grad():
            other.copy_from(tensor)
        assert other.step == tensor.step
        assert torch.equal(other.dense(torch.float64), tensor.dense(torch.float64))

    def test_its_slice_shares_the_numbers_of_the_larger_tensor(self) -> None:
        if not self.thin:
            return  # it exists as A only
        full = STRUCTURES["lora"].create(ROWS, COLS, Start(RANK, torch.float64))
        part = STRUCTURES[self.structure].slice_of(full)
        assert not dict(part.named_parameters())
        with torch.no_grad():
            full.numbers.fill_(2.0)
        assert torch.equal(part.numbers, torch.full_like(part.numbers, 2.0))  # taken anew at each use
        part.dense(torch.float64).sum().backward()
        assert full.numbers.grad is not None

    @staticmethod
    def same(actual: Tensor, expected: Tensor, tensor: SupportTensor) -> None:
        """Values and gradients."""
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        wanted = list(tensor.parameters())
        gradients = (
            torch.autograd.grad(one.square().sum(), wanted, retain_graph=True, allow_unused=True)
            for one in (actual, expected)
        )
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
