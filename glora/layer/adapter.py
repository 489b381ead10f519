"""The adapter of one layer: its five support tensors, how they act on the layer, and the weights they amount to.

`Adapter` turns the support tensors into `forward.Terms` (how they act) or into effective weights (for merging); what
stands in the model and holds adapters by name is in `wrappers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from glora.config import TENSORS, LayerConfig
from glora.layer.forward import Factors, Terms, adapted_forward, is_traced, join, without_autocast
from glora.layer.geometry import DTYPES, SUPPORTED, ConvOp, is_plain, not_mergeable, op_for
from glora.layer.tensors import Diagonal, LowRank, Scalar, SupportTensor, Vector, build


class Adapter(nn.Module):
    """The support tensors A … E of one layer; an absent one is None.

    Args:
        config: the structure of each tensor.
        base: the layer to be adapted (its shape, dtype, device and whether it has a bias are read here).
        generator: source of the random factors; torch's global generator if None.

    Raises:
        ValueError: `base` is not of a supported type, or its own forward cannot carry the structure.
    """

    A: SupportTensor | None
    B: SupportTensor | None
    C: SupportTensor | None
    D: SupportTensor | None
    E: SupportTensor | None
    #: Whether the tensors were given steps; False: all are 1, and `right` has the size that `init` gives it.
    stepped: bool = False

    def __init__(self, config: LayerConfig, base: nn.Module, generator: torch.Generator | None = None) -> None:
        super().__init__()
        check_supported(config, base)
        op = op_for(base)
        assert op is not None
        self.config, self.op = config, op
        weight: Tensor = base.weight  # type: ignore[assignment]
        out_features, in_features = op.matrix(weight).shape
        # Drawn on the CPU, so that a seed means the same on every device; a meta model stays a sketch.
        wanted = torch.device("meta" if weight.is_meta else "cpu")
        with nullcontext() if torch.get_default_device() == wanted else wanted:  # which costs at every call inside
            for name, (rows, cols) in config.shapes(out_features, in_features).items():
                structure = getattr(config, name)
                if name == "D" and (config.tie_a_d or base.bias is None):
                    structure = "none"
                elif name == "A" and structure == "vector" and config.a_product == "matmul":
                    structure = "diagonal"
                tensor = build(
                    structure,
                    rows,
                    cols,
                    config.rank,
                    dtype=adapter_dtype(weight.dtype),
                    init=config.init,
                    fill=config.alpha - 1 if name == "A" else 0.0,
                    generator=generator,
                )
                setattr(self, name, tensor)
        if weight.device != wanted:
            self.to(weight.device)
        if self.A is not None and not config.train_alpha:
            self.A.requires_grad_(False)

    def requires_grad_(self, requires_grad: bool = True) -> Adapter:
        """Train or freeze the adapter; an A with ``train_alpha=False`` stays frozen."""
        super().requires_grad_(requires_grad)
        if self.A is not None and not self.config.train_alpha:
            self.A.requires_grad_(False)
        return self

    @property
    def step_names(self) -> dict[str, str]:
        """What has a step: the names of the tensors, and their structures."""
        return {name: getattr(self.config, name) for name in TENSORS if getattr(self, name) is not None}

    @property
    def steps(self) -> dict[str, float]:
        """The step of every tensor; see `glora.layer.steps`, whose `apply` keeps what the adapter computes."""
        return {name: getattr(self, name).step for name in self.step_names}

    @steps.setter
    def steps(self, values: Mapping[str, float]) -> None:
        for name in self.step_names:
            getattr(self, name).step = float(values.get(name, 1.0))
        self.stepped = True

    @property
    def started_at_zero(self) -> dict[str, nn.Parameter]:
        """The numbers that a step acts on, by the tensor's name: `value`, or `left`."""
        tensors = {name: getattr(self, name) for name in TENSORS}
        return {name: t.left if isinstance(t, LowRank) else t.value for name, t in tensors.items() if t is not None}

    @property
    def alpha(self) -> Tensor:
        """The scale of the frozen weight, 1 + A: (1,) or (out,), or (in,) for a matrix-product vector."""
        scale = self._scale()
        if scale is None:
            # Not a ValueError: hasattr, inspect and torch.jit look at every property.
            raise AttributeError(self._no_alpha())
        return 1 + scale.entries.detach()

    @alpha.setter
    def alpha(self, value: Tensor | float) -> None:
        scale = self._scale()
        if scale is None:
            raise ValueError(self._no_alpha())
        parameter = scale.value
        value = torch.as_tensor(value, dtype=parameter.dtype, device=parameter.device)
        if value.dim() > 1 or value.numel() not in (1, parameter.numel()):
            raise ValueError(f"alpha has shape {tuple(value.shape)}, expected a number or {tuple(parameter.shape)}")
        with torch.no_grad():
            parameter.copy_(((value - 1) / scale.step).expand_as(parameter))

    def _scale(self) -> Scalar | Vector | Diagonal | None:
        return self.A if isinstance(self.A, (Scalar, Vector, Diagonal)) else None

    def _no_alpha(self) -> str:
        return f"alpha = 1 + A exists for a scalar or vector A; this layer has A={self.config.A!r}"

    @property
    def _is_product(self) -> bool:
        """True if A multiplies W0 as a matrix."""
        return self.config.a_product == "matmul" and isinstance(self.A, (Diagonal, LowRank))

    @property
    def _b_scale(self) -> float:
        return self.config.lora_scale if isinstance(self.B, LowRank) else 1.0

    def terms(self, weight: Tensor, bias: Tensor | None) -> Terms:
        """How the support tensors act on a layer with weight (out, in) and bias (out,) or None."""
        scale = input_scale = hadamard = None
        additive: list[Factors] = []
        if isinstance(self.A, (Scalar, Vector)):
            scale = self.A.entries
        elif isinstance(self.A, Diagonal) and not isinstance(self.op, ConvOp):
            input_scale = self.A.entries
        elif isinstance(self.A, Diagonal):
            # A kernel's taps are scaled one by one, which no scaling of the input does.
            hadamard = Factors(self.A.value.new_ones(weight.shape[0], 1), self.A.entries[None])
        elif isinstance(self.A, LowRank) and self._is_product:
            left, right = self.A.factors()
            additive.append(Factors(weight @ left.to(weight.dtype), right))
        elif isinstance(self.A, LowRank):
            hadamard = Factors(*self.A.factors())
        if self.B is not None:
            left, right = self.B.factors()
            if self._b_scale != 1.0:
                left = left * self._b_scale
            dropout = self.config.dropout if self.training and isinstance(self.B, LowRank) else 0.0
            additive.append(Factors(left, right, dropout))
        if len(additive) > 1 and not any(factors.dropout for factors in additive):
            additive = [join(tuple(additive))]
        return Terms(scale, input_scale, hadamard, tuple(additive), self._shift(weight, bias, scale))

    def _shift(self, weight: Tensor, bias: Tensor | None, scale: Tensor | None) -> Tensor | None:
        """b0∘D + E + W0 C as one vector (out,), less b0∘A where scaling the output scales the bias too."""
        if self.stepped and not is_traced():
            return self._stepped_shift(weight, bias, scale)
        parts = []
        if bias is not None and self.D is not None:
            parts.append(bias * self.D.column())
        if bias is not None and scale is not None and not self.config.tie_a_d:
            parts.append(-bias * scale)
        if self.E is not None:
            parts.append(self.E.column())
        if self.C is not None:
            column = self.C.column()
            parts.append((weight @ column.to(weight.dtype)).to(column.dtype))
        return sum(parts[1:], parts[0]) if parts else None

    def _stepped_shift(self, weight: Tensor, bias: Tensor | None, scale: Tensor | None) -> Tensor | None:
        """The same; every step is a factor of an operation that is there anyway, so that steps cost nothing."""
        total = None if self.E is None else self.E.column(bare=self.C is not None)
        if self.C is not None:
            column = self.C.column(bare=True)
            if column.dtype == weight.dtype:
                start = column.new_zeros(()) if total is None else total
                beta = 0.0 if self.E is None else self.E.step
                total = torch.addmv(start, weight, column, beta=beta, alpha=self.C.step)
            else:
                product = (weight @ column.to(weight.dtype)).to(column.dtype) * self.C.step
                total = product if total is None else torch.add(product, total, alpha=self.E.step)  # type: ignore[union-attr]
        if bias is not None and self.D is not None:
            factor = self.D.column(bare=total is not None)
            total = bias * factor if total is None else torch.addcmul(total, bias, factor, value=self.D.step)
        if bias is not None and scale is not None and not self.config.tie_a_d:
            total = -bias * scale if total is None else torch.addcmul(total, bias, scale, value=-1)
        return total

    def forward(self, x: Tensor, base: nn.Module) -> Tensor:
        """The adapted output of `base` for the input x."""
        weight = self.op.matrix(base.weight)  # type: ignore[arg-type]
        bias: Tensor | None = base.bias  # type: ignore[assignment]
        # Autocast would round the small products (W0 C, W0 A_left) that are kept in the weight's precision.
        with without_autocast(x):
            terms = self.terms(weight, bias)
        return adapted_forward(
            self.op, base, weight, bias, x, terms, fold_bias=is_plain(base), recompute=self.config.recompute
        )

    @torch.no_grad()
    def effective(self, base: nn.Module) -> tuple[Tensor, Tensor | None]:
        """W_eff and b_eff with the shapes and dtypes of the base, formed in float64 and rounded once.

        b_eff is a new bias where `base` has none and C or E asks for one, and None where nobody does.
        """
        original: Tensor = base.weight  # type: ignore[assignment]
        wide = torch.float32 if original.device.type == "mps" else torch.float64
        return self.effective_weight(base, wide), self.effective_bias(base, wide)

    @property
    def adds_bias(self) -> bool:
        """Whether a layer without a bias gets one."""
        return self.C is not None or self.E is not None

    @property
    def changes(self) -> tuple[bool, bool]:
        """Whether the weight and whether the bias are others than the base's."""
        shifts = [self.C, self.D, self.E, self.A if self.config.tie_a_d else None]
        return self.A is not None or self.B is not None, any(tensor is not None for tensor in shifts)

    def effective_weight(self, base: nn.Module, wide: torch.dtype) -> Tensor:
        """W_eff with the shape and dtype of the base's weight, formed in the dtype `wide`, with gradient."""
        original: Tensor = base.weight  # type: ignore[assignment]
        with without_autocast(original):
            w0 = self.op.matrix(original).to(wide)
            w_eff = w0.clone()
            if self.A is not None:
                dense = self.A.dense(wide)
                w_eff += w0 @ dense if self._is_product else w0 * dense
            if self.B is not None:
                w_eff += self._b_scale * self.B.dense(wide)
            return self.op.to_weight(w_eff, original)

    def effective_bias(self, base: nn.Module, wide: torch.dtype) -> Tensor | None:
        """b_eff, likewise; None where nobody has or asks for a bias."""
        original: Tensor = base.weight  # type: ignore[assignment]
        bias: Tensor | None = base.bias  # type: ignore[assignment]
        if bias is None and not self.adds_bias:
            return None
        with without_autocast(original):
            w0 = self.op.matrix(original)
            b_eff = w0.new_zeros(w0.shape[0], dtype=wide) if bias is None else bias.to(wide)
            for factor in (self.D, self.A if self.config.tie_a_d else None):
                if factor is not None and bias is not None:
                    b_eff = b_eff + bias.to(wide) * factor.dense(wide)[:, 0]
            if self.E is not None:
                b_eff = b_eff + self.E.dense(wide)[:, 0]
            if self.C is not None:
                b_eff = b_eff + (w0.to(wide) @ self.C.dense(wide))[:, 0]
            return b_eff.to(original.dtype)


def adapter_dtype(base: torch.dtype) -> torch.dtype:
    """float64 adapters for float64 layers, float32 adapters for all others."""
    return torch.float64 if base == torch.float64 else torch.float32


def check_supported(config: LayerConfig, base: nn.Module) -> None:
    """Raise ValueError if `base` cannot be adapted with `config`."""
    reason = not_mergeable(base)
    if reason is not None:
        raise ValueError(f"cannot adapt {type(base).__name__}: {reason}")
    if op_for(base) is None:
        dtype = getattr(getattr(base, "weight", None), "dtype", None)
        detail = f" with {dtype} weights" if dtype is not None and dtype not in DTYPES else ""
        raise ValueError(f"cannot adapt {type(base).__name__}{detail}; supported are {SUPPORTED}")
    if not is_plain(base):
        reason = None
        if config.A == "lora" and config.a_product == "elementwise":
            reason = "an element-wise low-rank A"
        elif config.A == "vector" and config.a_product == "matmul" and isinstance(base, nn.Conv2d):
            reason = "a diagonal A of a convolution"
        elif config.recompute:
            reason = "recompute=True"
        if reason:
            raise ValueError(
                f"{reason} replaces the layer's forward, but {type(base).__name__} has its own forward or "
                "hooks; use another structure for this layer (overrides={pattern: LayerConfig(...)})"
            )
