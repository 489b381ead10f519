"""Which examples a batch holds, and which are α's."""

from __future__ import annotations

import pytest

from glora.runs.settings import AlphaSettings
from glora.training.batches import BatchOrder, split_for_alpha


def test_batches_cover_the_pool_evenly() -> None:
    order = BatchOrder(range(10, 17), 3, seed=5)
    taken = [i for number in range(7) for i in order[number]]
    assert len(taken) == 21
    assert all(taken.count(i) == 3 for i in range(10, 17))
    assert sorted(taken[:7]) == list(range(10, 17))
    assert order[4] == BatchOrder(range(10, 17), 3, seed=5)[4]
    assert len(BatchOrder(range(2), 5, seed=0)[3]) == 5  # a batch larger than the pool


def test_split_for_alpha() -> None:
    adapter, alpha = split_for_alpha(50, AlphaSettings(fraction=0.3), seed=1)
    assert len(alpha) == 15
    assert sorted(adapter + alpha) == list(range(50))
    assert split_for_alpha(50, AlphaSettings(mode="joint"), seed=1) == (list(range(50)), [])
    with pytest.raises(ValueError, match=r"alpha.fraction=0.2 of 2 training examples"):
        split_for_alpha(2, AlphaSettings(), seed=1)
