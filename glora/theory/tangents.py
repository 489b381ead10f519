"""A network linearised at its pretrained weights, one layer's global scale at a time.

For a layer with weight W₀ (out, in) and bias b₀ the network's margin is taken to first order in that layer,

    z(x; W, b) ≈ z(x; W₀, b₀) + ⟨J(x), W − W₀⟩ + ⟨δ(x), b − b₀⟩,   δ = Σ_t ∂z/∂out_t,   J = Σ_t ∂z/∂out_t · x_tᵀ

(t runs over tokens and over the calls of the layer), so the layer is a linear classifier with features J(x) of
length out·in. Scaling the layer by α and adding ΔW gives  z ≈ offset + α·s + ⟨J, ΔW⟩  with

    own = Σ_t ⟨∂z/∂out_t, W₀x_t + b₀⟩    offset = z − own    s = Σ_t ⟨∂z/∂out_t, W̃x_t + b̃⟩

where (W̃, b̃) is the layer's source, by default (W₀, b₀) itself: then ``s = own`` is dz/dα at α = 1. For a head the
model is linear in the layer, so nothing is approximated and the offset is 0. One backward pass serves all layers.

With a low-rank ΔW = L·R, L = 0 and R random, only L moves at first and its tangent kernel ⟨JRᵀ, J′Rᵀ⟩ has mean
proportional to ⟨J, J′⟩: the full layer's kernel stands for LoRA's too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glora.layer.geometry import ConvOp, op_for
from glora.model.attaching import disabled
from glora.model.state import get_state, unwrap
from glora.model.targets import base_modules

Batch = tuple[Any, Tensor]  #: (inputs, labels): a tensor, a tuple of arguments or a dict of them; and (n,) classes
Score = Callable[[Any], Tensor]  #: what a model returns → scores (n,), (n, 1) or (n, C)
Source = Tensor | tuple[Tensor, Tensor | None]  #: weight (out, in), or weight and bias (out,)


@dataclass(frozen=True, eq=False)
class LayerTangent:
    """One layer to first order, in signed units: everything is multiplied so that z > 0 is a right answer.

    Attributes:
        name: of the layer. features: (n, out·in) J. source: (n,) s. own: (n,) the layer's own part of z.
        weights: (out, in) W̃. exact: z is linear in the layer: its output is the score.
    """

    name: str
    features: Tensor
    source: Tensor
    own: Tensor
    weights: Tensor
    exact: bool


@dataclass(frozen=True, eq=False)
class Tangents:
    """A model to first order on n labelled examples.

    Attributes:
        margin: (n,) z = y·f for one score f, y(f₁ − f₀)/2 for two, (f_y − f_runner-up)/2 for more.
        signs: (n,) ±1 for one or two scores; None for more.
        layers: one tangent a layer.
    """

    margin: Tensor
    signs: Tensor | None
    layers: tuple[LayerTangent, ...]


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of one layer."""

    inputs: Tensor
    own: Tensor
    source: Tensor
    probe: Tensor
    output: Tensor


def tangents(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Batch],
    *,
    sources: Mapping[str, Source] | None = None,
    tied_bias: bool = True,
    score: Score | None = None,
) -> Tangents:
    """Features, source scores and margins of ``layers`` at the base weights (adapters are switched off).

    One forward and one backward pass over the batches, in eval mode; memory n·out·in numbers a layer.

    Args:
        model: any model whose examples do not influence each other.
        layers: names of linear layers (``nn.Linear``, transformers' ``Conv1D``).
        batches: (inputs, labels) pairs; the examples are the first axis of every layer's input.
        sources: source weights of some layers, where they are not the weights in the model.
        tied_bias: α scales the bias too (α-LoRA: A = D); else the bias belongs to the offset.
        score: turns what the model returns into scores; default its ``logits``, or the tensor itself.

    Raises:
        ValueError: unknown or unsupported layers, no examples, labels that fit no score, or values not finite.
    """
    modules = find_layers(model, layers)
    given = check_sources(modules, sources or {})
    weights = {name: _source_weight(module, given.get(name)) for name, module in modules.items()}
    parts = []
    with _frozen(model):
        for inputs, labels in batches:
            calls: dict[str, list[_Call]] = {name: [] for name in modules}
            with torch.enable_grad(), _probed(modules, given, tied_bias, calls):
                scores = scores_of(model, inputs, score)
                margin, signs = margins(scores, labels)
                parts.append((margin.detach(), signs, _pull_back(margin, scores, calls, weights)))
    if not parts:
        raise ValueError("batches is empty; give a few (inputs, labels) pairs of the target task")
    known = all(signs is not None for _, signs, _ in parts)
    found = Tangents(
        margin=torch.cat([margin for margin, _, _ in parts]),
        signs=torch.cat([signs for _, signs, _ in parts if signs is not None]) if known else None,
        layers=tuple(_join([layers[name] for _, _, layers in parts]) for name in modules),
    )
    for tensor in (found.margin, *(layer.features for layer in found.layers)):
        if not torch.isfinite(tensor).all():
            raise ValueError("the model's scores or their gradients are not finite on these batches")
    return found


@torch.no_grad()
def margins_at(
    model: nn.Module,
    alphas: Mapping[str, float],
    batches: Iterable[Batch],
    *,
    sources: Mapping[str, Source] | None = None,
    tied_bias: bool = True,
    score: Score | None = None,
) -> Tensor:
    """(n,) margins of the model, not linearised, with every named layer at α·source: one forward pass."""
    modules = find_layers(model, list(alphas))
    given = check_sources(modules, sources or {})
    handles = []
    with _frozen(model):
        try:
            for name, module in modules.items():

                def rescale(layer: nn.Module, args: tuple[Any, ...], output: Tensor, name: str = name) -> Tensor:
                    own, source = _parts(layer, args[0], output, given.get(name), tied_bias)
                    return output + alphas[name] * source - own

                handles.append(module.register_forward_hook(rescale))
            return torch.cat([margins(scores_of(model, inputs, score), labels)[0] for inputs, labels in batches])
        finally:
            for handle in handles:
                handle.remove()


def head_features(layer: LayerTangent) -> tuple[Tensor, Tensor]:
    """Signed features (n, in) and source weights (in,) of a head with one score, or with two by their difference."""
    weights = layer.weights.to(layer.features)
    features = layer.features.reshape(len(layer.features), *weights.shape)
    if len(weights) == 2:  # only (row₁ − row₀)/√2 moves the margin
        return (features[:, 1] - features[:, 0]) / math.sqrt(2), (weights[1] - weights[0]) / math.sqrt(2)
    return features[:, 0], weights[0]


def find_layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The base layers with these names, checked to be linear."""
    if isinstance(names, str) or not names:
        raise ValueError(f"layers must be a list with at least one module name, got {names!r}")
    modules = dict(base_modules(unwrap(model)))
    for name in names:
        if name not in modules:
            raise ValueError(f"no module is called {name!r}; take names from model.named_modules()")
        op = op_for(modules[name])
        if op is None or isinstance(op, ConvOp):
            raise ValueError(
                f"layer {name!r} is a {type(modules[name]).__name__}; the linearisation takes nn.Linear and Conv1D"
            )
    return {name: modules[name] for name in names}


def check_sources(modules: Mapping[str, nn.Module], sources: Mapping[str, Source]) -> dict[str, Source]:
    """Source weights of layers that are asked about, with the shapes of those layers."""
    for name, source in sources.items():
        if name not in modules:
            raise ValueError(f"a source is given for {name!r}, which is not among the layers {list(modules)}")
        weight = source[0] if isinstance(source, tuple) else source
        op = op_for(modules[name])
        assert op is not None
        shape = tuple(op.matrix(modules[name].weight).shape)  # type: ignore[arg-type]
        if not isinstance(weight, Tensor) or tuple(weight.shape) != shape:
            raise ValueError(f"the source of {name!r} must be a tensor of shape {shape} (out, in)")
        if not torch.isfinite(weight).all():
            raise ValueError(f"the source of {name!r} has values that are not finite")
    return dict(sources)


def scores_of(model: nn.Module, inputs: Any, score: Score | None = None) -> Tensor:
    """(n, C) scores of one batch."""
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    else:
        output = model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
    scores = score(output) if score is not None else getattr(output, "logits", output)
    if not isinstance(scores, Tensor) or scores.dim() not in (1, 2):
        raise ValueError("the model must give scores of shape (n,), (n, 1) or (n, C); pass score=function otherwise")
    return scores[:, None] if scores.dim() == 1 else scores


def margins(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Margins (n,) of ``Tangents.margin`` and, for one or two scores, the signs ±1 of the labels (n,).

    Labels are 0 and 1 or −1 and +1 for one or two scores, classes 0 … C−1 for more.
    """
    count, labels = scores.shape[1], torch.as_tensor(labels, device=scores.device)
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels must have shape ({len(scores)},), got {tuple(labels.shape)}")
    values = set(labels.unique().tolist())
    if count <= 2:
        if not (values <= {0, 1} or values <= {-1, 1}):
            raise ValueError(f"labels for {count} score(s) are 0 and 1, or −1 and +1; got {sorted(values)}")
        signs = torch.where(labels > 0, 1.0, -1.0).to(scores.dtype)
        single = scores[:, 0] if count == 1 else (scores[:, 1] - scores[:, 0]) / 2
        return signs * single, signs
    if not values <= set(range(count)):
        raise ValueError(f"labels must be classes 0 … {count - 1}, got {sorted(values)}")
    index = labels.long()[:, None]
    right = scores.gather(1, index)[:, 0]
    return (right - scores.scatter(1, index, -torch.inf).max(dim=1).values) / 2, None


def _source_weight(layer: nn.Module, source: Source | None) -> Tensor:
    """W̃ (out, in) of a layer."""
    if source is not None:
        return source[0] if isinstance(source, tuple) else source
    op = op_for(layer)
    assert op is not None
    return op.matrix(layer.weight).detach()  # type: ignore[arg-type]


def _parts(
    layer: nn.Module, x: Tensor, output: Tensor, source: Source | None, tied_bias: bool
) -> tuple[Tensor, Tensor]:
    """The part of a layer's output that α scales now, and the same part of its source (both like ``output``)."""
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    own = output if bias is None or tied_bias else output - bias
    if source is None:
        return own, own
    weight, shift = source if isinstance(source, tuple) else (source, bias)
    return own, nn.functional.linear(x, weight.to(x), shift.to(x) if shift is not None and tied_bias else None)


@contextmanager
def _probed(
    modules: Mapping[str, nn.Module], sources: Mapping[str, Source], tied_bias: bool, calls: dict[str, list[_Call]]
) -> Iterator[None]:
    """Record every call of the layers, with a zero added to the output whose gradient is ∂z/∂out."""
    handles = []
    for name, module in modules.items():

        def record(layer: nn.Module, args: tuple[Any, ...], output: Tensor, name: str = name) -> Tensor:
            own, source = _parts(layer, args[0], output, sources.get(name), tied_bias)
            probe = torch.zeros_like(output, requires_grad=True)
            probed = output + probe
            calls[name].append(_Call(args[0].detach(), own.detach(), source.detach(), probe, probed))
            return probed

        handles.append(module.register_forward_hook(record))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pull_back(
    margin: Tensor, scores: Tensor, calls: Mapping[str, list[_Call]], weights: Mapping[str, Tensor]
) -> dict[str, LayerTangent]:
    """Tangents of one batch: each example's margin depends on its own rows, so one gradient of the sum serves all."""
    n = len(margin)
    for name, found in calls.items():
        if not found:
            raise ValueError(f"layer {name!r} is not used when the model runs; leave it out")
        if any(call.inputs.shape[0] != n or call.inputs.dim() < 2 for call in found):
            raise ValueError(
                f"layer {name!r} sees inputs of shape {tuple(found[0].inputs.shape)} for {n} examples; "
                "the examples must be their first axis"
            )
    flat = [call.probe for found in calls.values() for call in found]
    pulled = iter(torch.autograd.grad(margin.sum(), flat, allow_unused=True))
    tangents = {}
    for name, found in calls.items():
        source, own = margin.new_zeros(n), margin.new_zeros(n)
        features: Tensor | float = 0.0
        for call in found:
            gradient = next(pulled)
            gradient = torch.zeros_like(call.probe) if gradient is None else gradient
            delta = gradient.reshape(n, -1, gradient.shape[-1])  # shape: (n, tokens, out)
            x = call.inputs.reshape(n, -1, call.inputs.shape[-1])  # shape: (n, tokens, in)
            features = features + torch.einsum("nto,nti->noi", delta, x).flatten(1)
            source = source + (delta * call.source.reshape(delta.shape)).sum(dim=(1, 2))
            own = own + (delta * call.own.reshape(delta.shape)).sum(dim=(1, 2))
        assert isinstance(features, Tensor)
        exact = len(found) == 1 and found[0].output.numel() == scores.numel() and _is_score(found[0].output, scores)
        tangents[name] = LayerTangent(name, features, source, own, weights[name], exact)
    return tangents


def _is_score(output: Tensor, scores: Tensor) -> bool:
    """True if the layer's output is the model's score itself."""
    return bool(torch.equal(output.detach().reshape(scores.shape), scores.detach()))


def _join(parts: Sequence[LayerTangent]) -> LayerTangent:
    return LayerTangent(
        name=parts[0].name,
        features=torch.cat([part.features for part in parts]),
        source=torch.cat([part.source for part in parts]),
        own=torch.cat([part.own for part in parts]),
        weights=parts[0].weights,
        exact=all(part.exact for part in parts),
    )


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """The base model in eval mode; adapters and training flags come back afterwards."""
    state = get_state(model)
    if state is not None and state.merged is not None:
        raise ValueError(f"adapter {state.merged!r} is merged into the weights; unmerge it first")
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with disabled(model) if state is not None else nullcontext():
            yield
    finally:
        for module, flag in training.items():
            module.training = flag
