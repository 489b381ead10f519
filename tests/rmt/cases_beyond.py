"""The anchor sets of theory.md §10 beyond C = I, and random settings in coordinates, for several test modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

import rmt
from rmt.scores.estimates import ALLOWANCE

P = 300
J = np.arange(1, P + 1)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


A, B, D = unit(np.sin(J**2)), unit(np.cos(J**2)), unit(np.sin(J**3))
TOEPLITZ_MATRIX = 0.6 ** np.abs(np.subtract.outer(J, J))
TOEPLITZ = rmt.Spectrum.of(TOEPLITZ_MATRIX)
MEAN = 1.4 * A
SOURCE = rmt.FixedSource(vector=0.3 * MEAN + 0.5 * B)
SECOND_SOURCE = rmt.FixedSource(vector=0.2 * MEAN + 0.4 * D)


def toeplitz(n: int, gamma: float, source: Any = SOURCE, mean: np.ndarray = MEAN, **more: Any) -> rmt.GaussianTransfer:
    """A setting of the Toeplitz set."""
    return rmt.GaussianTransfer(n=n, gamma=gamma, mean=mean, covariance=TOEPLITZ, source=source, **more)


def own_covariance() -> rmt.GaussianTransfer:
    """Anchor 13: a ridge source with noise of its own."""
    mu = 1.5 * A
    mean = 0.7 * mu + 1.2 * np.sqrt(0.51) * unit(B - (B @ A) * A)
    covariance = np.where(J <= 150, 0.3, 1.7)
    source = rmt.RidgeSource(mean=mu, covariance=covariance, N=600, gamma=0.5)
    return toeplitz(150, 0.2, source=source, mean=mean)


def assert_anchor(score: rmt.Score, alpha: Any, values: Iterable[float], *, star: Any = None, best: Any = None) -> None:
    """s, σ² and accuracy at α, α* and the best accuracy, to the six printed digits (5e-6)."""
    found = [float(f(alpha)) for f in (score.mean, score.variance, score.accuracy)]
    assert found == pytest.approx(list(values), rel=5e-6)
    if star is not None:
        np.testing.assert_allclose(score.alpha_star, star, rtol=5e-6)
        assert float(score.best_accuracy) == pytest.approx(best, rel=5e-6)


def random_covariance(rng: np.random.Generator, p: int) -> Any:
    """A diagonal, or a rotated spectrum, with eigenvalues over about two decades and mean 1."""
    values = np.exp(rng.uniform(0.2, 1.0) * rng.standard_normal(p))
    values /= values.mean()
    if rng.random() < 0.5:
        return values
    return rmt.Spectrum(values, np.linalg.qr(rng.standard_normal((p, p)))[0])


def random_source(rng: np.random.Generator, mean: np.ndarray, *, ridge: bool = False) -> Any:
    """Weights, or a source task, partly aligned with ``mean``."""
    p = mean.size
    direction = rng.uniform(-0.3, 1.0) * mean + rng.uniform(0.1, 0.8) * unit(rng.standard_normal(p))
    if not ridge:
        return rmt.FixedSource(vector=rng.uniform(0.3, 1.0) * direction)
    return rmt.RidgeSource(
        mean=direction,
        covariance=random_covariance(rng, p),
        N=int(p * 10 ** rng.uniform(-0.3, 0.7)),
        gamma=10 ** rng.uniform(-1, 1),
        label_noise=rng.choice([0.0, 0.2]),
    )


def random_gaussian(seed: int, p: int, *, ridge: bool = False, noise: bool = False, sources: int = 0) -> Any:
    """A scalar GaussianTransfer from a wide box; ``sources`` > 0 gives a sequence of them."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.7, 2.0) * unit(rng.standard_normal(p))
    each = [random_source(rng, mean, ridge=ridge) for _ in range(max(sources, 1))]
    return rmt.GaussianTransfer(
        n=int(p * 10 ** rng.uniform(-0.5, 0.5)),
        gamma=10 ** rng.uniform(-1.3, 0.7),
        mean=mean,
        covariance=random_covariance(rng, p),
        source=tuple(each) if sources else each[0],
        label_noise=rng.uniform(0.05, 0.3) if noise else 0.0,
    )


ALPHAS = (-1.0, 0.0, 1.0, 2.5)


def assert_simulated(settings: Iterable[Any], *, draws: int, loss: Any = "square", alpha: Any = ALPHAS) -> None:
    """Theory against fits on drawn data: |z| ≤ 4 after the finite-size allowance, setting by setting."""
    for seed, setting in enumerate(settings):
        simulation = rmt.simulate_fits(setting, alpha, draws, seed=seed, loss=loss)
        comparison = simulation.compare(rmt.theory(setting, loss=loss), allowance=ALLOWANCE)
        assert comparison.worst <= 4, f"setting {seed}\n{comparison}"
