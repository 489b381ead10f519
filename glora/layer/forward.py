"""How an adapted layer is computed: the plan follows the structure of the support tensors.

Everything but an element-wise low-rank A runs at LoRA cost::

    y = (1 + a) ∘ (W0 x + b0) + left (right x) + shift

with a the scale (or none), (left, right) the thin factors of all additive terms and `shift` one vector that
holds C, D and E.  A matrix-product A is additive too, W0 (A_left A_right) x = (W0 A_left)(A_right x), or
scales the inputs. Only ``W0 ∘ (left right)`` needs an object as large as W0; it is rebuilt in the backward
pass instead of kept, and not even built for a few tokens (decoding), where r + 1 thin products are cheaper.

The functions know nothing of modules that hold parameters: a supernet may pass slices of larger tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from glora.layer.geometry import ConvOp, Op

# Up to this many tokens the element-wise low-rank A is applied factor by factor (decoding).
FACTORED_TOKENS = 16
# Tokens × features a block of the reduction that gives a scale's gradient: small enough to stay in the cache.
_REDUCTION_BLOCK = 1 << 17


class Factors(NamedTuple):
    """A thin product left @ right, (out, k) times (k, in), with the dropout probability of its input."""

    left: Tensor
    right: Tensor
    dropout: float = 0.0


class Terms(NamedTuple):
    """What the support tensors of a layer do to it, each absent part None.

    Attributes:
        scale: (1,) or (out,): the base output, bias included, is multiplied by 1 + scale.
        input_scale: (in,): the input of the base layer is multiplied by 1 + input_scale.
        hadamard: adds W0 ∘ (left right) to the weight.
        additive: each adds left right to the weight.
        shift: (out,): added to the output.
    """

    scale: Tensor | None = None
    input_scale: Tensor | None = None
    hadamard: Factors | None = None
    additive: tuple[Factors, ...] = ()
    shift: Tensor | None = None


def adapted_forward(
    op: Op,
    base: Callable[[Tensor], Tensor],
    weight: Tensor,
    bias: Tensor | None,
    x: Tensor,
    terms: Terms,
    *,
    fold_bias: bool = True,
    recompute: bool = False,
) -> Tensor:
    """Output of an adapted layer.

    Args:
        op: geometry of the layer.
        base: the frozen layer itself, x ↦ W0 x + b0.
        weight: W0 as a matrix (out, in).
        bias: b0 (out,) or None.
        x: input of the layer.
        terms: what the support tensors do.
        fold_bias: `base` is exactly `op` with `weight` and `bias`, so a shift may be added to the bias.
        recompute: rebuild the base output in the backward pass instead of keeping it for the scale's
            gradient.

    Returns:
        What ``base(x)`` would return for the weights W_eff and b_eff, bit for bit ``base(x)`` while all terms
        are zero.
    """
    if terms.hadamard is not None:
        return _hadamard_forward(op, weight, bias, x, terms, terms.hadamard)
    inputs, shift = x, terms.shift
    if terms.input_scale is not None:
        inputs = scale_add(x, terms.input_scale.to(x.dtype), None)
    if shift is not None and bias is not None and fold_bias and terms.scale is None and not terms.additive:
        return op.apply(inputs, weight, (bias + shift).to(bias.dtype))
    output = base(inputs)
    added = _additive(op, x, terms.additive, shift)
    if added is not None:
        added = added.to(output.dtype)
    if terms.scale is not None:
        source = (inputs, weight, bias) if recompute else (None, None, None)
        return scale_add(output, op.rows(terms.scale.to(output.dtype)), added, op, *source)
    return output if added is None else output + added


def _additive(op: Op, x: Tensor, products: tuple[Factors, ...], shift: Tensor | None) -> Tensor | None:
    """Sum of the thin products applied to x and of the shift; None if there is nothing to add."""
    total = None
    for left, right, dropout in products:
        u = op.reduce(F.dropout(x, dropout) if dropout else x, right.to(x.dtype))
        # The shift rides along as the bias of the first product.
        bias = None if shift is None or total is not None else shift.to(u.dtype)
        part = op.expand(u, left.to(u.dtype), bias)
        total = part if total is None else total + part
    if total is None and shift is not None:
        return op.rows(shift)
    return total


def _hadamard_forward(
    op: Op, weight: Tensor, bias: Tensor | None, x: Tensor, terms: Terms, hadamard: Factors
) -> Tensor:
    """The one structure that needs an object the size of W0: W0 ∘ (left right)."""
    # Casts are explicit here: autocast would round the factors before W_eff is formed from them.
    x = x.to(_autocast_dtype(x))
    with without_autocast(x):
        shift = terms.shift
        if bias is not None:
            bias = (bias if shift is None else bias + shift).to(x.dtype)
            shift = None
        traced = is_traced()
        if not traced and op.channels_last and x.numel() <= FACTORED_TOKENS * x.shape[-1]:
            weight = weight.to(x.dtype)
            output = op.apply(x, weight, bias) + _factored(x, weight, hadamard)
            rest = terms.additive
        else:
            if isinstance(op, ConvOp):
                op, x = op.unpadded(), op.padded(x)
            kept = tuple(factors for factors in terms.additive if not factors.dropout)
            left, right = join(kept)[:2] if kept else (None, None)
            if traced:
                w_eff = effective_weight(weight, hadamard.left, hadamard.right, left, right)
                output = op.apply(x, w_eff.to(x.dtype), bias)
            else:
                function = _EffectiveWeight if torch.compiler.is_compiling() else _EffectiveWeightWithTangents
                output = function.apply(op, x, weight, bias, hadamard.left, hadamard.right, left, right)
            rest = tuple(factors for factors in terms.additive if factors.dropout)
        added = _additive(op, x, rest, shift)
        return output if added is None else output + added.to(output.dtype)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which operations on tensors like x keep the dtypes they are given."""
    # Nothing where autocast is off: cheaper, and torch.export has no place for a context.
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def is_traced() -> bool:
    """Whether the computation is being written down for other inputs (torch.export, torch.jit.trace).

    Then nothing may depend on the size of the batch at hand, and plain operators say everything there is to say.
    """
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def _autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype a matrix product with x is computed in."""
    device = x.device.type
    if x.is_meta or x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def join(products: tuple[Factors, ...]) -> Factors:
    """One thin product equal to the sum of several, none of them with dropout."""
    if len(products) == 1:
        return products[0]
    dtype = torch.promote_types(products[0].left.dtype, products[1].left.dtype)
    return Factors(
        torch.cat([factors.left.to(dtype) for factors in products], dim=1),
        torch.cat([factors.right.to(dtype) for factors in products], dim=0),
    )


def _factored(x: Tensor, weight: Tensor, hadamard: Factors) -> Tensor:
    """Σ_k left[:, k] ∘ W0 (right[k] ∘ x) for few tokens: x (…, in) → (…, out)."""
    left, right = hadamard.left.to(x.dtype), hadamard.right.to(x.dtype)
    products = F.linear(x.unsqueeze(-2) * right, weight)  # (…, k, out)
    return (products * left.t()).sum(-2)


def effective_weight(
    weight: Tensor,
    hadamard_left: Tensor,
    hadamard_right: Tensor,
    left: Tensor | None = None,
    right: Tensor | None = None,
) -> Tensor:
    """W0 + W0 ∘ (hadamard_left hadamard_right) + left right in the factors' dtype; W0 itself at zero."""
    wide = weight.to(hadamard_left.dtype)
    result = torch.addcmul(wide, wide, hadamard_left @ hadamard_right)
    if left is not None and right is not None:
        # Not addmm, which would forget the memory layout of W0 (transformers' Conv1D is transposed).
        result = result + left.to(result.dtype) @ right.to(result.dtype)
    return result


class _EffectiveWeight(torch.autograd.Function):
    """op(x, W_eff, b) that keeps x, W0 and the factors for the backward pass, and rebuilds W_eff there."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        op: Op,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        hadamard_left: Tensor,
        hadamard_right: Tensor,
        left: Tensor | None,
        right: Tensor | None,
    ) -> Tensor:
        w_eff = effective_weight(weight, hadamard_left, hadamard_right, left, right)
        return op.apply(x, w_eff.to(x.dtype), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.op = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, hl, hr, left, right = ctx.saved_tensors
        need_x, need_weight, need_bias, need_hl, need_hr, need_left, need_right = ctx.needs_input_grad[1:]
        grads: list[Tensor | None] = [None] * 7
        if need_x:
            w_eff = effective_weight(weight, hl, hr, left, right)
            grads[0] = ctx.op.input_grad(grad, w_eff.to(grad.dtype), x)
        if need_bias:
            grads[2] = grad.sum_to_size(ctx.op.rows(bias).shape).reshape(bias.shape)
        if need_weight or need_hl or need_hr or need_left or need_right:
            full = ctx.op.weight_grad(grad, x, weight).to(hl.dtype)  # gradient of W_eff, (out, in)
            if need_left:
                grads[5] = (full @ right.t().to(full.dtype)).to(left.dtype)
            if need_right:
                grads[6] = (left.t().to(full.dtype) @ full).to(right.dtype)
            if need_weight:
                grads[1] = torch.addcmul(full, full, hl @ hr).to(weight.dtype)
            if need_hl or need_hr:
                masked = full * weight.to(full.dtype)
                grads[3] = masked @ hr.t() if need_hl else None
                grads[4] = hl.t() @ masked if need_hr else None
        return None, *grads


class _EffectiveWeightWithTangents(_EffectiveWeight):
    """The same with forward-mode derivatives, which torch.compile does not trace."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _EffectiveWeight.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def jvp(ctx: Any, _op: None, *tangents: Tensor | None) -> Tensor | None:
        dx, dweight, dbias, dhl, dhr, dleft, dright = tangents
        x, weight, _, hl, hr, left, right = ctx.saved_tensors
        wide = weight.to(hl.dtype)
        terms = []
        if dweight is not None:
            terms.append(torch.addcmul(dweight, dweight, (hl @ hr).to(dweight.dtype)))
        if dhl is not None:
            terms.append(wide * (dhl @ hr))
        if dhr is not None:
            terms.append(wide * (hl @ dhr))
        if dleft is not None:
            terms.append(dleft @ right)
        if dright is not None:
            terms.append(left @ dright)
        result = None if dbias is None else ctx.op.rows(dbias)
        if terms:
            part = ctx.op.apply(x, sum(terms[1:], terms[0]).to(x.dtype), None)
            result = part if result is None else part + result
        if dx is not None:
            part = ctx.op.apply(dx, effective_weight(weight, hl, hr, left, right).to(x.dtype), None)
            result = part if result is None else part + result
        return result


def scale_add(
    output: Tensor,
    scale: Tensor,
    added: Tensor | None,
    op: Op | None = None,
    x: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """``(1 + scale) ∘ output + added``, `output` itself at scale = 0 and added = 0.

    Args:
        output: output of the frozen layer (or an input to be scaled).
        scale: broadcasts against `output`.
        added: broadcasts against `output`, or None.
        op, x, weight, bias: where `output` came from; if given, it is recomputed for the scale's gradient.
    """
    if is_traced():
        return _ScaleAdd.forward(output, scale, added, op, x, weight, bias)
    function = _ScaleAdd if torch.compiler.is_compiling() else _ScaleAddWithTangents
    return function.apply(output, scale, added, op, x, weight, bias)


class _ScaleAdd(torch.autograd.Function):
    """Scale and sum in one pass, and one pass a gradient in the backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        output: Tensor,
        scale: Tensor,
        added: Tensor | None,
        op: Op | None,
        x: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        if scale.dtype.itemsize >= 4:
            return output * (1 + scale) if added is None else torch.addcmul(added, output, 1 + scale)
        # 1 + scale would round a small scale away in half precision.
        scaled = torch.addcmul(output, output, scale)
        return scaled if added is None else scaled + added

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        base_output, scale, added, ctx.op, x, weight, bias = inputs
        ctx.recompute = x is not None
        ctx.added_shape = None if added is None else added.shape
        # Only the gradient of the scale needs the base output.
        kept = base_output if ctx.needs_input_grad[1] and not ctx.recompute else None
        ctx.save_for_backward(scale, kept, x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scale, output, x, weight, bias = ctx.saved_tensors
        need_output, need_scale, need_added = ctx.needs_input_grad[:3]
        grad_output = grad_scale = grad_added = None
        if need_output:
            wide = scale.dtype.itemsize >= 4
            grad_output = grad * (1 + scale) if wide else torch.addcmul(grad, grad, scale)
        if need_scale:
            if ctx.recompute:
                output = ctx.op.apply(x, weight, bias)
            grad_scale = _dot_to(grad, output, scale)
        if need_added:
            grad_added = grad if ctx.added_shape == grad.shape else grad.sum_to_size(ctx.added_shape)
        return grad_output, grad_scale, grad_added, None, None, None, None


class _ScaleAddWithTangents(_ScaleAdd):
    """The same with forward-mode derivatives, which torch.compile does not trace."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _ScaleAdd.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[1], inputs[0])

    @staticmethod
    def jvp(ctx: Any, doutput: Tensor | None, dscale: Tensor | None, dadded: Tensor | None, *_: None) -> Tensor:
        scale, output = ctx.saved_tensors[:2]
        parts = []
        if doutput is not None:
            parts.append(torch.addcmul(doutput, doutput, scale))
        if dscale is not None:
            parts.append(output * dscale)
        if dadded is not None:
            parts.append(dadded.expand_as(output))
        return sum(parts[1:], parts[0])


def _dot_to(grad: Tensor, output: Tensor, scale: Tensor) -> Tensor:
    """(grad ∘ output) summed to the shape of `scale`, without a temporary of their size on a CPU."""
    if grad.device.type != "cpu" or grad.dim() < 2 or torch.compiler.is_compiling() or scale.dim() > 1:
        return (grad * output).sum_to_size(scale.shape)
    grad, output = grad.reshape(-1, grad.shape[-1]), output.reshape(-1, output.shape[-1])
    rows = max(1, _REDUCTION_BLOCK // max(1, grad.shape[-1]))
    wide = torch.promote_types(grad.dtype, torch.float32)
    total = grad.new_zeros(grad.shape[-1], dtype=wide)
    for start in range(0, grad.shape[0], rows):
        block = slice(start, start + rows)
        total = total + (grad[block].to(wide) * output[block].to(wide)).sum(0)
    return total.sum_to_size(scale.shape).to(scale.dtype)
