"""How sure a ratio of timings is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ratio_error(one: Sequence[float], other: Sequence[float], draws: int = 500) -> float:
    """Standard error of the ratio of medians of interleaved timings, by the bootstrap over rounds."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(one), (draws, len(one)))
    ratios = np.median(np.asarray(one)[picks], axis=1) / np.median(np.asarray(other)[picks], axis=1)
    return float(ratios.std(ddof=1))
