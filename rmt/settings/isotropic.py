"""Settings: what is the data, how many samples, how much regularisation.

A setting is frozen, checks itself when it is made, and broadcasts: every numeric field may be a scalar or an
array, and one setting with arrays of shape ``(…)`` stands for that many settings.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt.resolvent import isotropic

#: A number or an array of numbers.
Numbers = Any

#: Relative slack for Cauchy–Schwarz: inputs that are exact on paper carry rounding.
SLACK = 1e-9


class Comparable:
    """Equality and hash of frozen dataclasses whose fields may be arrays."""

    _shape: tuple[int, ...]

    def _key(self) -> tuple[Any, ...]:
        return type(self), *(_frozen(getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]

    def _repr_html_(self) -> str:
        from rmt._html import fields_table

        return fields_table(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Comparable) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def _frozen(value: Any) -> Any:
    """A hashable stand-in for a field: numbers by their bytes, sequences of settings item by item."""
    if value is None or isinstance(value, Comparable | str):
        return value
    try:
        array = np.asarray(value, dtype=float) + 0.0  # −0 and 0 are the same setting
    except (TypeError, ValueError):
        return tuple(map(_frozen, value)) if isinstance(value, tuple | list) else value
    return array.shape, array.tobytes()


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedSource(Comparable):
    """Arbitrary source weights w̃, known only through what the theory needs (theory.md §2).

    One source: ``overlap`` = ⟨w̃, m⟩ and ``norm2`` = ‖w̃‖², scalars or arrays that broadcast.
    K sources: ``overlap`` of shape (…, K) and ``gram`` = W̃ᵀW̃ of shape (…, K, K).
    The weights themselves: ``vector`` of shape (p,), for settings that hold the target mean as a vector
    (:class:`rmt.GaussianTransfer` and its like).

    >>> import rmt
    >>> source = rmt.FixedSource(overlap=0.6, norm2=0.45)
    >>> setting = rmt.Transfer(p=200, n=100, gamma=0.3, mu_target=1.5, source=source)
    >>> round(float(rmt.theory(setting).alpha_star), 4)
    0.5236
    """

    overlap: Numbers = None
    norm2: Numbers = None
    gram: Numbers = None
    vector: Numbers = None

    def __post_init__(self) -> None:
        if self.vector is not None:
            if not (self.overlap is None and self.norm2 is None and self.gram is None):
                raise ValueError("vector holds the weights themselves; drop overlap, norm2 and gram")
            vector = _checks.finite("vector", self.vector, largest=_checks.LARGEST)
            if vector.ndim != 1 or not vector.size:
                raise ValueError(f"vector must have shape (p,), got {vector.shape}; give one FixedSource a source")
            return
        if self.overlap is None:
            raise ValueError("give overlap = ⟨w̃, m⟩ (with norm2 or gram), or the weights as vector")
        overlap = _checks.finite("overlap", self.overlap, largest=_checks.LARGEST)
        if (self.norm2 is None) == (self.gram is None):
            raise ValueError("give norm2 (one source) or gram (K sources), exactly one of the two")
        if self.norm2 is not None:
            _checks.at_least("norm2", self.norm2, 0.0, largest=_checks.LARGEST)
            return
        gram = _checks.finite("gram", self.gram, largest=_checks.LARGEST)
        if overlap.ndim < 1 or gram.ndim < 2 or gram.shape[-2:] != (overlap.shape[-1],) * 2:
            raise ValueError(f"gram must have shape (…, K, K) and overlap (…, K), got {gram.shape} and {overlap.shape}")
        if not np.allclose(gram, np.swapaxes(gram, -1, -2), rtol=1e-9, atol=1e-12):
            raise ValueError("gram must be symmetric; compute it as W.T @ W")
        if (np.linalg.eigvalsh(gram)[..., 0] <= 0).any():
            raise ValueError("gram must be positive definite; drop sources that are combinations of the others")

    @property
    def count(self) -> int | None:
        """K when the source was given by ``gram``; None for one source with a scalar α."""
        return None if self.gram is None else int(np.shape(self.overlap)[-1])


_RIDGE_FIELDS = ("N", "gamma_source", "mu", "beta")


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer(Comparable):
    """Isotropic transfer: target samples ``y·m + z``, z ~ N(0, I_p), and source weights w̃ (theory.md §0).

    Common fields: ``p`` dimension, ``n`` target samples, ``gamma`` ridge penalty of the target (of the mean
    squared loss), ``label_noise`` probability that a target training label is flipped.

    The source is one of two:

    - **ridge source**: weights fitted on ``N`` samples (``math.inf`` allowed) with penalty ``gamma_source`` to
      a task with mean μ, ``mu`` = ‖μ‖; ``label_noise_source`` flips its labels. The target mean m is given by

      - ``beta`` and ``mu_perp``: m = β μ + √(1−β²) μ_⊥ with ‖μ_⊥‖ = ``mu_perp`` (the paper's form; |β| ≤ 1), or
      - ``beta`` and ``mu_target``: ‖m‖ = ``mu_target`` and ⟨m, μ⟩ = β‖μ‖² (any β with |β|‖μ‖ ≤ ‖m‖);

    - **fixed source**: ``source=FixedSource(…)`` together with ``mu_target`` = ‖m‖.

    Raises:
        ValueError: a field is missing, superfluous or out of range, NaN, or shapes do not broadcast;
            also γ = 0 with p = n (and γ̃ = 0 with p = N), where the variance is infinite.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> float(setting.eta), round(float(rmt.theory(setting).alpha_star), 4)
    (2.0, 1.8384)
    """

    p: Numbers
    n: Numbers
    gamma: Numbers
    N: Numbers = None
    gamma_source: Numbers = None
    mu: Numbers = None
    mu_perp: Numbers = None
    beta: Numbers = None
    mu_target: Numbers = None
    source: FixedSource | None = None
    label_noise: Numbers = 0.0
    label_noise_source: Numbers = 0.0

    def __post_init__(self) -> None:
        p = _checks.count("p", self.p)
        n = _checks.count("n", self.n)
        gamma = _checks.penalty("gamma", self.gamma)
        reject_interpolation("gamma", gamma, "n", n, p)
        noise = flip_probability("label_noise", self.label_noise)
        arrays = {"p": p, "n": n, "gamma": gamma, "label_noise": noise}
        arrays |= self._check_ridge(p) if self.source is None else self._check_fixed()
        object.__setattr__(self, "_shape", _checks.broadcast(**arrays))

    def _check_fixed(self) -> dict[str, FloatArray]:
        given = [name for name in (*_RIDGE_FIELDS, "mu_perp") if getattr(self, name) is not None]
        if given or np.any(np.asarray(self.label_noise_source) != 0):
            given += ["label_noise_source"] if np.any(np.asarray(self.label_noise_source) != 0) else []
            raise ValueError(
                f"{', '.join(given)} describe a ridge source, but source=FixedSource(…) was given; drop one"
            )
        if not isinstance(self.source, FixedSource):
            raise ValueError(f"source must be a FixedSource, got {type(self.source).__name__}")
        if self.source.vector is not None:
            raise ValueError(
                "a Transfer knows its means only by their norms: give FixedSource(overlap=w @ m, norm2=w @ w), "
                "or keep FixedSource(vector=w) and use GaussianTransfer"
            )
        if self.mu_target is None:
            raise ValueError("mu_target, the norm of the target mean, is needed with source=FixedSource(…)")
        target = _checks.at_least("mu_target", self.mu_target, 0.0, largest=_checks.LARGEST)
        overlap = np.asarray(self.source.overlap, dtype=float)
        if self.source.count is None:
            norm2 = np.asarray(self.source.norm2, dtype=float)
            shapes = {"mu_target": target, "overlap": overlap, "norm2": norm2}
            _checks.broadcast(**shapes)
            explained = overlap**2
            bound = target**2 * norm2
        else:
            gram = np.asarray(self.source.gram, dtype=float)
            explained = np.einsum("...k,...k", overlap, np.linalg.solve(gram, overlap[..., None])[..., 0])
            bound = target**2
            shapes = {"mu_target": target, "overlap": overlap[..., 0], "gram": gram[..., 0, 0]}
            _checks.broadcast(**shapes)
        if (explained > bound * (1 + SLACK) + 1e-300).any():
            raise ValueError(
                "overlap is larger than ‖w̃‖·‖m‖ allows (Cauchy–Schwarz): "
                f"overlap {_checks.shown(self.source.overlap)}, mu_target {_checks.shown(self.mu_target)}; "
                "give overlap = ⟨w̃, m⟩, norm2 = ‖w̃‖² (squared) and mu_target = ‖m‖ (not squared)"
            )
        return shapes

    def _check_ridge(self, p: FloatArray) -> dict[str, FloatArray]:
        missing = [name for name in _RIDGE_FIELDS if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; a ridge source needs them (or give source=FixedSource(…))")
        samples = _checks.count("N", self.N, infinite=True)
        gamma = _checks.penalty("gamma_source", self.gamma_source)
        reject_interpolation("gamma_source", gamma, "N", samples, p)
        mu = _checks.at_least("mu", self.mu, 0.0, largest=_checks.LARGEST)
        beta = _checks.finite("beta", self.beta, largest=_checks.LARGEST)
        noise = flip_probability("label_noise_source", self.label_noise_source)
        arrays = {"N": samples, "gamma_source": gamma, "mu": mu, "beta": beta, "label_noise_source": noise}
        if (self.mu_perp is None) == (self.mu_target is None):
            raise ValueError(
                "give mu_perp (the paper's form of the target mean) or mu_target = ‖m‖, exactly one of the two"
            )
        if self.mu_perp is not None:
            arrays["mu_perp"] = _checks.at_least("mu_perp", self.mu_perp, 0.0, largest=_checks.LARGEST)
            if (np.abs(beta) > 1).any():
                raise ValueError(
                    f"beta must lie in [−1, 1] when mu_perp is given, because m = β μ + √(1−β²) μ_⊥, "
                    f"got {_checks.shown(self.beta)}; give mu_target = ‖m‖ instead of mu_perp"
                )
            return arrays
        arrays["mu_target"] = target = _checks.at_least("mu_target", self.mu_target, 0.0, largest=_checks.LARGEST)
        _checks.broadcast(mu=mu, beta=beta, mu_target=target)
        if (np.abs(beta) * mu > target * (1 + SLACK)).any():
            raise ValueError(
                f"mu_target must be ≥ |beta|·mu, because ⟨m, μ⟩ = β‖μ‖² ≤ ‖m‖‖μ‖, got mu_target "
                f"{_checks.shown(self.mu_target)}, beta {_checks.shown(self.beta)}, mu {_checks.shown(self.mu)}"
            )
        return arrays

    @property
    def shape(self) -> tuple[int, ...]:
        """Broadcast shape of all fields; () for one setting."""
        return self._shape

    @property
    def eta(self) -> FloatArray:
        """η = p/n."""
        return np.asarray(self.p, dtype=float) / np.asarray(self.n, dtype=float)

    @property
    def eta_source(self) -> FloatArray:
        """η̃ = p/N (0 for N = ∞). Only for a ridge source."""
        if self.N is None:
            raise ValueError("eta_source is defined for a ridge source only; this setting has source=FixedSource(…)")
        return np.asarray(self.p, dtype=float) / np.asarray(self.N, dtype=float)

    @property
    def m2(self) -> FloatArray:
        """M = ‖m‖², the target signal."""
        if self.mu_target is not None:
            return np.asarray(self.mu_target, dtype=float) ** 2
        beta = np.asarray(self.beta, dtype=float)
        along, across = beta * np.asarray(self.mu, dtype=float), np.asarray(self.mu_perp, dtype=float)
        return along**2 + (1 - beta) * (1 + beta) * across**2

    @property
    def source_count(self) -> int | None:
        """K when α has a trailing axis of length K; None when α is a scalar."""
        return None if self.source is None else self.source.count


def flip_probability(name: str, value: Any) -> FloatArray:
    """``value`` as a float array in [0, 1/2)."""
    array = _checks.at_least(name, value, 0.0)
    if (array >= 0.5).any():
        raise ValueError(f"{name} is the probability of a flipped label and must be < 1/2, got {_checks.shown(value)}")
    return array


def reject_interpolation(gamma_name: str, gamma: FloatArray, n_name: str, n: FloatArray, p: FloatArray) -> None:
    """γ = 0 at p = n: the variance of the interpolating classifier is infinite (h = 0)."""
    _checks.broadcast(**{gamma_name: gamma, n_name: n, "p": p})
    if ((gamma == 0) & (n == p)).any():
        raise ValueError(
            f"{gamma_name} = 0 with p = {n_name} has infinite variance (the peak of double descent); "
            f"give {gamma_name} > 0, however small"
        )


def as_dict(setting: Transfer) -> dict[str, Any]:
    """The given fields of ``setting`` as plain Python values (JSON keeps them; see :func:`from_dict`)."""
    given: dict[str, Any] = {}
    for field in fields(setting):
        value = getattr(setting, field.name)
        if isinstance(value, FixedSource):
            given[field.name] = {
                part.name: np.asarray(getattr(value, part.name)).tolist()
                for part in fields(value)
                if getattr(value, part.name) is not None
            }
        elif value is not None:
            given[field.name] = np.asarray(value).tolist()
    return given


def from_dict(values: dict[str, Any]) -> Transfer:
    """A :class:`Transfer` from plain values (the strings ``"inf"`` stand for infinity).

    Raises:
        ValueError: an unknown or missing field, named, or a value out of range.
    """
    known = [field.name for field in fields(Transfer)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown setting field(s) {', '.join(unknown)}; known: {', '.join(known)}")
    missing = [name for name in ("p", "n", "gamma") if name not in values]
    if missing:
        raise ValueError(f"setting field(s) {', '.join(missing)} missing")
    given: dict[str, Any] = {name: _number(name, value) for name, value in values.items() if name != "source"}
    if "source" in values:
        given["source"] = _fixed_source(values["source"])
    return Transfer(**given)


def _number(name: str, value: Any) -> Any:
    """``value``, of which a text may stand for infinity."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number or an array of numbers, got {_checks.shown(value)}") from None


def _fixed_source(values: Any) -> FixedSource:
    known = [field.name for field in fields(FixedSource)]
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise ValueError(f"source must be a table with keys out of {', '.join(known)}, got {_checks.shown(values)}")
    return FixedSource(**values)


def source_moments(setting: Transfer) -> tuple[FloatArray, FloatArray]:
    """Overlap g = ⟨w̃, m⟩ and squared norm W = E‖w̃‖² of the (single) source of ``setting``.

    For a ridge source (theory.md §2, with label noise κ̃ = 1 − 2ε̃ of §2)::

        g = κ̃ β μ²/L̃,    W = κ̃² (μ² + η̃)/(h̃ L̃²) + (1 − κ̃²)(1 − h̃)/h̃,    L̃ = λ̃ + μ²

    W is the corrected norm; the official code's second moment uses another one (theory.md §9, E1).
    """
    if setting.source is not None:
        if setting.source.norm2 is None:
            raise ValueError("source_moments describes one source; this setting has a gram matrix of K sources")
        return np.asarray(setting.source.overlap, dtype=float), np.asarray(setting.source.norm2, dtype=float)
    resolvent = isotropic(setting.eta_source, np.asarray(setting.gamma_source, dtype=float))
    mu2 = np.asarray(setting.mu, dtype=float) ** 2
    kappa = 1.0 - 2.0 * np.asarray(setting.label_noise_source, dtype=float)
    level = resolvent.lam + mu2
    overlap = kappa * np.asarray(setting.beta, dtype=float) * mu2 / level
    norm2 = kappa**2 * (mu2 + setting.eta_source) / (resolvent.h * level**2)
    return overlap, norm2 + (1.0 - kappa) * (1.0 + kappa) * resolvent.excess / resolvent.h
