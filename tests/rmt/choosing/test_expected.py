from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import beta

from rmt.choosing.expected import INFLATION, expected_accuracy, jeffreys, margins


def test_margins():
    np.testing.assert_allclose(margins(np.array([[2.0], [3.0]]), np.array([1, 0])), [2.0, -3.0])
    scores = np.array([[1.0, 4.0, 2.0], [0.0, -1.0, 5.0]])
    np.testing.assert_allclose(margins(scores, np.array([1, 0])), [2.0, -5.0])


def test_jeffreys_is_the_beta_posterior_and_reaches_the_ends():
    assert jeffreys(0.7, 40, 0.95) == pytest.approx(beta.ppf([0.025, 0.975], 28.5, 12.5))
    assert jeffreys(1.0, 10, 0.95)[1] == 1.0
    assert jeffreys(0.0, 10, 0.95)[0] == 0.0


@pytest.mark.parametrize("heavy", [False, True])
def test_heavy_tails_do_not_lower_it(heavy):
    rng = np.random.default_rng(0)
    noise = rng.standard_t(3, 20_000) if heavy else rng.standard_normal(20_000)
    margin = 1.0 + noise
    accuracy, (low, high) = expected_accuracy(margin, 0.95)
    assert accuracy == pytest.approx(np.mean(margin > 0), abs=0.03)
    if heavy:
        assert ndtr(margin.mean() / margin.std()) < accuracy - 0.04  # what a Gaussian law would say
    assert low < accuracy < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(accuracy * (1 - accuracy) * INFLATION / 20_000), rel=0.01)


def test_without_spread_the_rows_are_counted():
    assert expected_accuracy(np.ones(5), 0.95)[0] == 1.0
