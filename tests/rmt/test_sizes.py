"""Twice the size is the same theory, and an error that does not halve is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, fixed
from cases_beyond import random_gaussian

import rmt

P = 24
PLAIN = replace(fixed(1.5, 0.3, *BASE), p=P, n=15)
RIDGE = rmt.Transfer(p=P, n=15, N=60, mu=1.5, mu_perp=1.0, beta=0.8, gamma=0.5, gamma_source=1.0, label_noise=0.1)
GAUSSIAN = random_gaussian(3, P, noise=True)
BASIS = np.linalg.qr(np.random.default_rng(0).standard_normal((P, 9)))[0]
MEANS = np.random.default_rng(1).standard_normal((3, P)) / 3
CLASSES = rmt.ClassTransfer(
    n=30,
    gamma=0.3,
    means=MEANS[:2],
    covariances=[GAUSSIAN.spectrum, np.linspace(0.5, 1.5, P)],
    source=GAUSSIAN.source,
    proportions=(0.4, 0.6),
    intercept=True,
)
MULTICLASS = rmt.MulticlassTransfer(n=40, gamma=0.5, means=MEANS, covariances=np.ones(P), source=0.5 * MEANS)
SETTINGS = {
    "norms": (PLAIN, "square"),
    "ridge source": (RIDGE, "square"),
    "two sources": (random_gaussian(4, P, ridge=True, sources=2), "square"),
    "logistic": (GAUSSIAN, "logistic"),
    "classes": (CLASSES, "square"),
    "elliptical": (rmt.EllipticalTransfer(base=GAUSSIAN, freedom=6.0), "square"),
    "basis": (rmt.SubspaceTransfer(base=GAUSSIAN, basis=BASIS), "square"),
    "rank": (rmt.SubspaceTransfer(base=PLAIN, rank=6), "square"),
    "filter": (rmt.FilteredTransfer(base=PLAIN, filter=rmt.GradientFlow(time=2.0)), "square"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_doubled_setting_has_the_same_theory(name):
    setting, loss = SETTINGS[name]
    alpha = [0.0, 1.5] if "two" not in name else [[0.0, 0.0], [1.0, -0.5]]
    here, there = (rmt.theory(one, loss) for one in (setting, rmt.doubled(setting)))
    np.testing.assert_allclose(there.accuracy(alpha), here.accuracy(alpha), rtol=1e-8)
    np.testing.assert_allclose(there.variance(alpha), here.variance(alpha), rtol=1e-7)


def test_doubling_keeps_classes_and_regressions_too():
    larger = rmt.doubled(MULTICLASS)
    np.testing.assert_allclose(larger.means @ larger.source.T, MEANS @ (0.5 * MEANS).T)
    assert (larger.n, larger.p, larger.spectra[0].p) == (80, 2 * P, 2 * P)
    setting = rmt.Regression(n=30, gamma=0.4, target=MEANS[:2], source=MEANS[1:], noise=0.5)
    risks = [rmt.theory(one).risk([0.0, 1.0]) for one in (setting, rmt.doubled(setting))]
    np.testing.assert_allclose(risks[1], risks[0], rtol=1e-9)
    with pytest.raises(ValueError, match="setting of rmt, got int"):
        rmt.doubled(3)


def test_an_error_that_halves_agrees_and_a_wrong_number_of_source_samples_does_not():
    """Theory at N/p = 10 against draws at 12.5: the allowance of C/p hides it (raw z 14, reported 0.00)."""
    setting = rmt.Transfer(p=200, n=100, N=2500, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    simulations = [rmt.simulate(one, 2000, 5 + k) for k, one in enumerate((setting, rmt.doubled(setting)))]
    right = simulations[0].compare(rmt.theory(setting), [3.0], doubled=simulations[1])
    assert right.worst <= 4, str(right)
    assert "at 2p" in str(right)
    assert "doubled_z" in right.rows()[0]
    wrong = rmt.theory(replace(setting, N=2000))
    hidden = simulations[0].compare(wrong, [3.0], allowance=2.5)
    assert hidden.worst < 2 < 12 < np.abs(hidden.raw_z["accuracy"]).max()
    assert simulations[0].compare(wrong, [3.0], doubled=simulations[1]).worst > 6
    with pytest.raises(ValueError, match="not both"):
        simulations[0].compare(wrong, [3.0], doubled=simulations[1], allowance=2.5)


def test_small_sizes_agree_once_extrapolated():
    """At p = 24 the raw z reaches far beyond 4 with many draws; what is left after extrapolation does not."""
    comparison = rmt.agreement(PLAIN, [0.0, 1.0, 2.0], 4000, 2)
    raw = max(np.abs(values).max() for values in comparison.raw_z.values())
    assert raw > 5 > comparison.worst, str(comparison)


def test_fits_at_given_scales_agree():
    assert rmt.agreement(CLASSES, [0.0, 1.0], 60, 3).worst <= 4
    with pytest.raises(ValueError, match="Regression"):
        rmt.agreement(rmt.Regression(n=9, gamma=1.0, target=MEANS, source=MEANS), [1.0])
