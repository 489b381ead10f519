"""Independent pieces of work with joblib: ordered or not, with progress, on whatever backend is active."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from rmt import _checks

T = TypeVar("T")


def stream(seed: int, index: int) -> np.random.Generator:
    """The generator of piece ``index``: the same for any number of workers, independent across pieces."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))


def run(
    function: Callable[[Any], T],
    pieces: list[Any],
    *,
    n_jobs: int | None = 1,
    ordered: bool = True,
    progress: str | None = None,
) -> Iterator[T]:
    """Yield ``function(piece)`` as the results arrive.

    ``n_jobs`` = 1 stays in this process unless a joblib backend was chosen outside (``joblib.parallel_config``,
    for instance a dask cluster), in which case ``None`` uses that backend's workers. ``progress`` is the title
    of a progress bar on standard error.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    if n_jobs is not None and (int(n_jobs) != n_jobs or n_jobs == 0):
        raise ValueError(f"n_jobs must be a whole number other than 0 (−1: all cores), got {_checks.shown(n_jobs)}")
    kind = "generator" if ordered else "generator_unordered"
    results = Parallel(n_jobs=n_jobs, return_as=kind)(delayed(function)(piece) for piece in pieces)
    yield from tqdm(results, total=len(pieces), desc=progress, disable=progress is None)
