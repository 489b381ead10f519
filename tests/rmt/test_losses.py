"""Losses: proximal maps for every κ, averages against brute force, checks of user losses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit

import rmt
from rmt.losses import LOGISTIC, SQUARE, SQUARED_HINGE, find_loss

EXPONENTIAL = rmt.Loss(lambda x: -np.exp(-np.clip(x, -40, None)), lambda x: np.exp(-np.clip(x, -40, None)), name="exp")
#: A loss whose curvature is no bell: Newton from one start may cycle on it.
SMOOTH_HINGE = rmt.Loss(
    lambda x: np.clip((x - 1) / 0.1, -1, 0),
    lambda x: np.where((x > 0.9) & (x < 1.0), 10.0, 0.0),
    inflection=0.95,
    name="smooth hinge",
)


@given(r=st.floats(-1e4, 1e4), log_kappa=st.floats(-12, 14))
@pytest.mark.parametrize("loss", [LOGISTIC, SQUARE, SQUARED_HINGE, SMOOTH_HINGE], ids=lambda loss: loss.name)
def test_prox_solves_its_equation(loss, r, log_kappa):
    kappa = np.exp(log_kappa)
    x = loss.prox(np.array([r]), np.array([kappa]))
    slope, curvature = loss.slopes(x)
    # An error of one rounding in x moves the equation by its slope.
    assert np.abs(x + kappa * slope - r) <= 1e-9 * (1 + abs(r)) + 1e-7 * (1 + kappa * curvature) * (1 + np.abs(x))


def test_logistic_prox_where_newton_from_r_cycles():
    r, kappa = np.meshgrid(np.linspace(-300, 300, 2001), [5.0, 11.0, 20.0, 50.0, 1e3, 1e6])
    x = LOGISTIC.prox(r, kappa)
    assert np.abs(x - kappa * expit(-x) - r).max() <= 1e-8 * 1e6


@pytest.mark.parametrize("loss", [LOGISTIC, SQUARE, SQUARED_HINGE], ids=lambda loss: loss.name)
@pytest.mark.parametrize(("mean", "variance", "kappa"), [(0.3, 0.5, 2.0), (3.0, 9.0, 40.0), (-2.0, 0.1, 0.5)])
def test_moments_are_gaussian_averages(loss, mean, variance, kappa):
    def average(function):
        def integrand(z):
            x = loss.prox(np.array([mean + np.sqrt(variance) * z]), np.array([kappa]))
            return float(function(x)[0]) * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)

        kink = (1.0 - mean) / np.sqrt(variance)
        return quad(integrand, -9, 9, points=[np.clip(kink, -8.9, 8.9)], limit=400, epsabs=1e-11)[0]

    found = loss.moments(np.array([mean]), np.array([variance]), np.array([kappa]), 257)
    assert found.e[0] == pytest.approx(average(lambda x: -loss.slopes(x)[0]), rel=1e-8)
    assert found.v[0] == pytest.approx(average(lambda x: loss.slopes(x)[0] ** 2), rel=1e-8)
    expected = average(lambda x: loss.slopes(x)[1] / (1 + kappa * loss.slopes(x)[1]))
    assert found.tau[0] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("loss", [LOGISTIC, SQUARE, SQUARED_HINGE, EXPONENTIAL], ids=lambda loss: loss.name)
def test_slopes_are_derivatives_of_each_other(loss):
    x = np.linspace(-6, 6, 40)
    numeric = (loss.slopes(x + 1e-5)[0] - loss.slopes(x - 1e-5)[0]) / 2e-5
    np.testing.assert_allclose(numeric, loss.slopes(x)[1], atol=1e-6, rtol=1e-4)
    np.testing.assert_allclose(loss.slopes(x)[0], loss.first(x))
    np.testing.assert_allclose(loss.slopes(x)[1], loss.second(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: find_loss("hinge"), "loss must be one of 'square', 'logistic', 'squared_hinge'"),
        (lambda: find_loss(np.exp), "must come with its derivatives"),
        (lambda: find_loss(3), "loss must be one of"),
        (lambda: rmt.Loss(1, 2), "first and second must be functions"),
        (lambda: rmt.Loss(np.sin, np.cos), "not convex"),
        (lambda: rmt.Loss(lambda x: x - 1, lambda x: 2 * np.ones_like(x)), "not the derivative of first"),
        (lambda: rmt.Loss(lambda x: x + 30, np.ones_like), "must fall where the margin is negative"),
        (lambda: rmt.Loss(lambda x: x - 1, lambda x: 1.0), "one number for each entry"),
        (lambda: rmt.Loss(lambda x: x * np.nan, np.ones_like), "not finite"),
        (lambda: rmt.Loss(np.tanh, np.ones_like, inflection=np.inf), "inflection must be finite"),
    ],
)
def test_bad_losses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
