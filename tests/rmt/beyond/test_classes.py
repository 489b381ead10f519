"""Classes that differ: anchors, limits, simulation, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from cases_beyond import (
    MEAN,
    SOURCE,
    TOEPLITZ_MATRIX,
    D,
    J,
    assert_simulated,
    own_covariance,
    random_covariance,
    random_source,
    toeplitz,
    unit,
)

import rmt
from rmt.beyond.classes import _Model
from rmt.losses import SQUARE


def two_classes(**change: object) -> rmt.ClassTransfer:
    """The two-class setting of theory.md §10."""
    base = {
        "n": 200,
        "gamma": 0.1,
        "means": [MEAN, -(0.6 * MEAN + 0.3 * D)],
        "covariances": [TOEPLITZ_MATRIX, np.where(J <= 150, 2.0, 0.5)],
        "proportions": (0.3, 0.7),
        "source": SOURCE,
    }
    return rmt.ClassTransfer(**(base | change))


@pytest.mark.parametrize(
    ("loss", "intercept", "accuracy", "offset"),
    [
        ("square", False, 0.709100, 0.0),
        ("square", True, 0.750151, -0.274135),
        ("logistic", False, 0.744562, 0.0),
        ("logistic", True, 0.806878, -1.26231),
    ],
)
def test_two_class_anchors(loss, intercept, accuracy, offset):
    score = rmt.theory(two_classes(intercept=intercept), loss=loss)
    assert score.accuracy(1.5) == pytest.approx(accuracy, rel=5e-6)
    assert score.intercept(1.5) == pytest.approx(offset, rel=5e-6)
    assert score.class_accuracies(1.5) @ [0.3, 0.7] == pytest.approx(float(score.accuracy(1.5)), rel=1e-12)


def test_equal_classes_are_the_gaussian_setting():
    """Proportions have no effect without an intercept (theory.md §0); at even proportions the intercept is 0."""
    for gaussian in (toeplitz(150, 0.2), own_covariance()):
        classes = rmt.ClassTransfer(
            n=150,
            gamma=0.2,
            means=[gaussian.mean, -np.asarray(gaussian.mean)],
            covariances=gaussian.spectrum,
            proportions=(0.2, 0.8),
            source=gaussian.source,
        )
        score, plain = rmt.theory(classes), rmt.theory(gaussian)
        alpha = np.array([-2.0, 0.0, 1.7])
        for name in ("mean", "variance", "accuracy"):
            np.testing.assert_allclose(getattr(score, name)(alpha), getattr(plain, name)(alpha), rtol=1e-9)
        assert score.alpha_star == pytest.approx(plain.alpha_star, rel=1e-6)
        assert score.best_accuracy == pytest.approx(plain.best_accuracy, rel=1e-9)
    even = rmt.theory(two_classes(means=[MEAN, -MEAN], covariances=TOEPLITZ_MATRIX, proportions=None, intercept=True))
    assert even.intercept(1.5) == pytest.approx(0.0, abs=1e-12)


def small(seed: int, p: int = 50, **more: object) -> rmt.ClassTransfer:
    """Two or three random classes."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.8, 1.8) * unit(rng.standard_normal(p))
    labels = [(1.0, -1.0), (-1.0, 1.0), (1.0, -1.0, 1.0)][seed % 3]
    weights = rng.uniform(0.5, 2.0, len(labels))
    return rmt.ClassTransfer(
        n=int(p * 10 ** rng.uniform(-0.2, 0.6)),
        gamma=10 ** rng.uniform(-1, 0.5),
        means=[y * (mean + 0.5 * unit(rng.standard_normal(p))) for y in labels],
        covariances=[random_covariance(rng, p) for _ in labels],
        labels=labels,
        proportions=weights / weights.sum(),
        source=random_source(rng, mean, ridge=seed % 4 == 3),
        intercept=bool(seed % 2),
        **more,
    )


def test_square_loss_is_the_fixed_point():
    for seed in range(4):
        setting = small(seed)
        closed = rmt.theory(setting).solution([-1.0, 0.0, 2.0])
        iterated = _Model(setting).solve(np.array([-1.0, 0.0, 2.0]), SQUARE)
        for name in ("class_means", "class_variances", "intercept", "mean", "variance"):
            np.testing.assert_allclose(getattr(closed, name), getattr(iterated, name), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("loss", "draws"), [("square", 80), ("logistic", 50), pytest.param("squared_hinge", 50, marks=pytest.mark.whole)]
)
def test_simulation(loss, draws):
    alpha = (0.0, 1.0, 2.5) if loss == "square" else (1.5,)
    assert_simulated([small(seed) for seed in range(30)], draws=draws, loss=loss, alpha=alpha)


def test_best_scale_maximises_the_mixture_accuracy():
    score = rmt.theory(small(5, p=20))
    scan = score.accuracy(np.linspace(-10, 10, 401))
    assert score.best_accuracy >= scan.max() - 1e-12
    assert score.mean(score.alpha_bar) == pytest.approx(0.0, abs=1e-9)
    assert score.risk(score.alpha_risk) <= score.risk(np.linspace(-10, 10, 401)).min() + 1e-12
    assert score.accuracy(1.0, folded=True) == pytest.approx(max(score.accuracy(1.0), 1 - score.accuracy(1.0)))


def test_broadcasting_over_n_and_gamma():
    setting = two_classes(
        n=np.array([40, 90]),
        gamma=np.array([[0.1], [1.0], [3.0]]),
        means=np.array([np.ones(6), -np.arange(6.0)]),
        covariances=np.ones(6),
        source=rmt.FixedSource(vector=np.ones(6)),
    )
    grid = {loss: rmt.theory(setting, loss=loss).accuracy(np.zeros((5, 1, 1)) + 0.5) for loss in ("square", "logistic")}
    for loss, values in grid.items():
        assert values.shape == (5, 3, 2)
        single = rmt.ClassTransfer(
            n=90,
            gamma=3.0,
            means=setting.means,
            covariances=np.ones(6),
            source=setting.source,
            proportions=(0.3, 0.7),
        )
        assert values[2, 2, 1] == pytest.approx(float(rmt.theory(single, loss=loss).accuracy(0.5)), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": np.ones(300)}, r"means must have shape \(C, p\)"),
        ({"means": np.ones((1, 300))}, "C ≥ 2"),
        ({"labels": (1, 1)}, "numbers ±1 in which both occur"),
        ({"labels": (1, 0)}, "numbers ±1 in which both occur"),
        ({"proportions": (0.3, 0.3)}, "with sum 1"),
        ({"proportions": (0.0, 1.0)}, "numbers > 0"),
        ({"covariances": [np.ones(300)] * 3}, "one or 2 of them, got 3"),
        ({"covariances": np.ones(299)}, "covariances is 299-dimensional"),
        ({"source": rmt.FixedSource(vector=np.ones(3))}, "source has length 3"),
        ({"source": [SOURCE]}, "source must be one FixedSource or RidgeSource"),
        ({"gamma": 0}, "gamma must be > 0 in a ClassTransfer"),
        ({"gamma": -1}, "gamma must be ≥ 0"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        two_classes(**change)
