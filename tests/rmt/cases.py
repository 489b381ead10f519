"""Settings that several test modules use: the anchors of theory.md §10 and random draws of the input space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import rmt

RIDGE = ("N", "n", "p", "mu", "mu_perp", "beta", "gamma_source", "gamma")


def ridge(*values: float, **more: Any) -> rmt.Transfer:
    """A ridge-source setting in theory.md's order N, n, p, μ, μ⊥, β, γ̃, γ."""
    return rmt.Transfer(**dict(zip(RIDGE, values, strict=True)), **more)


def fixed(eta: float, gamma: float, m2: float, overlap: float, norm2: float, **more: Any) -> rmt.Transfer:
    """A fixed-source setting with p = 100η."""
    source = rmt.FixedSource(overlap=overlap, norm2=norm2)
    return rmt.Transfer(p=round(1000 * eta), n=1000, gamma=gamma, mu_target=math.sqrt(m2), source=source, **more)


BASE = (2.25, 0.6, 0.45)

#: number, setting, α, then s, σ², accuracy at α, α*, accuracy at α* (theory.md §10, six digits printed).
ANCHORS = [
    (1, fixed(2, 0.3, *BASE), 1.7, 0.795789, 0.877234, 0.802240, 0.523646, 0.836206),
    (2, fixed(0.5, 1, 1, 0.8, 1), 1, 0.617116, 0.562514, 0.794692, 0.474532, 0.801056),
    (3, fixed(4, 0.1, 1.5, -0.5, 0.8), -1, 0.544390, 0.796753, 0.729031, -0.415503, 0.748222),
    (4, fixed(2.5, 1e-8, *BASE), 1, 0.663158, 0.575404, 0.809006, 0.625098, 0.814359),
    (5, fixed(0.5, 1e-8, *BASE), 1, 0.692308, 0.520710, 0.831322, 6.51997e6, 0.833746),
    (6, fixed(3, 0, 1, 0.4, 0.5), 1, 0.450000, 0.681667, 0.707136, 0.978261, 0.707147),
    (7, ridge(5000, 200, 400, 1.5, 1, 0.8, 1, 1), 1, 0.539442, 0.257948, 0.855912, 1.83841, 0.862792),
    (8, ridge(200, 100, 400, 1.5, 1, 0.8, 0.1, 1), 1, 0.500206, 0.420403, 0.779784, 0.476468, 0.793801),
    (9, ridge(200, 800, 400, 1.5, 1, -0.6, 0.5, 0.01), -3, 0.593531, 0.622279, 0.774096, -10.4169, 0.775389),
    (10, ridge(5000, 40, 1000, 0.8, 0.8, 0.9, 5, 0.1), 1, 0.104082, 0.0575359, 0.667825, 7.47063, 0.731100),
    (11, ridge(2000, 800, 400, 1.5, 1, 0.8, 1, 1e-4), 1, 0.642841, 0.586438, 0.799390, 3577.62, 0.810018),
    (21, fixed(2, 0.3, *BASE, label_noise=0.1), 1.7, 0.701053, 0.938944, 0.765310, 0.866634, 0.776857),
]

#: K = 2 (anchor 15).
TWO_SOURCES = rmt.Transfer(
    p=200,
    n=100,
    gamma=0.3,
    mu_target=1.5,
    source=rmt.FixedSource(overlap=[0.6, 0.5], gram=[[0.45, 0.1], [0.1, 0.5]]),
)


def random_settings(count: int, seed: int, *, noise: bool = False) -> rmt.Transfer:
    """One Transfer with arrays of shape (count,): ridge sources over a wide box."""
    rng = np.random.default_rng(seed)
    p = rng.integers(100, 600, count)
    more = (
        {"label_noise": rng.uniform(0, 0.4, count), "label_noise_source": rng.uniform(0, 0.4, count)} if noise else {}
    )
    return rmt.Transfer(
        p=p,
        n=np.maximum((p * 10 ** rng.uniform(-1, 1, count)).astype(int), 5),
        N=np.maximum((p * 10 ** rng.uniform(-0.5, 1.2, count)).astype(int), 5),
        mu=rng.uniform(0.5, 2, count),
        mu_perp=rng.uniform(0.5, 2, count),
        beta=rng.uniform(-1, 1, count),
        gamma_source=10 ** rng.uniform(-2, 1, count),
        gamma=10 ** rng.uniform(-3, 1, count),
        **more,
    )


def one(settings: rmt.Transfer, index: int) -> rmt.Transfer:
    """Setting ``index`` of an array setting."""
    from dataclasses import fields, replace

    arrays = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return replace(settings, **{k: v[index].item() for k, v in arrays.items() if isinstance(v, np.ndarray) and v.ndim})
