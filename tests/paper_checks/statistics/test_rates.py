"""The choice of a learning rate sees its best rate from both sides."""

from __future__ import annotations

import math

import pytest

from paper_checks.statistics.rates import BEYOND, settle


@pytest.mark.parametrize("best", [1e-5, 1e-4, 1e-3, 1e-2, 3e-1])
def test_the_best_rate_lies_inside_what_was_tried(best: float) -> None:
    tried: list[float] = []

    def score(rate: float) -> float:
        tried.append(rate)
        return -abs(math.log(rate / best))

    found = settle((5e-4, 2e-3, 8e-3), score)
    assert len(tried) == len(set(tried)) <= 3 + BEYOND
    assert min(tried) < found < max(tried) or len(tried) == 3 + BEYOND
    assert abs(math.log(found / best)) <= math.log(2) + 1e-9 or len(tried) == 3 + BEYOND


def test_equal_rates_and_a_single_one() -> None:
    assert settle((1.0, 2.0, 3.0), lambda rate: 0.0 if rate < 2 else 1.0) == 2.0
    assert settle((1.0,), lambda rate: pytest.fail("asked")) == 1.0
