"""The simulator of fits against the fast one, against first-order conditions, and its promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, TWO_SOURCES, fixed, ridge
from cases_beyond import random_gaussian
from scipy.stats import ks_2samp

import rmt
from rmt.losses import LOGISTIC, SQUARE, SQUARED_HINGE
from rmt.scores.estimates import ALLOWANCE
from rmt.simulators.model import explicit
from rmt.simulators.training import Newton


@pytest.mark.parametrize(
    "setting", [replace(fixed(2, 0.3, *BASE), p=30, n=20), ridge(40, 50, 30, 1.2, 1.0, 0.7, 0.5, 0.2, label_noise=0.1)]
)
def test_same_law_as_the_direct_simulation(setting):
    fits = rmt.simulate_fits(setting, [0.0, 1.3], 600, seed=1)
    direct = rmt.simulate(setting, 600, seed=2, method="direct")
    score = rmt.QuadraticScore(direct.c, direct.V)
    for column, alpha in enumerate(fits.alpha):
        for name, ours in (("mean", fits.means), ("variance", fits.variances), ("accuracy", fits.accuracies)):
            assert ks_2samp(ours[:, column], getattr(score, name)(alpha)).pvalue > 1e-3, (name, alpha)


@pytest.mark.parametrize("loss", [SQUARE, LOGISTIC, SQUARED_HINGE], ids=lambda loss: loss.name)
@pytest.mark.parametrize(("n", "r"), [(12, None), (60, None), (12, 5)])
@pytest.mark.parametrize("intercept", [False, True])
def test_fits_satisfy_the_first_order_conditions(loss, n, r, intercept):
    rng = np.random.default_rng(0)
    p, gamma, alpha = 30, 0.05, 1.4
    samples, source = rng.standard_normal((3, n, p)) + 0.2, rng.standard_normal((3, p))
    labels = rng.choice([-1.0, 1.0], (3, n)) if intercept else None
    basis = None if r is None else np.linalg.qr(rng.standard_normal((p, r)))[0]
    weights, offset = Newton(samples, labels, source, basis, gamma, loss)(alpha)
    margins = np.einsum("dnp,dp->dn", samples, weights) + (0.0 if labels is None else labels * offset[:, None])
    slope = loss.slopes(margins)[0] / n
    gradient = np.einsum("dnp,dn->dp", samples, slope) + gamma * (weights - alpha * source)
    if basis is not None:
        gradient = gradient @ basis
        outside = (weights - alpha * source) @ (np.eye(p) - basis @ basis.T)
        np.testing.assert_allclose(outside, 0, atol=1e-12)
    np.testing.assert_allclose(gradient, 0, atol=1e-8)
    if labels is not None:
        np.testing.assert_allclose(np.sum(labels * slope, axis=1), 0, atol=1e-8)


def test_same_seed_same_numbers_and_more_draws_extend():
    setting = random_gaussian(1, 40)
    first, again = (rmt.simulate_fits(setting, [1.0], 20, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.accuracies, again.accuracies)
    assert not np.array_equal(first.accuracies, rmt.simulate_fits(setting, [1.0], 20, seed=5).accuracies)


def test_explicit_keeps_every_number():
    for setting in (fixed(2, 0.3, *BASE), ridge(200, 100, 40, 1.5, 1.0, 0.8, 0.1, 1, label_noise_source=0.2)):
        np.testing.assert_allclose(rmt.theory(explicit(setting)).V, rmt.theory(setting).V, rtol=1e-9)


def test_estimates_and_comparison():
    setting = random_gaussian(2, 40)
    simulation = rmt.simulate_fits(setting, [0.0, 1.0], 30)
    assert simulation.mean.value.shape == simulation.accuracy.stderr.shape == (2,)
    comparison = simulation.compare(rmt.theory(setting), allowance=ALLOWANCE)
    assert "accuracy" in str(comparison)
    assert len(comparison.rows()) == 6


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (TWO_SOURCES, "this takes one source"),
        (replace(fixed(2, 0.3, *BASE), gamma=[0.1, 0.2]), "takes one setting"),
        (replace(fixed(2, 0.0, *BASE), p=30, n=20), "gamma must be > 0"),
        (random_gaussian(0, 30, sources=2), "takes one source"),
    ],
)
def test_bad_input(setting, message):
    with pytest.raises(ValueError, match=message):
        rmt.simulate_fits(setting, [1.0], 3)


def test_unknown_setting():
    with pytest.raises(ValueError, match="no model for"):
        rmt.simulate_fits(rmt.Regression(n=5, gamma=1, target=np.ones((1, 3)), source=np.ones((1, 3))), [1.0], 3)
