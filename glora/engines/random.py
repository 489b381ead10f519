"""Random search: the baseline that every engine has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glora._checks import whole
from glora.engines.candidates import MOST, Scored
from glora.engines.space import Budget, Genome, SearchSpace


class Random:
    """Independent candidates, uniform over the space before they are repaired to the budget.

    Args:
        space, budget: what may be proposed.
        seed: source of randomness.
        total: number of candidates.

    Raises:
        ValueError: the budget fits nothing, or `total` < 1.
    """

    keep: int | None = 1

    def __init__(self, space: SearchSpace, budget: Budget, *, seed: int = 0, total: int = 1050) -> None:
        space.fits(budget)
        whole("seed", seed, 0)
        whole("total", total, 1, MOST)
        self.space, self.budget, self.seed, self.total = space, budget, seed, total
        self._rng = np.random.default_rng(seed)
        self._asked = False

    def ask(self) -> list[Genome]:
        """All candidates at once."""
        if self._asked:
            return []
        self._asked = True
        return [random_subnet(self.space, self.budget, self._rng) for _ in range(self.total)]

    def tell(self, scored: Sequence[Scored]) -> None:
        """Nothing is learnt."""


def random_subnet(space: SearchSpace, budget: Budget, rng: np.random.Generator) -> Genome:
    """A random subnet inside the budget: the baseline that every search has to beat.

    Raises:
        ValueError: the budget fits nothing.
    """
    return space.repair(space.sample(rng), budget, rng)
