"""Learning curves against theory, simulation, and the exponents of power-law spectra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

import rmt
from rmt.scores.estimates import ALLOWANCE


def task(p: int, capacity: float, difficulty: float, **more) -> rmt.GaussianTransfer:
    spectrum, mean = rmt.power_law(p, capacity, difficulty, **more)
    return rmt.GaussianTransfer(
        n=1, gamma=0.1, mean=mean, covariance=spectrum, source=rmt.FixedSource(vector=0.0 * mean)
    )


@pytest.mark.parametrize(("capacity", "difficulty"), [(1.5, 2.0), (2.0, 3.0), (1.3, 6.0)])
def test_exponents_approach_the_limit(capacity, difficulty):
    """Local exponents rise to t/(t + 1/a); the last one is within .06 of it (a saturated case among them)."""
    sizes = 3000 * 4 ** np.arange(3)
    curve = rmt.learning_curve(task(3000, capacity, difficulty), sizes, alpha=0.0, gamma="best")
    expected = rmt.learning_exponent(capacity, difficulty)
    assert curve.exponents[-1] == pytest.approx(expected, abs=0.06)
    assert (np.diff(curve.gamma) < 0).all()
    assert curve.limit_snr == pytest.approx(2.0, abs=1e-4)


def test_the_exponent_of_a_penalty_that_decays():
    """γ ∝ n^−ℓ: min(tℓ, 1 − ℓ/a), the best ℓ among them; a fixed penalty has its own limit, reached like 1/n."""
    base, expected = task(3000, 2.0, 2.0), rmt.learning_exponent(2.0, 2.0, decay=0.5)
    sizes = np.array([4000, 16000, 64000])
    lost = [4.0 - float(rmt.theory(replace(base, n=n, gamma=n**-0.5)).snr(0.0)) ** 2 for n in sizes]
    assert -np.log(lost[2] / lost[1]) / np.log(4) == pytest.approx(expected, abs=0.05)
    assert max(rmt.learning_exponent(2.0, 2.0, decay=x) for x in np.linspace(0, 2, 201)) == pytest.approx(
        rmt.learning_exponent(2.0, 2.0), abs=0.01
    )
    assert rmt.learning_curve(base, sizes, alpha=0.0).exponents[-1] == pytest.approx(1.0, abs=0.02)


def test_curves_over_source_samples():
    base = rmt.Transfer(p=200, n=100, N=1, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    curve = rmt.learning_curve(base, [100, 1000, 10000, 100000], over="N")
    assert curve.exponents[-1] == pytest.approx(1.0, abs=0.01)
    assert (np.diff(curve.accuracy) > 0).all()
    best = rmt.learning_curve(base, [100, 1000], over="N", gamma="best", alpha=1.0)
    assert (best.accuracy >= rmt.learning_curve(base, [100, 1000], over="N", alpha=1.0).accuracy).all()
    spectrum, mean = rmt.power_law(40, 1.5, 2.0)
    source = rmt.RidgeSource(mean=mean, covariance=spectrum, N=7, gamma=0.01)
    setting = rmt.GaussianTransfer(n=20, gamma=0.1, mean=mean, covariance=spectrum, source=source)
    found = rmt.learning_curve(setting, [7, 70], over="N").accuracy[0]
    assert found == pytest.approx(float(rmt.theory(setting).best_accuracy))


def test_a_power_law_task_is_simulated():
    setting = replace(task(120, 1.5, 2.0), n=80)
    setting = replace(setting, source=rmt.FixedSource(vector=0.5 * np.sqrt(setting.mean)))
    comparison = rmt.simulate(setting, 200, 3).compare(rmt.theory(setting), [0.0, 1.0, 2.0], allowance=ALLOWANCE)
    assert comparison.worst <= 4, str(comparison)
    curve = rmt.learning_curve(setting, [80], alpha=1.0)
    assert curve.accuracy[0] == pytest.approx(ndtr(curve.snr[0]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rmt.power_law(10, 0.9, 2.0), "must be > 1"),
        (lambda: rmt.learning_curve(task(10, 2, 2), [2, 1]), "increasing"),
        (lambda: rmt.learning_curve(task(10, 2, 2), [2], over="N"), "needs a ridge source"),
        (lambda: rmt.learning_curve(3, [2]), "takes one scalar"),
        (lambda: rmt.learning_curve(task(10, 2, 2), [2], gamma="worst"), "best"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
