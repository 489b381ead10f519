"""Regression: closed forms against the paper's expression, optimality, bad input."""

from __future__ import annotations

import numpy as np
import pytest

import rmt


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
    """alpha_lora.md §6: risk = T₁ + αT₂ + α²T₃ with λ² − η in the denominators."""
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
