"""How many samples, which penalty for the source, one more scale."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, fixed, ridge
from cases_beyond import random_gaussian

import rmt

README = rmt.Transfer(p=400, n=1, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)


@pytest.mark.parametrize("alpha", [None, 0.0, 1.0])
def test_samples_needed_is_what_a_scan_finds(alpha):
    score = rmt.theory(replace(README, n=np.arange(1, 2001)))
    found = score.best_accuracy if alpha is None else score.accuracy(alpha)
    for beat in ("source", 0.86):
        goal = score.accuracy_source_only if beat == "source" else beat
        assert rmt.samples_needed(README, beat, alpha=alpha) == 1 + int(np.argmax(found > goal))
    assert rmt.samples_needed(README) == 622 or alpha is not None


def test_samples_needed_beyond_the_square_loss_and_out_of_reach():
    setting = random_gaussian(2, 30)
    n = rmt.samples_needed(setting, 0.8, most=1000)
    if math.isfinite(n):
        assert rmt.theory(replace(setting, n=n)).best_accuracy > 0.8
    assert rmt.samples_needed(README, 0.999) == math.inf
    assert rmt.samples_needed(README, 0.86, alpha=1.0, loss="logistic", most=3000) < 3000
    with pytest.raises(ValueError, match="beat must be"):
        rmt.samples_needed(README, 0.3)


def test_the_source_penalty_is_the_best_of_a_grid():
    base = ridge(200, 100, 150, 1.5, 1.0, 0.8, 1.0, 1.0)
    found = rmt.source_penalty(base, alpha=1.0)
    grid = [float(rmt.theory(replace(base, gamma_source=g)).accuracy(1.0)) for g in np.geomspace(1e-6, 1e6, 200)]
    assert found.transfer_accuracies[1] >= max(grid) - 1e-9
    assert found.source_accuracies[0] >= found.source_accuracies[1]
    with pytest.raises(ValueError, match="one ridge source"):
        rmt.source_penalty(fixed(2, 0.3, *BASE))


def test_the_best_source_is_not_the_best_start():
    """At α = 1 a weakly aligned source wants more penalty than its own task, an aligned one less (2511.08401)."""
    p, rng = 100, np.random.default_rng(0)
    noise = np.where(np.arange(p) < 50, 0.2, 1.8)
    mu, other = rng.standard_normal((2, p))
    mu *= 1.5 / np.linalg.norm(mu)
    other -= other @ mu * mu / (mu @ mu)
    other *= 1.5 / np.linalg.norm(other)
    for beta, more in ((0.1, True), (0.6, True), (0.9, False), (1.0, False)):
        source = rmt.RidgeSource(mean=mu, covariance=noise, N=150, gamma=1.0)
        mean = beta * mu + np.sqrt(1 - beta**2) * other
        setting = rmt.GaussianTransfer(n=40, gamma=1.0, mean=mean, covariance=noise, source=source)
        found = rmt.source_penalty(setting, alpha=1.0)
        assert (found.transfer > found.source) == more, beta
        assert found.transfer_accuracies[1] > found.transfer_accuracies[0]


@pytest.mark.parametrize("setting", [fixed(2, 0.3, *BASE), random_gaussian(1, 60), random_gaussian(7, 60, noise=True)])
def test_two_scales_against_drawn_data(setting):
    two, score = rmt.two_scales(setting), rmt.theory(setting)
    alpha = np.array([0.0, 1.0, 2.5])
    np.testing.assert_allclose(two.accuracy_at(alpha, 1.0), score.accuracy(alpha), rtol=1e-9)
    assert two.accuracy >= score.best_accuracy - 1e-12
    if np.isfinite(two.alpha) and two.adapter_scale > 0:
        assert two.accuracy_at(two.alpha, two.adapter_scale) == pytest.approx(two.accuracy, rel=1e-9)
    if isinstance(setting, rmt.Transfer):
        return
    rng, n, draws = np.random.default_rng(0), int(setting.n), 200
    source, m = np.asarray(setting.source.vector), np.asarray(setting.mean)
    found = []
    for _ in range(draws):
        u = setting.spectrum.colour(rng.standard_normal((n, 60))) + m
        u *= np.where(rng.random((n, 1)) < float(setting.label_noise), -1.0, 1.0)
        w = np.linalg.solve(
            u.T @ u / n + float(setting.gamma) * np.eye(60), u.mean(0) + float(setting.gamma) * 1.5 * source
        )
        w = 1.5 * source + 0.6 * (w - 1.5 * source)
        found.append(
            float(
                rmt.QuadraticScore([w @ m, 0.0], np.diag([np.sum(setting.spectrum.colour(w) ** 2), 1.0])).accuracy(0.0)
            )
        )
    error = np.std(found) / np.sqrt(draws)
    assert abs(np.mean(found) - two.accuracy_at(1.5, 0.6)) < 4 * error + 0.5 / 60
