"""Elliptical noise: anchor, Gaussian limit, simulation, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, TWO_SOURCES, fixed
from cases_beyond import assert_simulated, random_gaussian, toeplitz
from scipy.stats import chi2

import rmt
from rmt.settings.elliptical import student_law


def test_anchor_25_multivariate_t():
    score = rmt.theory(rmt.EllipticalTransfer(base=fixed(2, 0.2, *BASE), freedom=6.0))
    found = [float(f(1.7)) for f in (score.mean, score.variance, score.accuracy)]
    assert found == pytest.approx([0.828016, 0.918951, 0.834586], rel=5e-6)
    around = score.accuracy(score.alpha_star + np.array([-0.01, 0.0, 0.01]))
    assert around[1] == around.max() == pytest.approx(float(score.best_accuracy), rel=1e-12)


@pytest.mark.parametrize("freedom", [2.1, 3.0, 6.0, 50.0, 1e4])
def test_student_law_integrates(freedom):
    values, weights = student_law(freedom)
    law = chi2(freedom)
    for kappa in (0.1, 1.0, 30.0):
        expected = law.expect(lambda x, k=kappa: 1 / (1 + k * (freedom - 2) / x), lb=1e-14, ub=law.isf(1e-15))
        assert weights @ (1 / (1 + kappa * values)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("loss", ["square", "logistic"])
def test_a_single_scale_is_gaussian_noise(loss):
    base = replace(fixed(2, 0.2, *BASE), gamma=np.array([0.2, 1.0]))
    one_scale = rmt.EllipticalTransfer(base=base, scales=[1.0], weights=[1.0])
    score, plain = rmt.theory(one_scale, loss=loss), rmt.theory(base, loss=loss)
    for name in ("mean", "variance", "accuracy"):
        np.testing.assert_allclose(getattr(score, name)(1.7), getattr(plain, name)(1.7), rtol=1e-9)
    np.testing.assert_allclose(score.alpha_star, plain.alpha_star, rtol=1e-7)
    many = rmt.theory(rmt.EllipticalTransfer(base=base, freedom=1e7), loss=loss)
    np.testing.assert_allclose(many.accuracy(1.7), plain.accuracy(1.7), rtol=1e-5)


def elliptical(seed: int) -> rmt.EllipticalTransfer:
    base = random_gaussian(seed, 80, ridge=seed % 3 == 2)
    if seed % 5 == 0:
        return rmt.EllipticalTransfer(base=base, scales=[0.5, 3.0], weights=[0.8, 0.2])
    return rmt.EllipticalTransfer(base=base, freedom=[3.5, 5.0, 8.0, 20.0][seed % 4])


@pytest.mark.parametrize(("loss", "draws"), [("square", 80), pytest.param("logistic", 40, marks=pytest.mark.whole)])
def test_simulation(loss, draws):
    assert_simulated([elliptical(seed) for seed in range(30)], draws=draws, loss=loss, alpha=(0.0, 1.0, 2.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda base: rmt.EllipticalTransfer(base=base), "give freedom"),
        (lambda base: rmt.EllipticalTransfer(base=base, freedom=3, scales=[1.0], weights=[1.0]), "give freedom"),
        (lambda base: rmt.EllipticalTransfer(base=base, scales=[1.0]), "give freedom"),
        (lambda base: rmt.EllipticalTransfer(base=base, freedom=2), "> 2"),
        (lambda base: rmt.EllipticalTransfer(base=base, freedom=[3, 4]), "one number > 2"),
        (
            lambda base: rmt.EllipticalTransfer(base=base, scales=[1.0, 2.0], weights=[0.5, 0.5]),
            "mean of scales must be 1",
        ),
        (lambda base: rmt.EllipticalTransfer(base=base, scales=[0.0, 2.0], weights=[0.5, 0.5]), "scales > 0"),
        (lambda base: rmt.EllipticalTransfer(base="t", freedom=3), "base must be"),
        (lambda base: rmt.theory(rmt.EllipticalTransfer(base=TWO_SOURCES, freedom=3)), "takes one source"),
        (lambda base: rmt.theory(rmt.EllipticalTransfer(base=replace(base, gamma=0), freedom=3)), "gamma must be > 0"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make(toeplitz(150, 0.2))
