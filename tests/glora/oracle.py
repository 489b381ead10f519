"""The dense oracle: W_eff and b_eff written out from the formulas, sharing nothing with the layer but
parameters and steps."""

from __future__ import annotations

import torch
from torch import Tensor

from glora.config import LayerConfig
from glora.layer.adapter import Adapter


def numbers(adapter: Adapter) -> dict[str, Tensor]:
    """The parameters of an adapter in float64, the zero-started ones times their step."""
    return {
        name: p.detach().double() * (1.0 if name.endswith("right") else adapter.steps[name[0]])
        for name, p in adapter.named_parameters()
    }


def dense(parts: dict[str, Tensor], rows: int, cols: int) -> Tensor:
    """The (rows, cols) matrix of a tensor given by its parameters; zeros if it has none."""
    if "left" in parts:
        return parts["left"] @ parts["right"]
    if "value" not in parts:
        return torch.zeros(rows, cols, dtype=torch.float64)
    return parts["value"].reshape(-1, 1) * torch.ones(rows, cols, dtype=parts["value"].dtype)


def effective(
    config: LayerConfig, parameters: dict[str, Tensor], weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """W_eff (out, in) and b_eff (out,) from parameters named ``A.value``, ``B.left`` …"""
    out_features, in_features = weight.shape

    def parts(name: str) -> dict[str, Tensor]:
        return {key[2:]: value for key, value in parameters.items() if key.startswith(name + ".")}

    b = dense(parts("B"), out_features, in_features)
    if config.B == "lora":
        b = config.lora_scale * b
    if config.a_product == "elementwise" or config.A == "scalar":
        w_eff = weight + weight * dense(parts("A"), out_features, in_features) + b
    elif config.A == "vector":
        w_eff = weight + weight @ torch.diag(parts("A")["value"]) + b
    else:
        w_eff = weight + weight @ dense(parts("A"), in_features, in_features) + b
    if bias is None and config.C == "none" and config.E == "none":
        return w_eff, None
    b_eff = torch.zeros(out_features, dtype=weight.dtype) if bias is None else bias
    d = dense(parts("A" if config.tie_a_d else "D"), out_features, 1)[:, 0]
    e = dense(parts("E"), out_features, 1)[:, 0]
    c = dense(parts("C"), in_features, 1)
    return w_eff, b_eff + b_eff * d + e + (weight @ c)[:, 0]
