"""Random features: the linear equivalent against simulation of the real layer, at three widths."""

from __future__ import annotations

import numpy as np
import pytest
from cases_beyond import unit

import rmt
from rmt.scores.estimates import ALLOWANCE

D = 60


def setting(width: int, activation: str, *, ridge: bool = True, d: int = D, **more) -> rmt.RandomFeatures:
    rng = np.random.default_rng(width)
    mean = 1.6 * unit(rng.standard_normal(d))
    other = 0.8 * mean + 0.6 * unit(rng.standard_normal(d))
    weights = rmt.RandomFeatures.draw_weights(width, d, seed=1)
    source = (other, 300, 0.05) if ridge else rmt.FixedSource(vector=0.1 * weights @ other)
    return rmt.RandomFeatures(
        n=100, gamma=0.05, weights=weights, activation=activation, mean=mean, source=source, **more
    )


@pytest.mark.parametrize(
    ("ratio", "activation"),
    [
        (0.5, "relu"),
        (1.0, "erf"),
        pytest.param(2.0, "relu", marks=pytest.mark.slow),
        pytest.param(0.5, "erf", marks=pytest.mark.slow),
        pytest.param(1.0, "relu", marks=pytest.mark.slow),
        (2.0, "erf"),
    ],
)
def test_the_linear_equivalent_is_what_simulation_gives(ratio, activation):
    one = setting(int(ratio * D), activation)
    comparison = rmt.simulate(one, 16, 2).compare(rmt.theory(one), [0.0, 1.0, 2.0], allowance=2 * ALLOWANCE)
    assert comparison.worst <= 4, str(comparison)


def test_moments_of_the_features():
    """Means are exact, variances of each unit too; covariances are those of the linear part."""
    one = setting(30, "relu", d=60)
    rng = np.random.default_rng(0)
    mean = np.asarray(one.mean)
    for activation in ("relu", "erf"):
        one = setting(30, activation, d=60)
        features = one.features(mean + rng.standard_normal((20000, 60)), mean)
        error = features.std(axis=0) / np.sqrt(20000)
        assert (np.abs(features.mean(axis=0) - one.feature_mean(mean)) < 5 * error).all()
        still = one.features(rng.standard_normal((20000, 60)), 0 * mean)
        np.testing.assert_allclose(np.diag(one.spectrum.dense()), still.var(axis=0), rtol=0.06)


def test_doubling_and_other_losses():
    one = setting(40, "relu", ridge=False)
    np.testing.assert_allclose(
        rmt.theory(rmt.doubled(one)).accuracy([0.0, 1.0]), rmt.theory(one).accuracy([0.0, 1.0]), rtol=1e-8
    )
    assert 0.5 < rmt.theory(one, "logistic").accuracy(1.0) < 1
    with pytest.raises(ValueError, match="random features are simulated with loss='square'"):
        rmt.simulate(one, 3, loss="logistic", alpha=[1.0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "tanh"}, "activation"),
        ({"weights": np.ones((4, 3))}, "weights must be"),
        ({"source": 3}, "source must be FixedSource"),
        ({"source": (np.ones(3), 10, 1.0)}, "mean of the source must have length"),
    ],
)
def test_bad_input_is_named(change, words):
    base = setting(10, "erf")
    given = {name: getattr(base, name) for name in ("n", "gamma", "weights", "activation", "mean", "source")}
    with pytest.raises(ValueError, match=words):
        rmt.RandomFeatures(**(given | change))
