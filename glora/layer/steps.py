"""Steps: a fixed factor for every support tensor, so that one learning rate moves every structure alike.

An Adam step moves each number of a support tensor by about the learning rate, whatever its gradient. What that does to
the layer's *output* depends on the structure: with x the input, W0 the weight and κ² = 1/(3 in), the second moment of
LoRA's (Kaiming) `right`, moving the zero-started numbers (value, `left`) by ±1 at random moves it by, in the root mean
square (rms) over examples, outputs and draws of `right`,

=========================== ================================== ===========================================
tensor                      scalar or vector                   low-rank, rank r
=========================== ================================== ===========================================
A, element-wise             rms(W0 x), tied: rms(W0 x + b0)    √r κ √(mean_o Σ_i W0_oi² E x_i²)
A, matrix product           vector: √(mean_o Σ_i W0_oi² x_i²)  √r κ √(Σ_i E x_i²) · √(mean_o Σ_i W0_oi²)
B                           rms(Σ_i x_i)                       √r κ √(Σ_i E x_i²)
C                           √(mean_o Σ_i W0_oi²)               r κ √(mean_o Σ_i W0_oi²)
D                           rms(b0)                            –
E                           1                                  –
=========================== ================================== ===========================================

r and not √r for C: a matrix of one column is one vector left · right, and the r numbers that make up an entry of it get
the gradient of that entry times their own number of `right`. Their signs agree (up to those of `right`) in every step,
not at random, and the entry moves by Σ_k |right_k|, which `normalise` makes r κ: a low-rank C moves as a vector C does.

They differ by orders of magnitude: Σ_i x_i is √in only for centred inputs and grows like in · mean(x) after a GELU, and
an element-wise low-rank A scales weights that are small. The *reference* is LoRA of rank 4 on the same layer,
2 κ √(Σ_i E x_i²), and a tensor's step is reference / own: a factor on the whole matrix that it stands for. So the
zero-started part moves the output as LoRA's does, and `right` moves relative to its own size as LoRA's does, because a
tensor with a step keeps its `right` at LoRA's size κ whatever its initialisation (`normalise`). B = "lora" of rank 4
alone is LoRA itself, bit for bit.

With T = m θ (θ the parameter, m the step): Adam's ε is m times smaller beside the gradient of θ; decoupled weight decay
shrinks T at the same relative rate whatever m; averages of weights commute with m; a global-norm clip sees gradients
in units of their effect on the output; plain SGD moves T by m² times the gradient, so a step measured for Adam is not
one for SGD; `lora_scale` multiplies on top and is not measured away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glora.config import TENSORS
from glora.layer.adapter import Adapter
from glora.layer.geometry import ConvOp, Op
from glora.layer.tensors import LowRank, SupportTensor

#: Rank of the LoRA that is the reference.
RANK = 4
#: What acts through a sum that cancels is taken to move the output by at least this share of what it would if nothing
#: cancelled: Σ_i x_i in B (zero behind a LayerNorm), W0 x in A. Training changes the input x, and with it the sum: ten
#: steps of LoRA at 3e-3 change the output of a layer, the next one's input, by 10 · 3e-3 · 2/√3 of it. Without the
#: share a step would be set by a cancellation that those ten steps undo. What acts through W0 or b0 alone (C, D) needs
#: none, whatever their size: they are frozen, so D on a small bias does from the first step to the last what E does.
DRIFT = 1 / 32
#: A bias below this share of the reference is rounding: D moves nothing there.
NOTHING = 1e-7
_IMAGES = 8  # of a convolution's inputs that are unfolded at once


@dataclass(frozen=True)
class Moments:
    """Second moments of what goes into and comes out of a layer, means over examples and positions.

    Attributes:
        square: (in,), E x_i².
        total: E (Σ_i x_i)².
        product: E (W0 x)_o², mean over outputs o.
        output: E (W0 x + b0)_o², mean over outputs.
        count: number of examples times positions; 0 for moments that were assumed, not measured.
    """

    square: Tensor
    total: float
    product: float
    output: float
    count: int = 0

    def plus(self, other: Moments) -> Moments:
        """The moments over both sets of examples."""
        count = self.count + other.count
        one, two = self.count / count, other.count / count
        return Moments(
            one * self.square + two * other.square,
            one * self.total + two * other.total,
            one * self.product + two * other.product,
            one * self.output + two * other.output,
            count,
        )

    @property
    def usable(self) -> bool:
        """False if an input was not finite, or all were zero."""
        numbers = [float(self.square.sum()), self.total, self.product, self.output]
        return all(map(math.isfinite, numbers)) and numbers[0] > 0


@torch.no_grad()
def measured(op: Op, base: nn.Module, x: Tensor) -> Moments:
    """The moments of a layer on the input x."""
    weight = op.matrix(base.weight)  # type: ignore[arg-type]
    bias: Tensor | None = base.bias  # type: ignore[assignment]
    with torch.autocast(x.device.type, enabled=False):
        product = op.apply(x.to(weight.dtype), weight, None).float()
    wx = product.flatten(0, -2) if op.channels_last else product.transpose(1, -1).flatten(0, -2)
    out = wx if bias is None else wx + bias.float()
    parts = [_rows(op, part.float()) for part in (x.split(_IMAGES) if isinstance(op, ConvOp) else (x,))]
    count = sum(part.shape[0] for part in parts)
    return Moments(
        sum((part.square().sum(0) for part in parts), torch.zeros((), device=x.device)).double() / count,
        float(sum(part.sum(1).square().sum() for part in parts)) / count,
        float(wx.square().mean()),
        float(out.square().mean()),
        count,
    )


def _rows(op: Op, x: Tensor) -> Tensor:
    """The inputs as the rows that the layer's matrix multiplies, (number, in)."""
    if not isinstance(op, ConvOp):
        return x.reshape(-1, x.shape[-1])
    patches = F.unfold(op.padded(x), op.kernel[1:], op.dilation, op.padding, op.stride)  # (n, groups·in, positions)
    return patches.unflatten(1, (op.groups, -1)).transpose(2, 3).flatten(0, 2)


@torch.no_grad()
def assumed(op: Op, base: nn.Module) -> Moments:
    """The moments if inputs were centred, uncorrelated and of rms 1: what the weights alone tell."""
    weight = op.matrix(base.weight).float()  # type: ignore[arg-type]
    bias: Tensor | None = base.bias  # type: ignore[assignment]
    fan_in = weight.shape[1]
    product = float(weight.square().sum(1).mean())
    shift = 0.0 if bias is None else float(bias.float().square().mean())
    return Moments(torch.ones(fan_in, dtype=torch.float64, device=weight.device), fan_in, product, product + shift)


def reference(moments: Moments) -> float:
    """What LoRA of rank 4 moves the output by, per unit of `left`."""
    return math.sqrt(RANK * float(moments.square.sum()) / (3 * moments.square.numel()))


@torch.no_grad()
def own(adapter: Adapter, base: nn.Module, name: str, structure: str, moments: Moments) -> float:
    """What a tensor moves the output by, per unit of its zero-started numbers and with step 1; see the table above.

    Args:
        adapter: the layer's adapter.
        base: the layer.
        name: which tensor, "A" … "E".
        structure: its structure, or another one that is a slice of it (a supernet's).
        moments: of the layer.
    """
    config = adapter.config
    weight = adapter.op.matrix(base.weight).float()  # type: ignore[arg-type]
    square = moments.square.to(weight.device)
    size = 1 / math.sqrt(3 * weight.shape[1])  # κ
    low = math.sqrt(config.rank) * size if structure == "lora" else 1.0
    whole = math.sqrt(float(square.sum()))
    scaled = math.sqrt(float(weight.square().mean(0).double() @ square))  # rms(W0 x), if nothing cancelled
    rows = math.sqrt(float(weight.square().sum(1).mean()))
    product = config.a_product == "matmul"
    if name == "A" and structure == "lora":
        return low * whole * rows if product else low * scaled
    if name == "A" and structure == "vector" and product:
        return scaled
    if name == "A":
        return max(math.sqrt(moments.output if config.tie_a_d else moments.product), DRIFT * scaled)
    if name == "B":
        return low * whole if structure == "lora" else max(math.sqrt(moments.total), DRIFT * whole)
    if name == "C":
        return rows * (config.rank * size if structure == "lora" else 1.0)
    bias: Tensor | None = base.bias  # type: ignore[assignment]
    if name == "D":
        return 0.0 if bias is None else math.sqrt(float(bias.double().square().mean()))
    return 1.0


def factor(adapter: Adapter, base: nn.Module, name: str, structure: str, moments: Moments) -> float:
    """The step of a tensor: reference / own; 1 where that says nothing."""
    if name == "B" and structure == "lora":
        return math.sqrt(RANK / adapter.config.rank)  # of the inputs it says nothing; exactly 1 for the reference
    moved = moves(adapter, base, name, structure, moments)
    return reference(moments) / moved if moved else 1.0


def moves(adapter: Adapter, base: nn.Module, name: str, structure: str, moments: Moments) -> float:
    """`own`, and 0 where a tensor moves nothing or nothing can be said."""
    if not moments.usable:
        return 0.0
    moved = own(adapter, base, name, structure, moments)
    return moved if NOTHING * reference(moments) < moved < math.inf else 0.0


def factors(adapter: Adapter, base: nn.Module, moments: Moments) -> dict[str, float]:
    """The step of every tensor that the adapter has, by its `Adapter.step_names`."""
    return {key: factor(adapter, base, key[0], structure, moments) for key, structure in adapter.step_names.items()}


@torch.no_grad()
def apply(adapter: Adapter, base: nn.Module, steps: Mapping[str, float], seen: set[int]) -> None:
    """Give the adapter's tensors these steps; what it computes stays what it is (up to rounding).

    Args:
        adapter: the layer's adapter.
        base: the layer.
        steps: by `Adapter.step_names`; 1 where one is missing.
        seen: ids of parameters that other layers share with this one and that were rescaled there; those rescaled
            here are added.
    """
    if not adapter.stepped:
        fan_in = adapter.op.matrix(base.weight).shape[1]  # type: ignore[arg-type]
        for name in TENSORS:
            tensor: SupportTensor | None = getattr(adapter, name)
            if isinstance(tensor, LowRank):
                normalise(tensor, adapter.config.init, fan_in)
    before = adapter.steps
    for name, parameter in adapter.started_at_zero.items():
        if id(parameter) not in seen and not parameter.is_meta:
            parameter.mul_(before[name] / steps.get(name, 1.0))
            seen.add(id(parameter))
    adapter.steps = dict(steps)


def normalise(tensor: LowRank, init: str, fan_in: int) -> None:
    """Bring `right` to the size of LoRA's, 1/√(3 in), and let `left` make up for it.

    A `right` with the Kaiming initialisation over the same inputs has it. C's has one number a rank, whose size a draw
    decides; their mean absolute value becomes exactly this one.
    """
    size = 1 / math.sqrt(3 * fan_in)
    if tensor.right.is_meta:
        return
    if tensor.cols == 1:
        now = float(tensor.right.double().abs().mean())
    else:
        rank = tensor.right.shape[0]
        spread = {"kaiming": 1 / (3 * tensor.cols), "xavier": 2 / (tensor.cols + rank), "gaussian": 1 / rank}
        now = math.sqrt(spread[init])
    if now > 0 and not math.isclose(now, size, rel_tol=1e-12):
        tensor.right.mul_(size / now)
        tensor.left.mul_(now / size)
