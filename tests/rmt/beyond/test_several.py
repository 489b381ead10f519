"""Several sources with any loss and with elliptical noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases_beyond import random_gaussian

import rmt
from rmt.beyond.several import SeveralScore
from rmt.convex.mixture import plain_mixture
from rmt.losses import SQUARE
from rmt.scores.estimates import ALLOWANCE

P = 40
TWO = random_gaussian(4, P, ridge=True, sources=2, noise=True)
GRAM = rmt.Transfer(
    p=P, n=30, gamma=0.5, mu_target=1.4, source=rmt.FixedSource(overlap=[0.5, 0.2], gram=[[0.5, 0.1], [0.1, 0.4]])
)
ALPHA = [[0.0, 0.0], [1.0, 0.5], [-0.5, 1.5]]


@pytest.mark.parametrize("setting", [TWO, GRAM], ids=["ridge sources", "gram"])
def test_the_square_loss_is_the_closed_form(setting):
    closed, solved = rmt.theory(setting), SeveralScore(setting, SQUARE, plain_mixture())
    for name in ("mean", "variance", "accuracy", "risk"):
        np.testing.assert_allclose(getattr(solved, name)(ALPHA), getattr(closed, name)(ALPHA), rtol=1e-7)
    np.testing.assert_allclose(solved.alpha_star, closed.alpha_star, rtol=1e-5)
    np.testing.assert_allclose(solved.alpha_risk, closed.alpha_risk, rtol=1e-5)


def test_one_of_the_sources_alone_is_a_setting_with_one():
    score, alone = rmt.theory(TWO, "logistic"), rmt.theory(replace(TWO, source=TWO.sources[1]), "logistic")
    assert score.accuracy([0.0, 1.3]) == pytest.approx(float(alone.accuracy(1.3)), rel=1e-9)
    star = score.alpha_star
    around = star + 0.05 * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]])
    assert np.argmax(score.accuracy(around)) == 0
    assert score.best_accuracy >= alone.best_accuracy - 1e-9


@pytest.mark.parametrize("kind", ["logistic", "gram", "elliptical"])
def test_theory_against_fits(kind):
    setting = {"logistic": TWO, "gram": GRAM, "elliptical": rmt.EllipticalTransfer(base=TWO, freedom=6.0)}[kind]
    loss = "square" if kind == "elliptical" else "logistic"
    comparison = rmt.simulate(setting, 60, 3, loss=loss, alpha=ALPHA).compare(
        rmt.theory(setting, loss), allowance=ALLOWANCE
    )
    assert comparison.worst <= 4, str(comparison)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one scalar setting"):
        rmt.theory(replace(TWO, n=[20, 30]), "logistic")
    with pytest.raises(ValueError, match="last axis of length 2"):
        rmt.theory(TWO, "logistic").accuracy(1.0)
    with pytest.raises(ValueError, match="gamma must be > 0"):
        rmt.theory(replace(TWO, gamma=0.0), "logistic")
