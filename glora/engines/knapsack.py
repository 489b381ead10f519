"""A search by one equation: estimate what each structure adds, then solve for the best sum within the budget.

Accuracy (or minus the loss) is modelled as additive over the genes of a subnet; the gains are a ridge regression on
the scores of random subnets. Choosing one structure a tensor so that the gains add up highest within the budget is a
multiple-choice knapsack, which `scipy.optimize.milp` solves exactly::

    max Σ g[l,t,c] z[l,t,c]   with   Σ_c z[l,t,c] = 1 for every layer l and tensor t,
                                     low ≤ Σ cost[l,t,c] z[l,t,c] ≤ high,   z ∈ {0, 1}

It is a baseline for evolution: the search space's interactions are what it leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glora._checks import positive, whole
from glora.engines.candidates import MOST, Scored
from glora.engines.random import random_subnet
from glora.engines.space import Budget, Genome, SearchSpace

Gains = NDArray[np.float64]  # shape: (layers, 5, choices)


class Knapsack:
    """Random candidates, then in each round the best one of the additive model that is new.

    The search ends sooner where every subnet inside the budget is known.

    Args:
        space, budget: what may be proposed.
        seed: source of randomness.
        design: number of random candidates the first model is fitted to; half of them are drawn without regard
            to the budget, so that dear structures are seen as well.
        rounds: number of models solved after that, each fitted to all scores so far.
        ridge: penalty of the regression, in units of one candidate.

    Raises:
        ValueError: the budget fits nothing, or a number is out of its range.
    """

    keep: int | None = None  # every score enters the regression

    def __init__(
        self,
        space: SearchSpace,
        budget: Budget,
        *,
        seed: int = 0,
        design: int = 400,
        rounds: int = 5,
        ridge: float = 10.0,
    ) -> None:
        space.fits(budget)
        whole("seed", seed, 0)
        whole("design", design, 1, MOST)
        whole("rounds", rounds, 1, MOST)
        positive("ridge", ridge)
        self.space, self.budget, self.seed, self.ridge = space, budget, seed, ridge
        self.design, self.total = design, design + rounds
        self._rng = np.random.default_rng(seed)
        self._scored: list[Scored] = []

    def ask(self) -> list[Genome]:
        """The random candidates, then one new solution at a time; none when every subnet inside the budget is known."""
        if not self._scored:
            wild = [self.space.sample(self._rng) for _ in range(self.design // 2)]
            inside = [random_subnet(self.space, self.budget, self._rng) for _ in range(self.design - len(wild))]
            return wild + inside
        if len(self._scored) >= self.total:
            return []
        gains = estimate_gains(self.space, self._scored, self.ridge)
        known = {s.genome.tobytes(): s.genome for s in self._scored if self.budget.holds(s.parameters)}
        found = best_sum(self.space, gains, self.budget, exclude=list(known.values()))
        return [] if found is None else [found]

    def tell(self, scored: Sequence[Scored]) -> None:
        """Every score counts for the next model."""
        self._scored += scored


def estimate_gains(space: SearchSpace, scored: Sequence[Scored], ridge: float) -> Gains:
    """Cost (wrong answers, or summed loss) that each structure saves, by ridge regression on candidates' scores.

    Args:
        space: the search space.
        scored: candidates with exact scores.
        ridge: penalty.

    Returns:
        Gains (layers, 5, choices), each tensor's centred around 0; structures that are not allowed have 0.
    """
    design = np.stack([one_hot(space, candidate.genome) for candidate in scored])
    target = -np.array([candidate.cost for candidate in scored])
    centred, residual = design - design.mean(axis=0), target - target.mean()
    # Fewer candidates than columns: solve in their space.
    dual = np.linalg.solve(centred @ centred.T + ridge * np.eye(len(scored)), residual)
    gains = np.zeros(space.allowed.shape)
    gains[space.allowed] = centred.T @ dual
    return gains


def one_hot(space: SearchSpace, genome: Genome) -> NDArray[np.float64]:
    """The genome as zeros and ones over the allowed structures, shape (allowed,)."""
    chosen = np.arange(space.allowed.shape[2]) == genome[..., None]
    return chosen[space.allowed].astype(float)


def best_sum(space: SearchSpace, gains: Gains, budget: Budget, exclude: Sequence[Genome] = ()) -> Genome | None:
    """The subnet inside the budget with the largest sum of gains, exactly; None if no subnet is left.

    Args:
        space: the search space.
        gains: gain of each structure, shape (layers, 5, choices).
        budget: parameters allowed.
        exclude: subnets that must not come out (each differs from the answer in a gene at least).
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    allowed = space.allowed
    count = int(allowed.sum())
    gene = np.broadcast_to(np.arange(allowed[..., 0].size).reshape(*allowed.shape[:2], 1), allowed.shape)[allowed]
    one_each = csr_array((np.ones(count), (gene, np.arange(count))))
    constraints = [
        LinearConstraint(one_each, 1, 1),
        LinearConstraint(space.costs[allowed].astype(float)[None], budget.low, budget.high),
    ]
    if exclude:
        rows = csr_array(np.stack([one_hot(space, genome) for genome in exclude]))
        constraints.append(LinearConstraint(rows, -np.inf, exclude[0].size - 1))
    found = milp(
        -gains[allowed],
        constraints=constraints,
        integrality=np.ones(count),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None
    chosen = np.zeros(allowed.shape)
    chosen[allowed] = found.x
    return chosen.argmax(axis=2).astype(np.int8)
