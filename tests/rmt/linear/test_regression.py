"""Regression: closed forms against the paper's expression, optimality, bad input."""

from __future__ import annotations

import numpy as np
import pytest

import rmt
from rmt.simulators.direct import simulate_regression


def setting(**change):
    rng = np.random.default_rng(1)
    source = rng.standard_normal((4, 200))
    base = {
        "n": 100,
        "gamma": 0.5,
        "target": 0.5 * source + rng.standard_normal((4, 200)),
        "source": source,
        "noise": 0.5,
    }
    return rmt.Regression(**(base | change))


def test_risk_is_the_papers_polynomial():
    """The paper: risk = T₁ + αT₂ + α²T₃ with λ² − η in the denominators."""
    s = setting()
    eta, gamma = 2.0, 0.5
    delta = (eta - gamma - 1 + np.sqrt((eta - gamma - 1) ** 2 + 4 * eta * gamma)) / (2 * gamma)
    lam = 1 + gamma * (1 + delta)
    below = lam**2 - eta
    tt, ts, ss = np.sum(s.target**2), np.sum(s.target * s.source), np.sum(s.source**2)
    for alpha in (-1.0, 0.0, 0.5, 2.0):
        t1 = ((lam - 1) ** 2 * tt + 0.25 * 4 * lam**2) / below
        t2, t3 = 2 * gamma * (1 + delta) * (1 - lam) * ts / below, (gamma * (1 + delta)) ** 2 * ss / below
        assert rmt.theory(s).risk(alpha) == pytest.approx(t1 + alpha * t2 + alpha**2 * t3, rel=1e-12)


def test_best_scales_depend_on_neither_penalty_nor_noise_and_are_optimal():
    risk = rmt.theory(setting())
    other = rmt.theory(setting(gamma=3.0, n=17, noise=0.0))
    assert risk.alpha_star == other.alpha_star
    np.testing.assert_array_equal(risk.alpha_star_rows, other.alpha_star_rows)
    scan = risk.risk(np.linspace(-2, 2, 401))
    assert (risk.best_risk <= scan).all()
    assert risk.best_risk_rows <= risk.best_risk
    assert risk.risk_rows(np.full(4, 0.3)) == pytest.approx(float(risk.risk(0.3)), rel=1e-12)


def test_broadcasting():
    risk = rmt.theory(setting(gamma=np.array([0.1, 1.0, 10.0])))
    assert risk.risk(0.5).shape == (3,)
    assert risk.risk(np.zeros((5, 1))).shape == (5, 3)
    assert setting(gamma=np.ones((2, 1)), noise=np.zeros(3)).shape == (2, 3)


def test_an_empty_source_row_gets_scale_zero():
    s = setting()
    source = np.array(s.source)
    source[2] = 0
    assert rmt.theory(setting(source=source)).alpha_star_rows[2] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": -1}, "gamma must be ≥ 0"),
        ({"noise": -1}, "noise must be ≥ 0"),
        ({"n": 0}, "n must be ≥ 1"),
        ({"source": np.ones((3, 200))}, r"must both have shape \(d, p\)"),
        ({"target": np.full((4, 200), np.nan)}, "target must not contain NaN"),
        ({"gamma": 0, "n": 200}, "infinite variance"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        setting(**change)


def test_bad_alpha_and_unknown_setting():
    with pytest.raises(ValueError, match="last axis of length 4"):
        rmt.theory(setting()).risk_rows([1.0, 2.0])
    with pytest.raises(ValueError, match="setting must be"):
        rmt.theory("Transfer")
    with pytest.raises(ValueError, match="loss must be one of"):
        rmt.theory(setting(), loss="l7")


def coloured(seed: int, **change):
    """A random regression whose inputs have a covariance, as a matrix or its diagonal."""
    rng = np.random.default_rng(seed)
    p, d = 60, 3
    values = np.exp(rng.uniform(0.2, 1.0) * rng.standard_normal(p))
    rotation = np.linalg.qr(rng.standard_normal((p, p)))[0]
    source = rng.standard_normal((d, p)) / np.sqrt(p)
    base = {
        "n": int(p * 10 ** rng.uniform(-0.5, 0.5)),
        "gamma": 10 ** rng.uniform(-1.5, 0.5),
        "target": 0.7 * source + 0.5 * rng.standard_normal((d, p)) / np.sqrt(p),
        "source": source,
        "noise": rng.uniform(0.0, 0.5),
        "covariance": values if seed % 2 else (rotation * values) @ rotation.T,
    }
    return rmt.Regression(**(base | change))


def test_identity_covariance_is_the_closed_form():
    base = coloured(0, covariance=None, n=np.array([20, 45, 400]), gamma=np.array([[0.01], [1.0]]))
    closed = rmt.theory(base)
    general = rmt.theory(coloured(0, covariance=np.ones(60), n=base.n, gamma=base.gamma))
    alpha = np.array([-1.0, 0.3, 2.0])[:, None, None]
    np.testing.assert_allclose(general.risk(alpha), closed.risk(alpha), rtol=1e-9)
    np.testing.assert_allclose(general.alpha_star, np.full((2, 3), closed.alpha_star), rtol=1e-9)
    np.testing.assert_allclose(general.alpha_star_rows, np.tile(closed.alpha_star_rows, (2, 3, 1)), rtol=1e-9)
    np.testing.assert_allclose(general.best_risk_rows, closed.best_risk_rows, rtol=1e-9)


def test_with_covariance_the_best_scale_depends_on_the_penalty():
    risk = rmt.theory(coloured(3, gamma=np.array([0.01, 10.0])))
    assert abs(risk.alpha_star[0] - risk.alpha_star[1]) > 1e-3
    scan = risk.risk(np.linspace(-2, 3, 501)[:, None])
    assert (risk.best_risk <= scan.min(axis=0)).all()
    assert (risk.best_risk_rows <= risk.best_risk).all()


@pytest.mark.slow
def test_simulation_with_covariance():
    for seed in range(30):
        setting = coloured(seed)
        risk, simulation = rmt.theory(setting), simulate_regression(setting, 100, seed=seed)
        for alpha in (0.0, 1.0, 2.0):
            expected = risk.risk(alpha)
            assert abs(simulation.risk(alpha).z(expected, 2.5 / setting.p * expected)) <= 4
        rows = risk.alpha_star_rows
        assert abs(simulation.risk_rows(rows).z(risk.best_risk_rows, 2.5 / setting.p * risk.best_risk_rows)) <= 4


def test_bad_covariance():
    with pytest.raises(ValueError, match="covariance is 59-dimensional, but target has length 60"):
        coloured(0, covariance=np.ones(59))
    with pytest.raises(ValueError, match="gamma = 0 with n = 60, the rank"):
        rmt.theory(coloured(1, n=60, gamma=0.0))
