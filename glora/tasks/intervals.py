"""How sure an accuracy on some hundred questions is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_RESAMPLES = 2000


def bootstrap_interval(correct: ArrayLike, seed: int) -> tuple[float, float]:
    """95 % percentile interval of an accuracy in percent, from resampled questions."""
    values = np.asarray(correct, dtype=float)
    rows = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(values[rows].mean(axis=1), (0.025, 0.975))
    return 100.0 * float(low), 100.0 * float(high)
