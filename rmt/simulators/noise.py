"""Noise laws with independent entries of mean 0 and variance 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from rmt import _checks
from rmt._checks import FloatArray

Sampler = Callable[[Generator, tuple[int, ...]], FloatArray]


@dataclass(frozen=True)
class Noise:
    """A law: its name and how to draw from it. ``gaussian`` laws have closed-form test accuracy."""

    name: str
    sample: Sampler

    @property
    def gaussian(self) -> bool:
        """Whether a score of this noise is exactly Gaussian."""
        return self.name == "gaussian"


def _rademacher(rng: Generator, shape: tuple[int, ...]) -> FloatArray:
    return rng.integers(0, 2, size=shape, dtype=np.int8) * 2.0 - 1.0


def _student(freedom: float) -> Sampler:
    if not freedom > 2:
        raise ValueError(f"noise 'student-t:{freedom:g}' has no variance; give more than 2 degrees of freedom")
    return lambda rng, shape: rng.standard_t(freedom, size=shape) * np.sqrt((freedom - 2.0) / freedom)


def _sparse(density: float) -> Sampler:
    if not 0 < density <= 1:
        raise ValueError(f"noise 'sparse:{density:g}' needs a density in (0, 1]")
    return lambda rng, shape: np.where(rng.random(shape) < density, rng.standard_normal(shape) / np.sqrt(density), 0.0)


_PLAIN: dict[str, Sampler] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "rademacher": _rademacher,
    "uniform": lambda rng, shape: rng.uniform(-np.sqrt(3.0), np.sqrt(3.0), size=shape),
    "exponential": lambda rng, shape: rng.standard_exponential(shape) - 1.0,
}
_WITH_PARAMETER: dict[str, Callable[[float], Sampler]] = {"student-t": _student, "sparse": _sparse}


def noise_law(law: str | Sampler | Noise) -> Noise:
    """The law named by ``law``.

    Names: ``gaussian``, ``rademacher``, ``uniform``, ``exponential`` (centred), ``student-t:DF`` (scaled to
    variance 1) and ``sparse:DENSITY`` (Gaussian with that share of nonzero entries, variance 1). A function
    ``f(rng, shape) -> array`` is taken as it is; it should have mean 0 and variance 1.

    Raises:
        ValueError: unknown name, or a parameter out of range.
    """
    if isinstance(law, Noise):
        return law
    if callable(law):
        return Noise(getattr(law, "__name__", "user"), law)
    if isinstance(law, str) and law in _PLAIN:
        return Noise(law, _PLAIN[law])
    name, _, parameter = str(law).partition(":")
    if name in _WITH_PARAMETER:
        try:
            value = float(parameter)
        except ValueError:
            raise ValueError(f"noise {law!r} needs a number after the colon, for instance '{name}:5'") from None
        return Noise(str(law), _WITH_PARAMETER[name](value))
    names = [*_PLAIN, *(f"{key}:…" for key in _WITH_PARAMETER)]
    raise ValueError(f"noise must be one of {', '.join(names)} or a function, got {_checks.shown(law)}")
