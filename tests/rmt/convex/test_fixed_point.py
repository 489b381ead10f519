"""Convex losses: anchors, agreement with the square loss's closed form, simulation, honest failure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, fixed, one, random_settings
from cases_beyond import assert_anchor, assert_simulated, own_covariance, random_gaussian, toeplitz
from scipy.special import expit

import rmt
from rmt.convex.fixed_point import convex_score
from rmt.losses import SQUARE, find_loss
from rmt.simulators.model import explicit

CUSTOM = rmt.Loss(lambda x: -expit(-x), lambda x: expit(x) * expit(-x), name="logistic by hand")


def test_anchor_17_logistic():
    score = rmt.theory(fixed(2.5, 0.1, *BASE), loss="logistic")
    assert_anchor(score, 1.0, (1.62951, 2.24935, 0.861370), star=1.52612, best=0.863755)


def test_anchor_18_logistic_at_large_kappa():
    score = rmt.theory(fixed(2.5, 0.001, *BASE), loss="logistic")
    assert_anchor(score, 2.0, (3.73962, 13.2086, 0.848251), star=4.35055, best=0.855703)
    assert score.solution(2.0).kappa == pytest.approx(1854, abs=0.5)


def test_anchor_19_logistic_toeplitz():
    score = rmt.theory(toeplitz(200, 0.05), loss="logistic")
    assert_anchor(score, 1.0, (2.15403, 2.98865, 0.893616), star=2.21181, best=0.899592)


def test_anchor_20_squared_hinge():
    score = rmt.theory(fixed(2.5, 0.1, *BASE), loss="squared_hinge")
    assert_anchor(score, 1.0, (0.821422, 0.637049, 0.848296), star=0.776512, best=0.849428)


@pytest.mark.parametrize(
    "setting",
    [
        fixed(2, 0.3, *BASE, label_noise=0.1),
        replace(one(random_settings(5, 1), 2), gamma=0.05),
        toeplitz(150, 0.2),
        own_covariance(),
        replace(random_gaussian(4, 60, ridge=True, noise=True), gamma=1e-3),
    ],
)
def test_square_loss_through_the_fixed_point_is_the_closed_form(setting):
    solved, closed = convex_score(setting, SQUARE), rmt.theory(setting)
    alpha = np.array([-2.0, 0.0, 1.0, 30.0])
    np.testing.assert_allclose(solved.mean(alpha), closed.mean(alpha), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(solved.variance(alpha), closed.variance(alpha), rtol=1e-9)
    for name in ("alpha_star", "alpha_risk", "alpha_bar"):
        np.testing.assert_allclose(getattr(solved, name), getattr(closed, name), rtol=1e-6)
    np.testing.assert_allclose(solved.best_accuracy, closed.best_accuracy, rtol=1e-10)


def test_the_search_finds_the_guarded_supremum():
    """Anchor 14: the stationary point is a minimum, accuracy rises towards α = +∞."""
    mean = np.asarray(toeplitz(2, 1).mean)
    weights = np.linalg.solve(toeplitz(2, 1).spectrum.dense() + np.eye(mean.size), mean)
    score = convex_score(toeplitz(2000, 10.0, source=rmt.FixedSource(vector=weights)), SQUARE)
    assert score.alpha_star == np.inf
    assert score.best_accuracy == pytest.approx(0.975587, rel=5e-6)


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
@pytest.mark.parametrize("setting", [fixed(2, 0.3, *BASE), replace(one(random_settings(5, 1), 2), gamma=0.05)])
def test_identity_covariance_is_the_isotropic_case(setting, loss):
    setting = replace(setting, p=60, n=30)
    general, isotropic = rmt.theory(explicit(setting), loss=loss), rmt.theory(setting, loss=loss)
    alpha = np.array([-1.0, 0.5, 3.0])
    np.testing.assert_allclose(general.mean(alpha), isotropic.mean(alpha), rtol=1e-9)
    np.testing.assert_allclose(general.variance(alpha), isotropic.variance(alpha), rtol=1e-9)


def test_a_loss_by_callables_equals_the_built_in_one():
    setting = fixed(2.5, np.array([0.1, 1.0]), *BASE)
    mine, built_in = rmt.theory(setting, loss=CUSTOM), rmt.theory(setting, loss="logistic")
    np.testing.assert_allclose(mine.accuracy(1.0), built_in.accuracy(1.0), rtol=1e-10)
    np.testing.assert_allclose(mine.alpha_star, built_in.alpha_star, rtol=1e-7)


@pytest.mark.parametrize("signal", [1.0, 2.5, 10.0])
@pytest.mark.parametrize("loss", ["square", "squared_hinge", "logistic"])
def test_strong_signal_and_small_gamma_converge(loss, signal):
    """Where plain damping by one half diverges (M > 3) or turns in circles."""
    rng = np.random.default_rng(0)
    source = rmt.FixedSource(overlap=0.5 * np.sqrt(signal), norm2=0.5)
    setting = rmt.Transfer(
        p=(1000 * 10 ** rng.uniform(-1, 1, 200)).round(),
        n=1000,
        gamma=10 ** rng.uniform(-4, 1, 200),
        mu_target=np.sqrt(signal),
        source=source,
    )
    score = convex_score(setting, find_loss(loss))
    found = score.solution(3 * rng.standard_normal(200))
    assert found.converged.all()
    assert np.median(found.n_iter) < 25


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
def test_best_scales_are_best(loss):
    setting = replace(random_settings(16, 7), gamma=10 ** np.linspace(-2, 1, 16))
    score = rmt.theory(setting, loss=loss)
    star, sign = score.alpha_star, np.sign(np.asarray(setting.beta))
    assert (np.sign(star) == sign).all()  # theory.md §4: the sign of β
    finite = np.isfinite(star)
    assert finite.mean() > 0.9
    scan = score.accuracy(np.linspace(-20, 20, 161)[:, None])
    assert (score.best_accuracy >= scan.max(axis=0) - 1e-9).all()
    near = np.where(finite, star, 0.0) * np.array([[0.99], [1.0], [1.01]])
    around = score.accuracy(near)[:, finite]
    assert (around[1] >= around[[0, 2]] - 1e-13).all()
    risk = score.alpha_risk * np.array([[0.99], [1.0], [1.01]])
    values = score.risk(risk)
    assert (values[1] <= values[[0, 2]] + 1e-12).all()
    crossing = score.alpha_bar
    known = np.isfinite(crossing)
    assert known.any()
    assert np.abs(score.mean(np.where(known, crossing, 0.0))[known]).max() < 1e-8


def test_the_bound_at_infinite_gamma_holds_for_every_loss():
    """theory.md §5: SNR² is the form of §4 with η replaced by ηv/e² ≥ η, so γ = ∞ bounds every loss."""
    setting = replace(random_settings(16, 11), gamma=10 ** np.linspace(-2, 1.5, 16))
    bound = rmt.joint_optimum(setting).accuracy
    for loss in ("square", "logistic", "squared_hinge"):
        assert (rmt.theory(setting, loss=loss).best_accuracy <= bound + 1e-9).all()


@pytest.mark.parametrize(
    "loss",
    ["logistic", pytest.param("squared_hinge", marks=pytest.mark.whole), pytest.param(CUSTOM, marks=pytest.mark.whole)],
    ids=["logistic", "squared_hinge", "custom"],
)
@pytest.mark.slow
def test_simulation(loss):
    kinds = [{}, {"ridge": True}, {"noise": True}]
    assert_simulated([random_gaussian(seed, 60, **kinds[seed % 3]) for seed in range(30)], draws=50, loss=loss)


def test_simulation_of_isotropic_settings():
    settings = [
        replace(one(random_settings(30, 5), k), p=60, n=20 + 4 * k, N=90, gamma=0.1 + 0.05 * k) for k in range(30)
    ]
    assert_simulated(settings, draws=40, loss="logistic")


def test_a_source_without_effect():
    setting = rmt.Transfer(p=50, n=20, gamma=1.0, mu_target=1.0, source=rmt.FixedSource(overlap=0.0, norm2=0.0))
    score = rmt.theory(setting, loss="logistic")
    assert np.isnan(score.alpha_star)
    assert np.isnan(score.alpha_bar)
    assert score.best_accuracy == pytest.approx(float(score.accuracy(0.0)), rel=1e-12)


def test_shapes_and_the_solution():
    setting = fixed(2.5, np.array([0.1, 1.0, 10.0]), *BASE)
    score = rmt.theory(setting, loss="logistic")
    assert score.accuracy(np.zeros((4, 1))).shape == (4, 3)
    assert score.alpha_star.shape == (3,)
    found = score.solution(1.0)
    assert found.converged.all()
    assert (found.n_iter < 100).all()
    assert found.kappa.shape == (3,)


def test_failure_is_an_error_that_says_where(monkeypatch):
    monkeypatch.setattr("rmt.convex.iterate.MAX_ITER", 3)
    monkeypatch.setattr("rmt.convex.iterate.MAX_NEWTON", 1)
    score = rmt.theory(fixed(2.5, np.array([0.1, 0.2]), *BASE), loss="logistic")
    with pytest.raises(rmt.ConvergenceError, match=r"2 of 2 points, the first at alpha = 1, n = 1000, gamma = 0.1"):
        score.accuracy(1.0)
    for name in ("alpha_star", "alpha_bar", "alpha_risk", "best_accuracy"):
        with pytest.raises(rmt.ConvergenceError, match="no fixed point"):
            getattr(score, name)


def test_bad_input():
    two = rmt.FixedSource(overlap=[0.6, 0.5], gram=[[0.45, 0.1], [0.1, 0.5]])
    with pytest.raises(ValueError, match="takes one source"):
        rmt.theory(rmt.Transfer(p=9, n=5, gamma=1, mu_target=1.5, source=two), loss="logistic")
    with pytest.raises(ValueError, match="gamma must be > 0 with loss 'logistic'"):
        rmt.theory(fixed(2.5, 0.0, *BASE), loss="logistic")
    with pytest.raises(ValueError, match="solved for C = I: give a Transfer"):
        rmt.gamma_one(toeplitz(150, 0.2))
    with pytest.raises(ValueError, match=r"rmt\.simulate_fits fits at given"):
        rmt.sample_exact(toeplitz(150, 0.2), 3)
    with pytest.raises(ValueError, match="alpha must be finite"):
        rmt.theory(fixed(2.5, 0.1, *BASE), loss="logistic").mean(np.inf)
