"""The product of what a setting may have: every combination answers, or is refused by one sentence that names it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rmt

P, N_ROWS = 12, 9
RNG = np.random.default_rng(3)
MEAN, OTHER = RNG.standard_normal((2, P)) / 3
BASIS = np.linalg.qr(RNG.standard_normal((P, 4)))[0]
COVARIANCE = np.linspace(0.5, 1.5, P)
FIXED = rmt.FixedSource(vector=OTHER)
RIDGE = rmt.RidgeSource(mean=MEAN, covariance=COVARIANCE, N=40, gamma=0.5)
LOSSES = ("square", "logistic", "squared_hinge", "softmax")
SOURCES = ("fixed", "ridge", "two")
NOISES = (0.0, 0.1)


def transfer(source: str, noise: float) -> rmt.Transfer:
    common = {"p": P, "n": N_ROWS, "gamma": 0.5, "label_noise": noise}
    if source == "ridge":
        return rmt.Transfer(N=40, gamma_source=0.5, mu=1.0, beta=0.6, mu_target=1.2, **common)
    made = {
        "fixed": rmt.FixedSource(overlap=0.4, norm2=0.5),
        "two": rmt.FixedSource(overlap=[0.4, 0.2], gram=[[0.5, 0.1], [0.1, 0.4]]),
    }
    return rmt.Transfer(mu_target=1.2, source=made[source], **common)


def gaussian(source: str, noise: float) -> rmt.GaussianTransfer:
    made: dict[str, Any] = {"fixed": FIXED, "ridge": RIDGE, "two": (FIXED, RIDGE)}
    return rmt.GaussianTransfer(
        n=N_ROWS, gamma=0.5, mean=MEAN, covariance=COVARIANCE, source=made[source], label_noise=noise
    )


def classes(source: str, noise: float) -> rmt.ClassTransfer:
    made: dict[str, Any] = {"fixed": FIXED, "ridge": RIDGE, "two": (FIXED, RIDGE)}
    return rmt.ClassTransfer(
        n=20, gamma=0.5, means=[MEAN, -OTHER], covariances=COVARIANCE, source=made[source], label_noise=noise
    )


def many(source: str, noise: float) -> rmt.MulticlassTransfer:
    rows: Any = np.stack([MEAN, OTHER])
    made: dict[str, Any] = {"fixed": rows, "ridge": RIDGE, "two": (rows, rows)}
    if noise:
        raise ValueError("a MulticlassTransfer has no label_noise")
    return rmt.MulticlassTransfer(n=20, gamma=0.5, means=rows, covariances=COVARIANCE, source=made[source])


WEIGHTS = rmt.RandomFeatures.draw_weights(P, 8)


def features(source: str, noise: float) -> rmt.RandomFeatures:
    made: dict[str, Any] = {"fixed": FIXED, "ridge": (MEAN[:8], 40, 0.5), "two": (FIXED, RIDGE)}
    return rmt.RandomFeatures(
        n=N_ROWS, gamma=0.5, weights=WEIGHTS, activation="erf", mean=MEAN[:8], source=made[source], label_noise=noise
    )


KINDS: dict[str, Callable[[str, float], Any]] = {
    "norms": transfer,
    "covariance": gaussian,
    "classes": classes,
    "many classes": many,
    "random features": features,
    "elliptical norms": lambda *a: rmt.EllipticalTransfer(base=transfer(*a), freedom=6.0),
    "elliptical covariance": lambda *a: rmt.EllipticalTransfer(base=gaussian(*a), freedom=6.0),
    "rank": lambda *a: rmt.SubspaceTransfer(base=transfer(*a), rank=4),
    "basis": lambda *a: rmt.SubspaceTransfer(base=gaussian(*a), basis=BASIS),
    "filter norms": lambda *a: rmt.FilteredTransfer(base=transfer(*a), filter=rmt.GradientFlow(time=2.0)),
    "filter covariance": lambda *a: rmt.FilteredTransfer(base=gaussian(*a), filter=rmt.GradientFlow(time=2.0)),
    "subspace of an elliptical": lambda *a: rmt.SubspaceTransfer(
        base=rmt.EllipticalTransfer(base=gaussian(*a), freedom=6.0), basis=BASIS
    ),
    "elliptical subspace": lambda *a: rmt.EllipticalTransfer(
        base=rmt.SubspaceTransfer(base=gaussian(*a), basis=BASIS), freedom=6.0
    ),
    "elliptical classes": lambda *a: rmt.EllipticalTransfer(base=classes(*a), freedom=6.0),
    "filtered features": lambda *a: rmt.FilteredTransfer(base=features(*a), filter=rmt.GradientFlow(time=2.0)),
}


def refusal(kind: str, loss: str, source: str, noise: float) -> str | None:
    """None if theory answers, else the sentence of the refusal; anything but a ValueError passes through."""
    try:
        setting = KINDS[kind](source, noise)
        score = rmt.theory(setting, loss=loss)
    except ValueError as error:
        return str(error)
    assert 0 < float(score.accuracy([0.5, 1.5] if source == "two" else 1.5)) < 1
    return None


#: What is refused, by the words of the refusal: (kinds, losses, sources, noises), the first row that fits counts.
BINARY = tuple(kind for kind in KINDS if kind != "many classes")
CONVEX = ("logistic", "squared_hinge")
REFUSED: list[tuple[str, tuple[Any, ...], tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]] = [
    ("basis needs base=GaussianTransfer", ("subspace of an elliptical",), LOSSES, SOURCES, NOISES),
    ("base must be a Transfer or a GaussianTransfer", ("elliptical subspace",), LOSSES, SOURCES, NOISES),
    ("base must be a Transfer .filters are solved for C = I.", ("filter covariance",), LOSSES, SOURCES, NOISES),
    ("must be one FixedSource or RidgeSource", ("classes", "elliptical classes"), LOSSES, ("two",), NOISES),
    ("base must be a Transfer or a GaussianTransfer", ("elliptical classes",), LOSSES, SOURCES, NOISES),
    ("source must be FixedSource", ("random features", "filtered features"), LOSSES, ("two",), NOISES),
    ("base must be a Transfer .filters are solved for C = I.", ("filtered features",), LOSSES, SOURCES, NOISES),
    ("label_noise must be 0 with a spectral filter", ("filter norms",), LOSSES, SOURCES, (0.1,)),
    ("has no label_noise", ("many classes",), LOSSES, SOURCES, (0.1,)),
    ("source must be a number or an array", ("many classes",), LOSSES, ("ridge",), NOISES),
    ("source must have one row a class", ("many classes",), LOSSES, ("two",), NOISES),
    ("a MulticlassTransfer is trained with loss", ("many classes",), CONVEX, SOURCES, NOISES),
    ("loss must be one of", BINARY, ("softmax",), SOURCES, NOISES),
    ("is fitted with loss='square'", ("filter norms",), CONVEX, SOURCES, NOISES),
    ("a random subspace is solved for loss='square' only", ("rank",), CONVEX, SOURCES, NOISES),
    ("elliptical noise takes one source", ("elliptical norms", "elliptical covariance"), LOSSES, ("two",), NOISES),
    ("takes one source, given plainly", ("norms", "covariance", "basis"), CONVEX, ("two",), NOISES),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_answers_or_is_refused_by_name(kind):
    for combination in itertools.product((kind,), LOSSES, SOURCES, NOISES):
        words = [
            row[0] for row in REFUSED if all(one in allowed for one, allowed in zip(combination, row[1:], strict=True))
        ]
        said = refusal(*combination)
        if not words:
            assert said is None, (combination, said)
            continue
        assert said is not None, combination
        assert re.search(words[0], said), (combination, said)
        assert "\n" not in said
