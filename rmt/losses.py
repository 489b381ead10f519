"""Convex losses of the margin, their proximal maps, and the Gaussian averages the theory needs (theory.md §5).

A loss ℓ enters the theory through the residual ξ = −ℓ′(x) at the proximal point x = r + κξ of r ~ N(s, σ²)::

    e = Eξ,    v = Eξ²,    τ = −E ∂ξ/∂r = E ℓ″(x)/(1 + κℓ″(x))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, ndtr, roots_genlaguerre

from rmt import _checks
from rmt._checks import FloatArray

Function = Callable[[FloatArray], FloatArray]

#: Quadrature reaches this many standard deviations: the tails beyond weigh 1e-18.
_REACH = 8.75
#: Width of the region around the inflection where quadrature points are evenly spaced.
_BEND = 3.0
#: Newton and bisection steps of the proximal map. Newton from the inflection needs ≤ 17 (theory.md §5).
_NEWTON_PROX, _MAX_PROX = 24, 200


class Moments(NamedTuple):
    """e = Eξ, v = Eξ², τ = −E ∂ξ/∂r."""

    e: FloatArray
    v: FloatArray
    tau: FloatArray


@dataclass(frozen=True)
class Loss:
    """A convex, twice-differentiable loss ℓ(x) of the margin x = y·wᵀx.

    Args:
        first: ℓ′, on arrays, elementwise.
        second: ℓ″ ≥ 0.
        inflection: where ℓ″ is largest. Newton's method for the proximal point starts there: for a bell-shaped ℓ″ it
            is then monotone, while a start at x = r cycles for κ above about 10 and silently ruins the answer.
        name: for messages.

    >>> import numpy as np
    >>> import rmt
    >>> exponential = rmt.Loss(lambda x: -np.exp(-x), lambda x: np.exp(-x), name="exponential")
    >>> source = rmt.FixedSource(overlap=0.6, norm2=0.45)
    >>> setting = rmt.Transfer(p=100, n=200, gamma=1.0, mu_target=1.5, source=source)
    >>> round(float(rmt.theory(setting, loss=exponential).accuracy(1.0)), 3)
    0.895
    """

    first: Function
    second: Function
    inflection: float = 0.0
    name: str = "custom"

    #: Whether :meth:`moments` is in closed form, so that ``nodes`` plays no role.
    exact = False

    def __post_init__(self) -> None:
        if not (callable(self.first) and callable(self.second)):
            raise ValueError("first and second must be functions of an array: the derivatives ℓ′ and ℓ″ of the loss")
        _checks.finite("inflection", self.inflection)
        x = np.linspace(-20.0, 20.0, 81)
        slope, curvature = self._evaluate(x)
        if (curvature < 0).any():
            raise ValueError(f"loss {self.name!r} is not convex: second is negative at x = {x[curvature < 0][0]:g}")
        step = 1e-4
        numeric = (self._evaluate(x + step)[0] - self._evaluate(x - step)[0]) / (2 * step)
        # A kink of ℓ′ may lie within one step of a few of the points.
        if np.mean(np.abs(numeric - curvature) > 1e-3 * (1.0 + np.abs(curvature))) > 0.1:
            raise ValueError(f"second is not the derivative of first for loss {self.name!r}; check both functions")
        if slope[0] >= 0:
            raise ValueError(f"loss {self.name!r} must fall where the margin is negative, but ℓ′(−20) = {slope[0]:g}")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A named loss is pickled by its name; any other as far as its functions allow."""
        if _NAMED.get(self.name) is self:
            return find_loss, (self.name,)
        return super().__reduce_ex__(protocol)

    def _evaluate(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        slope, curvature = (np.asarray(f(x), dtype=float) for f in (self.first, self.second))
        if slope.shape != x.shape or curvature.shape != x.shape:
            raise ValueError(f"first and second of loss {self.name!r} must return one number for each entry")
        if not (np.isfinite(slope).all() and np.isfinite(curvature).all()):
            raise ValueError(f"first or second of loss {self.name!r} is not finite within ±{np.abs(x).max():g}")
        return slope, curvature

    def slopes(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(ℓ′, ℓ″) at ``x``; a loss whose derivatives share work computes it once here."""
        return np.asarray(self.first(x), dtype=float), np.asarray(self.second(x), dtype=float)

    def prox(self, r: FloatArray, kappa: FloatArray) -> FloatArray:
        """The x with x + κℓ′(x) = r, elementwise; unique, since the left side rises with slope ≥ 1.

        Newton from the inflection; what it leaves unsolved (a loss whose ℓ″ is no bell) goes to
        :meth:`_bracketed_prox`.
        """
        r, kappa = np.broadcast_arrays(r, kappa)
        far = r - kappa * self.slopes(r)[0]  # the root lies between r and far
        x = np.clip(self.inflection, np.minimum(r, far), np.maximum(r, far))
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(_NEWTON_PROX):
                slope, curvature = self.slopes(x)
                step = (x + kappa * slope - r) / (1.0 + kappa * curvature)
                x = x - step
                unsolved = ~(np.abs(step) <= 1e-8 * (1.0 + np.abs(x)))  # the next step would be below 1e-15
                if not unsolved.any():
                    return x
        x[unsolved] = self._bracketed_prox(r[unsolved], kappa[unsolved], far[unsolved])
        return x

    def _bracketed_prox(self, r: FloatArray, kappa: FloatArray, far: FloatArray) -> FloatArray:
        """Newton inside a bracket; a step that leaves it or does not halve the residual is replaced by bisection."""
        low, high = np.minimum(r, far), np.maximum(r, far)
        x = np.clip(self.inflection, low, high)
        last, bisect = np.full(r.shape, np.inf), np.zeros(r.shape, dtype=bool)
        for _ in range(_MAX_PROX):
            slope, curvature = self.slopes(x)
            value = x + kappa * slope - r
            step = value / (1.0 + kappa * curvature)
            done = (np.abs(step) <= 1e-14 * (1.0 + np.abs(x))) | (high - low <= 1e-15 * (1.0 + np.abs(x)))
            if done.all():
                break
            low, high = np.where(value < 0, x, low), np.where(value > 0, x, high)
            bisect = ~bisect & (np.abs(value) > 0.5 * last)
            last = np.abs(value)
            newton = x - step
            use = ~bisect & (newton >= low) & (newton <= high)
            x = np.where(done, x, np.where(use, newton, 0.5 * (low + high)))
        return x

    def moments(self, mean: FloatArray, variance: FloatArray, kappa: FloatArray, nodes: int) -> Moments:
        """Averages over r ~ N(mean, variance), by the trapezoidal rule with ``nodes`` points.

        The points lie where both the Gaussian and the loss are resolved: they are even in t, with
        x + aκℓ′(x)/(1 + a) = inflection + 3 sinh t, a mean of r (a = ∞) and x (a = 0) as coordinate. In r alone
        the proximal map has a kink at r ≈ −κ, in x alone the Gaussian is narrow where κℓ″ is large. The error
        falls exponentially in the number of points, for every variance and κ.
        """
        sd = np.sqrt(variance)
        share = np.maximum(3.0 / sd, 1.0 / kappa)  # a
        milder = kappa * share / (1.0 + share)
        ends = []
        for side in (-_REACH, _REACH):
            x = self.prox(mean + side * sd, kappa)
            ends.append(np.arcsinh((x + milder * self.slopes(x)[0] - self.inflection) / _BEND))
        t = ends[0][..., None] + (ends[1] - ends[0])[..., None] * np.linspace(0.0, 1.0, nodes)
        stretch = np.exp(t)
        milder, kappa = milder[..., None], kappa[..., None]
        x = self.prox(self.inflection + 0.5 * _BEND * (stretch - 1.0 / stretch), milder)
        slope, curvature = self.slopes(x)
        z = (x + kappa * slope - mean[..., None]) / sd[..., None]
        spread = 1.0 + kappa * curvature  # dr/dx
        weight = np.exp(-0.5 * z * z) * (stretch + 1.0 / stretch) * spread / (1.0 + milder * curvature)
        weight /= weight.sum(axis=-1, keepdims=True)
        return Moments(
            -np.sum(weight * slope, axis=-1),
            np.sum(weight * slope**2, axis=-1),
            np.sum(weight * curvature / spread, axis=-1),
        )


class _Square(Loss):
    """ℓ = ½(1 − x)²: every average in closed form."""

    exact = True

    def moments(self, mean: FloatArray, variance: FloatArray, kappa: FloatArray, nodes: int) -> Moments:
        """In closed form; ``nodes`` is not used."""
        shrink = 1.0 / (1.0 + kappa)
        return Moments((1.0 - mean) * shrink, ((1.0 - mean) ** 2 + variance) * shrink**2, shrink)


class _SquaredHinge(Loss):
    """ℓ = ½ max(0, 1 − x)²: in closed form too, since a grid across the kink costs two digits."""

    exact = True

    def moments(self, mean: FloatArray, variance: FloatArray, kappa: FloatArray, nodes: int) -> Moments:
        """In closed form; ``nodes`` is not used."""
        gap, sd, shrink = 1.0 - mean, np.sqrt(variance), 1.0 / (1.0 + kappa)
        t = gap / sd
        below, density = ndtr(t), np.exp(-0.5 * t**2) / np.sqrt(2.0 * np.pi)
        first = gap * below + sd * density
        second = (gap**2 + variance) * below + gap * sd * density
        tail = t < -_TAIL  # there both sums cancel: a relative error of 1e-11 at t = −7.7, where no iteration settles
        if tail.any():
            first, second = first.copy(), second.copy()
            first[tail], second[tail] = (sd[tail] ** k * _tail_moment(-t[tail], k) for k in (1, 2))
        return Moments(first * shrink, second * shrink**2, below * shrink)


#: From here on the averages of a hinge over the Gaussian tail are taken by quadrature; 40 points give 15 digits.
_TAIL, _TAIL_NODES = 3.0, 40


def _tail_moment(t: FloatArray, power: int) -> FloatArray:
    """E max(0, z − t)ᵏ of z ~ N(0, 1) for t ≥ 3: ϕ(t)t^{−k−1} ∫ xᵏe^{−x}e^{−x²/2t²}dx, by Gauss–Laguerre."""
    nodes, weights = roots_genlaguerre(_TAIL_NODES, power)
    integral = np.exp(-0.5 * (nodes / t[..., None]) ** 2) @ weights
    return np.exp(-0.5 * t**2) / np.sqrt(2.0 * np.pi) * t ** (-power - 1.0) * integral


class _Logistic(Loss):
    """ℓ = log(1 + e⁻ˣ): one exponential gives both derivatives."""

    def slopes(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ℓ′ = −1/(1 + eˣ) and ℓ″ = −ℓ′(1 + ℓ′), without overflow or cancellation."""
        decay = np.exp(-np.abs(x))
        inverse = 1.0 / (1.0 + decay)
        return np.where(x > 0, -decay, -1.0) * inverse, decay * inverse * inverse


SQUARE = _Square(lambda x: x - 1.0, np.ones_like, name="square")
LOGISTIC = _Logistic(lambda x: -expit(-x), lambda x: expit(-x) * expit(x), name="logistic")
SQUARED_HINGE = _SquaredHinge(
    lambda x: np.minimum(x - 1.0, 0.0), lambda x: np.where(x < 1.0, 1.0, 0.0), inflection=1.0, name="squared_hinge"
)
_NAMED = {loss.name: loss for loss in (SQUARE, LOGISTIC, SQUARED_HINGE)}


def find_loss(loss: Any) -> Loss:
    """The :class:`Loss` called ``loss``; a ``Loss`` is returned as it is.

    Raises:
        ValueError: unknown name or type.
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        raise ValueError("loss as a function must come with its derivatives: Loss(first=ℓ′, second=ℓ″)")
    return _NAMED[_checks.one_of("loss", loss, tuple(_NAMED))]
