"""α-LoRA's Algorithm 1: the scale α = 1 + A trained apart from the adapter, on batches of its own.

    for every adapter step t:
        AdamW on the adapter, a batch of the adapter's examples; α does not move
        if t is a multiple of T:
            Adam on α, a batch of α's examples; the adapter does not move

Neither step asks for the other's gradients, so nothing can leak between them: `gradients` computes those of the
parameters about to move and no others. `AlphaSchedule` is the α half; the loop in `glora.training.loop` and the
callback in `glora.integrations.hf_trainer` both drive it. Which layers share a scale is said here too.

Source: α-LoRA (arXiv 2510.21345), Algorithm 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from glora.layer.adapter import Adapter
from glora.layer.tensors import Diagonal, Scalar, Vector, share_value
from glora.layer.wrappers import AdaptedLayer
from glora.model.balancing import unify
from glora.model.state import adapted_modules, get_state, unwrap
from glora.runs.settings import AlphaSettings

#: How α is shared: one a row (the paper), a row vector shared by query, key and value of a block, one number a
#: matrix, one a block of the network ("layer"), one for the model.
SHARES = ("row", "qkv", "matrix", "layer", "global")
_SCALES = (Scalar, Vector, Diagonal)
_QKV = re.compile(r"(^|_)(q|k|v|query|key|value)(_proj|$)")


def alpha_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters A = α − 1 of the active adapter by name: every scalar or vector A that is to be trained.

    Shared ones appear once, under the first of their names.
    """
    tensors = [adapter.A for adapter in _scaled_layers(model).values()]
    found = {id(tensor.value) for tensor in tensors if isinstance(tensor, _SCALES) and tensor.value.requires_grad}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in found}


def share_alpha(model: nn.Module, share: str) -> int:
    """Let layers of the active adapter share their scale: from here on they hold the same parameter, and its step.

    Args:
        model: a model with a scalar or vector A.
        share: one of `SHARES`. "row" and "matrix" share nothing between layers.

    Returns:
        Number of different scale parameters.

    Raises:
        ValueError: there is no scale, or its structure is not the one that `share` needs.
    """
    if share not in SHARES:
        raise ValueError(f"share must be one of {', '.join(SHARES)}; got {share!r}")
    wanted = Vector if share in ("row", "qkv") else Scalar
    layers = _scaled_layers(model)
    if not layers:
        raise ValueError(f"share={share!r}: the active adapter has no scalar or vector A to share")
    for name, adapter in layers.items():
        if not isinstance(adapter.A, wanted):
            structure = "vector" if wanted is Vector else "scalar"
            raise ValueError(f"share={share!r} needs A={structure!r}; layer {name!r} has A={adapter.config.A!r}")
    first: dict[tuple[object, ...], nn.Parameter] = {}
    for name, adapter in layers.items():
        assert isinstance(adapter.A, Scalar | Vector)
        group = _group(name, _block(unwrap(model), name, layers), share, adapter.A.value)
        share_value(adapter.A, first.setdefault(group, adapter.A.value))
    unify(model)
    return len(first)


def _block(model: nn.Module, name: str, names: Iterable[str]) -> str:
    """The block of the network that a layer stands in; the layer's own name if it stands in none.

    A block is an entry of a list of modules, or of anything else that is numbered and has more than one number among
    the layers: an encoder that is the first part of an ``nn.Sequential`` is not one block.
    """
    parts = name.split(".")
    places = [i for i, part in enumerate(parts) if part.isdigit()]
    for i in places:
        if isinstance(model.get_submodule(".".join(parts[:i])), nn.ModuleList):
            return ".".join(parts[: i + 1])
    others = [other.split(".") for other in names]
    for i in places:
        if len({other[i] for other in others if other[:i] == parts[:i] and len(other) > i}) > 1:
            return ".".join(parts[: i + 1])
    return ".".join(parts[: places[0] + 1]) if places else name


def _group(name: str, block: str, share: str, parameter: Tensor) -> tuple[object, ...]:
    """What layers have in common that share a scale."""
    if share == "global":
        return ()
    if share == "layer":
        return (block,)
    if share == "qkv" and _QKV.search(name.rpartition(".")[2]):
        return (block, parameter.numel())
    return (name,)


def _scaled_layers(model: nn.Module) -> dict[str, Adapter]:
    """The layers whose active adapter has a scalar or vector A."""
    if get_state(model) is None:
        return {}
    found = {}
    for name, module in adapted_modules(model):
        if isinstance(module, AdaptedLayer) and module.active is not None:
            adapter = module.adapters[module.active]
            if isinstance(adapter, Adapter) and isinstance(adapter.A, _SCALES):
                found[name] = adapter
    return found


def gradients(loss: Tensor, parameters: Sequence[nn.Parameter], weight: float = 1.0) -> None:
    """Add ``weight`` × the gradient of `loss` to ``.grad`` of these parameters, and of no others.

    A parameter that the loss does not depend on keeps the ``.grad`` it has (None at first), as after
    ``backward``.
    """
    for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        if grad is not None:
            grad = grad * weight
            parameter.grad = grad if parameter.grad is None else parameter.grad + grad


class AlphaSchedule:
    """The α half of Algorithm 1: its parameters, its optimizer, and when it steps.

    Args:
        parameters: from `alpha_parameters`.
        settings: see `AlphaSettings`; the mode must be "scheduled".
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: AlphaSettings) -> None:
        self.parameters = list(parameters)
        self.settings = settings
        # AdamW with decay 0 is the paper's Adam. What decays is A = α − 1, hence α towards 1.
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.decay
        )

    def due(self, step: int) -> bool:
        """Whether α steps after adapter step number `step` (from 1)."""
        return step % self.settings.every == 0

    def step(self, fill_gradients: Callable[[Sequence[nn.Parameter]], float]) -> float:
        """One step of α.

        Args:
            fill_gradients: fills ``.grad`` of the parameters it is given, and of no others (see `gradients`), and
                returns the loss.
        """
        self.optimizer.zero_grad()
        loss = fill_gradients(self.parameters)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss
