"""The interval of an accuracy on a few questions."""

from __future__ import annotations

import pytest

from glora.tasks.intervals import bootstrap_interval


def test_bootstrap_interval() -> None:
    low, high = bootstrap_interval([True] * 60 + [False] * 40, seed=0)
    assert low == pytest.approx(60 - 1.96 * 4.9, abs=1.5)
    assert high == pytest.approx(60 + 1.96 * 4.9, abs=1.5)
    assert bootstrap_interval([True] * 10, seed=0) == (100.0, 100.0)
