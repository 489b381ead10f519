"""K classes with one score each: two classes are the binary theory, simulation at K = 3 and 10, the Gaussian integral."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

import rmt
from rmt.scores.estimates import ALLOWANCE
from rmt.scores.winner import winning_probability

#: Dimension of the simulations (the issue's p = 400 passes as well; it takes minutes).
P = 120


def setting(classes: int, p: int, n: int, seed: int = 0, **more: object) -> rmt.MulticlassTransfer:
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((classes, p)) / np.sqrt(p) * 2
    base = {
        "n": n,
        "gamma": 0.1,
        "means": means,
        "covariances": np.exp(0.4 * rng.standard_normal(p)),
        "source": means * 0.4 + rng.standard_normal((classes, p)) / np.sqrt(p) * 0.4,
    }
    return rmt.MulticlassTransfer(**(base | more))


@pytest.mark.parametrize("intercept", [pytest.param(False, marks=pytest.mark.whole), True])
@pytest.mark.slow
def test_two_classes_are_the_binary_theory(intercept):
    """Softmax on (w₁, w₂) is logistic on w₁ − w₂ with half the penalty; one-vs-rest has scores of opposite sign."""
    two = setting(2, 60, 90, gamma=0.2, proportions=(0.3, 0.7), intercept=intercept)
    difference = np.asarray(two.source)[0] - np.asarray(two.source)[1]
    alpha = np.array([-1.0, 0.0, 1.0, 3.0])
    for loss, binary, gamma, share in (("softmax", "logistic", 0.1, 1.0), ("square", "square", 0.2, 0.5)):
        plain = rmt.ClassTransfer(
            n=90,
            gamma=gamma,
            means=two.means,
            covariances=two.covariances,
            source=rmt.FixedSource(vector=share * difference),
            proportions=(0.3, 0.7),
            intercept=intercept,
        )
        expected, score = rmt.theory(plain, loss=binary), rmt.theory(two, loss=loss)
        np.testing.assert_allclose(
            score.accuracy(alpha), expected.accuracy(alpha), atol=1e-4 if loss == "softmax" else 1e-9
        )
    assert score.accuracy(score.alpha_star) == pytest.approx(expected.best_accuracy, abs=1e-6)


def test_one_scale_a_class():
    """Equal scales are the common scale; the best of K is at least as good as the best common one."""
    common = setting(3, 60, 40)
    each = replace(common, per_class=True)
    one, many = rmt.theory(common), rmt.theory(each)
    np.testing.assert_allclose(many.accuracy(1.5 * np.ones(3)), one.accuracy(1.5))
    assert many.alpha_star.shape == (3,)
    assert many.best_accuracy >= one.best_accuracy - 1e-9
    with pytest.raises(ValueError, match="one scale a class"):
        many.accuracy(1.0)


@pytest.mark.parametrize(("classes", "draws"), [(3, 6), pytest.param(10, 3, marks=pytest.mark.whole)])
@pytest.mark.parametrize("loss", ["square", "softmax"])
def test_simulation(classes, draws, loss):
    own = [np.exp(0.4 * np.random.default_rng(c).standard_normal(P)) for c in range(classes)]
    shares = np.arange(2.0, 2.0 + classes) / np.arange(2.0, 2.0 + classes).sum()
    one = setting(classes, P, P + 40, covariances=own, intercept=classes == 3, proportions=shares)
    simulation = rmt.simulate(one, draws, 1, loss=loss, alpha=[0.0, 2.0])
    comparison = simulation.compare(rmt.theory(one, loss=loss), allowance=ALLOWANCE)
    assert comparison.worst <= 4, str(comparison)
    assert simulation.class_accuracies.shape == (draws, 2, classes)
    assert simulation.accuracy.stderr.max() < 0.03


def test_classes_without_a_common_basis():
    rng = np.random.default_rng(3)
    forms = [rng.standard_normal((60, 40)) for _ in range(3)]
    dense = setting(3, 40, 60, covariances=[f.T @ f / 60 for f in forms])
    assert rmt.simulate(dense, 12, 0, alpha=[0.0, 2.0]).compare(rmt.theory(dense), allowance=ALLOWANCE).worst <= 4
    with pytest.raises(ValueError, match="common eigenbasis"):
        rmt.theory(dense, loss="softmax")


def test_simulation_of_more_classes_than_dimensions():
    plane = rmt.MulticlassTransfer(
        n=500, gamma=0.5, means=np.array([[2, 0], [0, 2], [-1, -1]]), covariances=np.ones(2), source=np.eye(3, 2)
    )
    simulation = rmt.simulate(plane, 10, 0, alpha=[0.0, 1.0])
    assert simulation.compare(rmt.theory(plane)).worst <= 4


def test_winning_probabilities():
    """Independent equal scores win equally often; three scores against counting; the chances sum to 1."""
    for count in (2, 3, 5, 10):
        assert winning_probability(np.zeros(count), np.eye(count), 0) == pytest.approx(1 / count, abs=2e-5)
    rng = np.random.default_rng(0)
    root = rng.standard_normal((4, 4))
    mean, form = rng.standard_normal(4), root @ root.T
    chances = np.array([winning_probability(mean, form, k) for k in range(4)])
    assert chances.sum() == pytest.approx(1.0, abs=2e-4)
    scores = mean + rng.standard_normal((400_000, 4)) @ root.T
    counted = np.bincount(scores.argmax(axis=1), minlength=4) / len(scores)
    np.testing.assert_allclose(chances, counted, atol=4e-3)
    gap = winning_probability(np.array([0.4, 0.0]), np.array([[1.0, 0.3], [0.3, 2.0]]), 0)
    assert gap == pytest.approx(ndtr(0.4 / np.sqrt(2.4)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: setting(3, 20, 10, gamma=0.0), "gamma must be > 0"),
        (lambda: setting(3, 20, [10, 20]), "n of a MulticlassTransfer must be one number"),
        (lambda: setting(3, 20, 10, source=np.ones((2, 20))), "source must have one row a class"),
        (lambda: setting(3, 20, 10, proportions=(0.5, 0.5)), "proportions must be 3 numbers"),
        (lambda: setting(3, 20, 10, covariances=[np.ones(20)] * 2), "covariances must be one or 3"),
        (lambda: setting(3, 20, 10, per_class=1), "per_class must be True or False"),
        (lambda: rmt.theory(setting(3, 20, 10), loss="logistic"), "one-vs-rest"),
        (lambda: rmt.simulate(setting(3, 20, 10), 2), "give alpha"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()
