"""The scale that the theory recommends for a network's layers: the one bridge from `glora` to `rmt`.

>>> suggestion = suggest_alpha(model, ["classifier", "encoder.layer.5.query"], target_batches)  # doctest: +SKIP
>>> suggestion.apply(model)  # α-LoRA starts there  # doctest: +SKIP

**What is computed.** `glora.theory.tangents` turns each layer into a linear classifier: signed features uᵢ = J(xᵢ) of
length out·in, margin  z = o + α·s + ⟨u, a⟩  with the adapter a = ΔW, the layer's source score s and the offset o.
In units of the margin that the loss aims at, with a ridge penalty γ on a, K = (⟨uᵢ, uⱼ⟩)/n and T = (K + γ)⁻¹, the
score of example i by the adapter fitted without it is exact and affine in α (theory.md §6, here with an offset)::

    zᵢ(α) = z⁰ᵢ + α z¹ᵢ,   z⁰ = 1 − T(1 − o)/diag T,   z¹ = T s/diag T

An unpenalised intercept replaces T by T − T y yᵀT/(yᵀT y). Mean and covariance of (z⁰, z¹) are the (c, V) of
`rmt.QuadraticScore`, which gives the scale of the highest accuracy with the guard of theory.md §1 (``"loo"``) or of
the lowest squared risk (``"loo-risk"``, steadier for few examples). For a head, where o = 0 and nothing is
approximated, ``"plugin"`` puts unbiased moments and a Ledoit–Wolf covariance into theory.md §3 instead.

**How far it is believed.** The jackknife over (z⁰ᵢ, z¹ᵢ) gives a standard error e of α. With the prior α ~ N(1, τ²),
τ² estimated as (α − 1)² − e², at least 0 and at most (radius/2)², the posterior mean 1 + (α − 1)τ²/(τ² + e²) is
suggested (trained scales of the α-LoRA paper have standard deviations of .04 to .3 around 1). Layers that move together
push the margin the same way, so α_l = 1 + t(α̂_l − 1), one t ∈ [0, 1] from the linearised model of all layers jointly;
t is halved while the real network disagrees with it. Where the plug-in's unbiased moments violate Cauchy–Schwarz the
examples are too few for it, and the leave-one-out risk is used instead. Predicted accuracies are those of the examples
that chose the scales, and so somewhat optimistic.

**When it means nothing** α stays 1 and the reason is kept: a layer that does not reach the score (a head of zeros
above it), a source without effect, a scale within one standard error of 1, a network that is not linear in the scale
even for small steps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from glora.theory.suggestion import LayerSuggestion, Suggestion
from glora.theory.tangents import Batch, LayerTangent, Score, Source, Tangents, head_features, margins_at, tangents

__all__ = ["LayerSuggestion", "Suggestion", "suggest_alpha"]

Array = NDArray[Any]

METHODS = ("auto", "loo", "loo-risk", "plugin")
_GAMMAS = 10.0 ** np.linspace(-2, 2, 9)  #: penalties tried, in units of tr K/n = mean ‖u‖²/n
_CAP = 50.0  #: scale used where the guard says ±∞ (theory.md §6)
_FEW = 100  #: below this many examples the squared risk is the steadier target (theory.md §6)
_HALVINGS = 4
_DISAGREEMENT = 0.5  #: tolerated ‖real − linear‖/‖linear − plain‖ of the margins


def suggest_alpha(
    model: nn.Module,
    layers: str | Sequence[str],
    batches: Iterable[Batch],
    *,
    sources: Mapping[str, Source] | None = None,
    source_batches: Iterable[Batch] | None = None,
    method: str = "auto",
    gamma: float | str = "auto",
    radius: float = 0.5,
    shrink: bool = True,
    intercept: bool = True,
    tied_bias: bool = True,
    target_margin: float = 1.0,
    score: Score | None = None,
) -> Suggestion:
    """The scales that the theory recommends for α-LoRA's frozen weights, from a few labelled target examples.

    Args:
        model: the pretrained model, with a head that means something (the source head, or one already fitted);
            attached adapters are switched off while it is looked at.
        layers: the head and/or the layers to be adapted, by name.
        batches: (inputs, labels) pairs of the target's training data.
        sources: source weights of layers, where they are not the weights in the model (a head from elsewhere).
        source_batches: the same for the source task; a head's plug-in then pools their noise covariance.
        method: "loo", "loo-risk" or "plugin" (heads with one or two scores only; other layers then use "auto");
            "auto" takes the plug-in for such heads if `source_batches` are given or n ≥ 50, else "loo-risk" below
            100 examples, else "loo".
        gamma: ridge penalty of the mean squared loss in units of the features, or "auto": the one with the smallest
            leave-one-out squared error. Gradient flow for a time t acts like γ ≈ 1/t.
        radius: largest |α − 1| of a layer that is not exactly linear. A head may go to ±50, as the theory's guard does.
        shrink: shrink by the standard error, as the module says.
        intercept: an unpenalised intercept is trained too (one or two scores only).
        tied_bias: α scales the bias too (α-LoRA).
        target_margin: τ, the margin the loss aims at: the adapter minimises mean (1 − z/τ)² + γ‖a‖².
        score: see `glora.theory.tangents.tangents`.

    Returns:
        Scales and predictions; at ``alphas == 1`` with a `reason`, and a warning, where the theory has no advice.

    Raises:
        ValueError: unknown layers, fewer than 4 examples, one class only, or values out of range.
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    _check(method, gamma, radius, target_margin)
    batches = list(batches)
    common: dict[str, Any] = {"sources": sources, "tied_bias": tied_bias, "score": score}
    found = tangents(model, names, batches, **common)
    signs = None if found.signs is None else _numpy(found.signs)
    if len(found.margin) < 4:
        raise ValueError(f"{len(found.margin)} examples are too few for a leave-one-out estimate; give 4 or more")
    if signs is not None and min(np.sum(signs > 0), np.sum(signs < 0)) < (2 if intercept else 1):
        raise ValueError("the target examples need both classes, two of each with an intercept")
    methods = {layer.name: _method_for(method, layer, found, source_batches is not None) for layer in found.layers}
    heads = [name for name, kind in methods.items() if kind == "plugin"] if source_batches is not None else []
    pool = _pool(model, heads, source_batches or (), common) if heads else {}
    problems, fitted = [], []
    for layer in found.layers:
        problem = _Problem.of(layer, found.margin, signs if intercept else None, target_margin)
        bound = _CAP if layer.exact else radius
        fitted.append(_alone(problem, layer, signs, pool.get(layer.name), methods[layer.name], gamma, bound, shrink))
        problems.append(problem)
    margin = _numpy(found.margin) / target_margin
    result = _together(model, batches, common, fitted, problems, margin, gamma)
    if result.reason:
        warnings.warn(f"α = 1 is kept for every layer: {result.reason}", stacklevel=2)
    return result


class _Problem(NamedTuple):
    """A layer, or several at once, as a ridge problem in signed units of the target margin; n×n numbers suffice."""

    gram: Array  #: (n, n) K
    offset: Array  #: (n,) o
    source: Array  #: (n,) s
    intercept: Array | None  #: (n,) signs y
    margin: float  #: τ; features, o and s are divided by it

    @classmethod
    def of(cls, layer: LayerTangent, margin: Tensor, intercept: Array | None, target: float) -> _Problem:
        features = layer.features.double() / target
        gram = _numpy(features @ features.T) / len(margin)
        return cls(gram, _numpy(margin - layer.own) / target, _numpy(layer.source) / target, intercept, target)

    def leave_one_out(self, gamma: float) -> tuple[Array, Array]:
        """z⁰, z¹ (n,): the held-out score of each example is z⁰ + α z¹."""
        T = np.linalg.inv(self.gram + gamma * np.eye(len(self.gram)))
        if self.intercept is not None:
            along = T @ self.intercept
            T = T - np.outer(along, along) / (self.intercept @ along)
        diagonal = np.diag(T)
        return 1.0 - T @ (1.0 - self.offset) / diagonal, T @ self.source / diagonal

    def choose(self, gamma: float | str, low: float, high: float) -> tuple[float, Array, Array]:
        """(γ, z⁰, z¹) of the smallest held-out squared error with the best scale in [low, high]."""
        scale = np.trace(self.gram) / len(self.gram)
        tried = []
        for value in scale * _GAMMAS if isinstance(gamma, str) else [gamma]:
            start, slope = self.leave_one_out(float(value))
            power = float(slope @ slope)
            alpha = np.clip((1.0 - start) @ slope / power, low, high) if power > 0 else 1.0
            tried.append((float(np.mean((1.0 - start - alpha * slope) ** 2)), float(value), start, slope))
        return min(tried, key=lambda one: one[0])[1:]


def _alone(
    problem: _Problem,
    layer: LayerTangent,
    signs: Array | None,
    pool: tuple[LayerTangent, Array] | None,
    method: str,
    gamma: float | str,
    radius: float,
    shrink: bool,
) -> LayerSuggestion:
    """One layer adapted on its own, |α − 1| ≤ radius."""
    from rmt import QuadraticScore

    plain = problem.offset + problem.source
    reason = ""
    if not np.trace(problem.gram) > 0:
        reason = "the layer does not reach the score (is the head above it zero?)"
    elif not np.abs(problem.source).max() > 1e-12 * np.abs(problem.offset).max():
        reason = "the source has no effect on the score"
    if reason:
        share = float(np.mean(plain > 0))
        return LayerSuggestion(layer.name, 1.0, math.nan, math.nan, math.nan, method, share, share, reason)
    low, high = max(1.0 - radius, -_CAP), min(1.0 + radius, _CAP)
    penalty, start, slope = problem.choose(gamma, low, high)
    moments = None
    if method == "plugin":
        assert signs is not None
        moments = _plugin(layer, signs, pool, penalty, problem)
        method = method if moments is not None else "loo-risk"
    c, V = moments or _moments(start, slope)
    scores = QuadraticScore(c, V)
    raw = scores.alpha_risk if method == "loo-risk" else scores.alpha_star
    capped = np.clip(np.nan_to_num(raw, nan=1.0, posinf=_CAP, neginf=-_CAP), -_CAP, _CAP)
    stderr = math.sqrt((1 - 1 / len(start)) * np.sum((capped[1:] - capped[1:].mean()) ** 2))
    alpha = float(capped[0])
    if shrink:
        spread = min((alpha - 1) ** 2 - stderr**2, (radius / 2) ** 2)
        if spread <= 0:
            alpha, reason = 1.0, f"α = {alpha:.3g} is within one standard error ({stderr:.2g}) of 1"
        else:
            alpha = 1 + (alpha - 1) * spread / (spread + stderr**2)
    alpha = min(max(alpha, low), high)
    before, after = (float(scores.accuracy(value)[0]) for value in (1.0, alpha))
    return LayerSuggestion(layer.name, alpha, float(raw[0]), stderr, penalty, method, before, after, reason)


def _together(
    model: nn.Module,
    batches: Sequence[Batch],
    common: Mapping[str, Any],
    fitted: Sequence[LayerSuggestion],
    problems: Sequence[_Problem],
    margin: Array,
    gamma: float | str,
) -> Suggestion:
    """All layers adapted at once: one line search along the scales that suit each alone.

    With d_l = α̂_l − 1 the joint linear model is z = z(α = 1) + t Σ d_l s_l + ⟨u, a⟩, u all layers' features: the
    ridge problem again, with t for α.
    """
    from rmt import QuadraticScore

    moves = {one.name: one.alpha - 1.0 for one in fitted}
    # own = margin − offset, so at α = 1 each layer changes the margin by its source less its own part.
    plain = margin + sum(one.source + one.offset - margin for one in problems)
    push = sum((moves[name] * one.source for name, one in zip(moves, problems, strict=True)), np.zeros(len(margin)))
    gram = np.sum([one.gram for one in problems], axis=0)
    joint = problems[0]._replace(gram=gram, offset=plain, source=push)
    result: dict[str, Any] = {"layers": tuple(fitted), "examples": len(margin), "backward_passes": 1}
    if not np.trace(joint.gram) > 0:
        return _unchanged(moves, float(np.mean(plain > 0)), 1, fitted[0].reason, **result)
    _, start, slope = joint.choose(gamma, 0.0, 1.0)
    c, V = _moments(start, slope)
    score = QuadraticScore(c[0], V[0])
    before = fitted[0].accuracy_plain if len(fitted) == 1 else float(score.accuracy(0.0))
    if not any(moves.values()):
        return _unchanged(moves, before, 1, "; ".join(dict.fromkeys(one.reason for one in fitted)), **result)
    whole = 1.0 if len(fitted) == 1 else float(np.clip(score.alpha_risk, 0.0, 1.0))
    if whole == 0.0:
        return _unchanged(moves, before, 1, "jointly, the layers' scales do not lower the held-out error", **result)
    for halvings in range(_HALVINGS + 1):
        step = whole / 2**halvings
        alphas = {name: 1.0 + step * move for name, move in moves.items()}
        real = _numpy(margins_at(model, alphas, batches, **common)) / joint.margin
        disagreement = float(np.linalg.norm(real - plain - step * push) / np.linalg.norm(step * push))
        if disagreement <= _DISAGREEMENT:
            break
    else:
        reason = f"the network is not linear in the scales (disagreement {disagreement:.2g} at the smallest step)"
        return _unchanged(moves, before, 2 + halvings, reason, **result)
    after = fitted[0].accuracy_suggested if len(fitted) == 1 and step == 1.0 else float(score.accuracy(step))
    return Suggestion(
        alphas=alphas,
        step=step,
        accuracy_plain=before,
        accuracy_suggested=after,
        disagreement=disagreement,
        forward_passes=2 + halvings,
        **result,
    )


def _unchanged(names: Iterable[str], accuracy: float, passes: int, reason: str, **fields: Any) -> Suggestion:
    """α = 1 for every layer."""
    return Suggestion(
        alphas=dict.fromkeys(names, 1.0),
        step=0.0,
        accuracy_plain=accuracy,
        accuracy_suggested=accuracy,
        disagreement=0.0,
        forward_passes=passes,
        reason=reason,
        **fields,
    )


def _moments(start: Array, slope: Array) -> tuple[Array, Array]:
    """c (n+1, 2) and V (n+1, 2, 2) of the held-out scores: of all examples, then with each left out (the jackknife)."""
    z = np.stack([start, slope], axis=1)  # (n, 2)
    squares = z[:, :, None] * z[:, None, :]
    n = len(z)
    c = np.concatenate([z.mean(axis=0)[None], (z.sum(axis=0) - z) / (n - 1)])
    second = np.concatenate([squares.mean(axis=0)[None], (squares.sum(axis=0) - squares) / (n - 1)])
    return c, second - c[:, :, None] * c[:, None, :]


def _plugin(
    layer: LayerTangent,
    signs: Array,
    pool: tuple[LayerTangent, Array] | None,
    gamma: float,
    problem: _Problem,
) -> tuple[Array, Array] | None:
    """c, V as in `_moments`, from unbiased moments and a pooled Ledoit–Wolf covariance (theory.md §3 and §6).

    None where the unbiased moments of all examples break Cauchy–Schwarz, which the true ones obey.
    """
    from rmt.choosing.moments import shrinkage
    from rmt.linear.forms import assemble
    from rmt.resolvent import inverse_of, spectral
    from rmt.settings.spectrum import Spectrum

    centred = problem.intercept is not None
    features, weights = (_numpy(one) for one in head_features(layer))
    features = features / problem.margin
    n = len(features)
    mean, noise, rest, share = _mean_and_noise(features, signs, centred)
    samples, lost = [noise], 2 if centred else 1
    if pool is not None:
        extra = _mean_and_noise(_numpy(head_features(pool[0])[0]) / problem.margin, pool[1], centred)[1]
        samples.append(extra)
        lost *= 2
    stacked = np.concatenate(samples)
    sample, weight = stacked.T @ stacked / (len(stacked) - lost), shrinkage(stacked)
    covariance = (1.0 - weight) * sample + weight * np.trace(sample) / len(sample) * np.eye(len(sample))
    spectrum = Spectrum.of(covariance)
    values = np.asarray(spectrum.values)
    r = spectral(values, n, gamma)
    theta, inverse = float(r.theta), inverse_of(values, r.theta, "gamma")
    m = spectrum.rotate(np.concatenate([mean[None], rest]))  # (n+1, p)
    w = spectrum.rotate(weights)  # (p,)
    bias = share * np.array([1.0, *np.full(n, n / (n - 1))])  # the noise of m̂ is C·bias
    hch = inverse**2 * values
    pull, cross = m @ (inverse * w), m @ (hch * w)
    gain, form = (m**2) @ inverse - bias * np.sum(inverse * values), (m**2) @ hch - bias * np.sum(hch * values)
    least_gain, least_form = pull**2 / np.sum(inverse * w**2), cross**2 / np.sum(hch * w**2)
    if gain[0] <= least_gain[0] or form[0] <= least_form[0]:
        return None
    gain, form = np.maximum(gain, least_gain), np.maximum(form, least_form)
    return assemble(
        gain=gain,
        pull=theta * pull[:, None],
        mean_form=form,
        cross_form=theta * cross[:, None],
        source_form=np.full((1, 1), theta**2 * np.sum(hch * w**2)),
        h=r.h,
        excess=r.excess,
        kappa=np.ones(n + 1),
    )


def _pool(
    model: nn.Module, heads: Sequence[str], batches: Iterable[Batch], common: Mapping[str, Any]
) -> dict[str, tuple[LayerTangent, Array]]:
    """Tangents of the heads on the source task, with the signs of its labels."""
    found = tangents(model, heads, batches, **common)
    assert found.signs is not None
    if min(int((found.signs > 0).sum()), int((found.signs < 0).sum())) < 2:
        raise ValueError("source_batches needs two examples of each class")
    return {layer.name: (layer, _numpy(found.signs)) for layer in found.layers}


def _mean_and_noise(u: Array, signs: Array, centred: bool) -> tuple[Array, Array, Array, float]:
    """Mean m̂ (p,) of signed rows u, their noise (n, p), m̂ without each row (n, p), and tr Cov(m̂)/tr C.

    `centred`: the classes have means b ± m with any b (the intercept's job), so m̂ = (x̄₊ − x̄₋)/2.
    """
    n = len(u)
    if not centred:
        mean = u.mean(axis=0)
        return mean, u - mean, mean - (u - mean) / (n - 1), 1.0 / n
    noise, rest = np.empty_like(u), np.empty_like(u)
    counts = {sign: int(np.sum(signs == sign)) for sign in (-1.0, 1.0)}
    mean = sum(u[signs == sign].mean(axis=0) for sign in counts) / 2
    for sign, count in counts.items():
        rows = signs == sign
        noise[rows] = u[rows] - u[rows].mean(axis=0)
        rest[rows] = mean - noise[rows] / (2 * (count - 1))
    return mean, noise, rest, sum(0.25 / count for count in counts.values())


def _method_for(method: str, layer: LayerTangent, found: Tangents, pooled: bool) -> str:
    """The estimator for one layer (theory.md §6, verdict)."""
    head = layer.exact and found.signs is not None
    n = len(found.margin)
    enough = pooled or n >= _FEW / 2
    if head and (method == "plugin" or (method == "auto" and enough)):
        return "plugin"
    if method in ("auto", "plugin"):
        return "loo-risk" if n < _FEW else "loo"
    return method


def _check(method: str, gamma: float | str, radius: float, margin: float) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if gamma != "auto" and not (isinstance(gamma, (int, float)) and math.isfinite(gamma) and gamma > 0):
        raise ValueError(f"gamma must be a number > 0 or 'auto', got {gamma!r}")
    for name, value in (("radius", radius), ("target_margin", margin)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a number > 0, got {value!r}")


def _numpy(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().numpy()
