"""Parts of a data set cut by a seed: every class in every part, and equal examples in one part."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glora._checks import is_number, table, whole


@dataclass(frozen=True, kw_only=True)
class Split:
    """How much of a data set is held out, and which part of it (``split = {validation = .2, test = .2, seed = 0}``).

    Args:
        validation, test: fractions of the whole in [0, 1) for the part that choices are made by, which cannot be
            empty, and the part for the final figure (0: none).
        seed: of the draw.
    """

    validation: float = 0.2
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            value = getattr(self, name)
            if not is_number(value) or not 0.0 <= value < 1.0:
                raise ValueError(f"split.{name} is a fraction in [0, 1), got {value!r}")
        if self.validation == 0.0:
            raise ValueError("split.validation is 0, and all choices are made by it; 0.2 is usual")
        if self.validation + self.test >= 1.0:
            raise ValueError(
                f"split.validation={self.validation} and split.test={self.test} leave nothing to train on; together "
                "they must stay below 1"
            )
        whole("split.seed", self.seed, 0)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, test: float = 0.2) -> Split:
        """A split from a file's table; `test` is what a table without it means.

        Raises:
            ValueError: a key is unknown or a value impossible.
        """
        table("task.split", values)
        unknown = sorted(set(values) - {"validation", "test", "seed"})
        if unknown:
            raise ValueError(f"task.split has unknown keys {unknown}; it knows validation, test and seed")
        return cls(**{"test": test, **values})


def cut(
    keys: Sequence[Hashable],
    classes: Sequence[Hashable] | None,
    *,
    validation: float = 0.0,
    test: float = 0.0,
    seed: int = 0,
) -> dict[str, list[int]]:
    """Positions of the examples of "train", "validation" and "test", in order.

    Args:
        keys: one an example; examples with equal keys (copies) go to the same part, so that nothing is judged by
            what it was trained on.
        classes: one an example; every class is cut in the same proportions, and one that is too small for that stays
            in training. None cuts all together.
        validation, test: fractions of the whole.
        seed: of the draw.
    """
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    strata: dict[Hashable, list[list[int]]] = {}
    for group in groups.values():
        strata.setdefault(None if classes is None else classes[group[0]], []).append(group)
    rng = np.random.default_rng(seed)
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    owed = {"test": 0.0, "validation": 0.0}  # what rounding has kept from a part so far, so that small classes add up
    for members in strata.values():
        order = [members[i] for i in rng.permutation(len(members))]
        for part, fraction in (("test", test), ("validation", validation)):
            owed[part] += fraction * len(members)
            count = max(0, min(round(owed[part]), len(order) - 1)) if fraction else 0
            owed[part] -= count
            parts[part] += [position for group in order[:count] for position in group]
            order = order[count:]
        parts["train"] += [position for group in order for position in group]
    return {part: sorted(positions) for part, positions in parts.items()}
