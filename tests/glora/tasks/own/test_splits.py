"""Parts of a data set: proportions, classes, copies, seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from glora.tasks.own.splits import Split, cut


def test_every_class_is_cut_in_the_same_proportions_and_nothing_is_lost() -> None:
    classes = [name for name, count in (("a", 100), ("b", 50), ("c", 10)) for _ in range(count)]
    parts = cut(range(160), classes, validation=0.2, test=0.1, seed=3)
    assert sorted(i for positions in parts.values() for i in positions) == list(range(160))
    counts = {part: Counter(classes[i] for i in positions) for part, positions in parts.items()}
    assert counts["validation"] == {"a": 20, "b": 10, "c": 2}
    assert counts["test"] == {"a": 10, "b": 5, "c": 1}
    assert parts == cut(range(160), classes, validation=0.2, test=0.1, seed=3)
    assert parts != cut(range(160), classes, validation=0.2, test=0.1, seed=4)


def test_copies_stay_together() -> None:
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 40, 200).tolist()
    parts = cut(keys, None, validation=0.3, test=0.3)
    seen = [{keys[i] for i in positions} for positions in parts.values()]
    assert sum(map(len, seen)) == len(set(keys))


def test_small_classes_stay_in_training_and_add_up() -> None:
    # 50 classes of 3: a fifth of each rounds to nothing or one, a fifth of all is 30
    classes = [i // 3 for i in range(150)]
    parts = cut(range(150), classes, validation=0.2)
    assert abs(len(parts["validation"]) - 30) <= 1
    assert {classes[i] for i in parts["train"]} == set(range(50))
    alone = cut(range(3), ["x", "y", "z"], validation=0.5)
    assert alone["train"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"validation": 0.0}, "all choices are made by it"),
        ({"validation": 0.6, "test": 0.4}, "leave nothing to train on"),
        ({"test": "a"}, r"split.test is a fraction in \[0, 1\), got 'a'"),
        ({"seed": -1}, "split.seed must be a whole number"),
        ({"valid": 0.1}, r"task.split has unknown keys \['valid'\]"),
    ],
)
def test_impossible_splits_are_named(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split.of(values)
