"""What would decide an undecided comparison: checked by drawing studies of that size."""

from __future__ import annotations

import re

import numpy as np
import pytest

from paper_checks.statistics.paired import paired_values
from paper_checks.statistics.power import Part, needed, total


def test_the_named_size_decides_half_the_time() -> None:
    """At the size at which an interval just leaves 0 out, half of the studies do, the others miss by little."""
    draw = np.random.default_rng(0)
    mean, seeds, examples = 1.0, 12, 400
    text = needed(mean, [Part("examples", 0.7, 399, examples), Part("seeds", 0.1, 11, seeds)])
    more_examples, more_seeds = (
        int(re.search(rf"([\d,]+) {what}", text)[1].replace(",", "")) for what in ("examples", "seeds")
    )
    assert more_examples / examples == pytest.approx(more_seeds / seeds, rel=0.05)
    decided = 0
    for _ in range(60):
        hard = draw.normal(0, np.sqrt(0.7 * examples), more_examples)
        shift = draw.normal(0, np.sqrt(0.1 * seeds), more_seeds)
        low, _ = paired_values(mean + shift[:, None] + hard).interval
        decided += low > 0
    assert 15 <= decided <= 45


def test_what_cannot_be_known_is_said() -> None:
    three = [Part("examples", 0.1, 400, 400), Part("seeds", 1.0, 2, 3)]
    assert "cannot be known from 400 examples and 3 seeds" in needed(0.5, three)  # smaller than its error
    assert re.search("cannot be known from .* known to a factor of", needed(2.0, three))  # three seeds
    assert "show no spread" in needed(1.0, [Part("seeds", 0.0, 4, 5)])
    assert needed(1.5, [Part("examples", 1.0, 400, 400)]).endswith("what seeds add cannot be known from one")


def test_satterthwaite() -> None:
    error, freedom = total([Part("a", 1.0, 4), Part("b", 1.0, 4)])
    assert error == pytest.approx(2**0.5)
    assert freedom == pytest.approx(8)
    assert total([Part("a", 1.0, 4), Part("b", 0.0, 4)])[1] == pytest.approx(4)
