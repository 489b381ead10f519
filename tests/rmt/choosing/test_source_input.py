from __future__ import annotations

import numpy as np
import pytest

from rmt.choosing.source_input import read_sources


class Linear:
    """What a fitted linear classifier shows of itself."""

    def __init__(self, coef, intercept, classes):
        self.coef_, self.intercept_, self.classes_ = np.asarray(coef), np.asarray(intercept), classes

    def fit(self):
        raise NotImplementedError


def test_shapes():
    weights, offsets = read_sources(None, [0, 1], 4)
    assert weights.shape == (1, 4, 0)
    assert offsets.shape == (1, 0)
    model = Linear(np.ones((1, 4)), [0.5], [0, 1])
    weights, offsets = read_sources([np.arange(4.0), model], [0, 1], 4)
    np.testing.assert_array_equal(weights[0], np.column_stack([np.arange(4.0), np.ones(4)]))
    np.testing.assert_array_equal(offsets, [[0.0, 0.5]])
    weights, offsets = read_sources(Linear(np.ones((3, 4)), 0.0, [0, 1, 2]), [0, 1, 2], 4)
    assert weights.shape == (3, 4, 1)
    assert offsets.shape == (3, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones(3), r"source must have shape \(4,\)"),
        (np.zeros(4), "source is zero"),
        (np.full(4, np.inf), "source must be finite"),
        (np.ones((2, 2, 2)), "source must have shape"),
        (Linear(np.ones((3, 4)), 0.0, [0, 1, 2]), "source knows 3 classes and the data 2"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ValueError, match=message):
        read_sources(given, [0, 1], 4)
