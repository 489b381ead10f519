"""The theory beyond C = I: points a second from one decomposition, and the logistic fixed point."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

import rmt
from benchmarks.timing import interleaved, row

DIMENSION, GAMMAS, ALPHAS = 2000, np.geomspace(1e-3, 1e2, 20)[:, None], np.linspace(-4.0, 4.0, 41)


def gaussian() -> tuple[rmt.GaussianTransfer, float]:
    """A Toeplitz covariance at p = 2000, decomposed once, and the seconds that took."""
    rng = np.random.default_rng(0)
    index = np.arange(DIMENSION)
    start = time.perf_counter()
    spectrum = rmt.Spectrum.of(0.6 ** np.abs(np.subtract.outer(index, index)))
    seconds = time.perf_counter() - start
    mean, weights = rng.standard_normal((2, DIMENSION)) / np.sqrt(DIMENSION)
    setting = rmt.GaussianTransfer(
        n=1000,
        gamma=GAMMAS,
        mean=mean,
        covariance=spectrum,
        source=rmt.FixedSource(vector=0.3 * mean + 0.5 * weights),
    )
    return setting, seconds


def logistic(count: int = 200) -> rmt.Transfer:
    """Settings over a wide box."""
    rng = np.random.default_rng(0)
    return rmt.Transfer(
        p=400,
        n=rng.integers(40, 4000, count),
        N=5000,
        mu=rng.uniform(0.5, 2.0, count),
        mu_perp=rng.uniform(0.5, 2.0, count),
        beta=rng.uniform(-1.0, 1.0, count),
        gamma=10 ** rng.uniform(-3.0, 1.0, count),
        gamma_source=1.0,
    )


def measure() -> list[dict[str, Any]]:
    """Throughput after the decomposition, the decomposition itself, and milliseconds a logistic setting."""
    setting, decomposition = gaussian()
    settings = logistic()
    grid, solved, search = interleaved(
        lambda: rmt.theory(replace(setting)).accuracy(ALPHAS),  # a fresh copy: rotations and products are made again
        lambda: rmt.theory(settings, loss="logistic").accuracy(1.0),
        lambda: rmt.theory(settings, loss="logistic").alpha_star,
        rounds=3,
    )
    points = GAMMAS.size * ALPHAS.size
    count = settings.shape[0]
    return [
        row("covariance, p = 2000: (α, γ) points a second, 20 γ × 41 α", points / grid, at_least=10_000),
        row("covariance, p = 2000: seconds of the one decomposition", decomposition),
        row("logistic: milliseconds a setting, 200 at once", 1e3 * solved / count, at_most=5.0),
        row("logistic: milliseconds a setting for α*", 1e3 * search / count),
    ]


def main(argv: list[str] | None = None) -> int:
    """This module alone: ``python -m benchmarks.rmt_beyond [--json]``."""
    from benchmarks.__main__ import main as all_benchmarks

    return all_benchmarks(["rmt_beyond", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
