"""Independent pieces of work with joblib: ordered or not, with progress, on whatever backend is active."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from rmt import _checks

T = TypeVar("T")

#: Worker processes that may be asked for on any machine; on one with many cores, four for each.
MOST_JOBS = 64


def stream(seed: int, index: int) -> np.random.Generator:
    """The generator of piece ``index``: the same for any number of workers, independent across pieces."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))


def check_jobs(name: str, n_jobs: Any) -> None:
    """Raise ValueError unless ``n_jobs`` is a number of processes that this machine can start (None: not said)."""
    if n_jobs is None:
        return
    number = isinstance(n_jobs, int | float | np.number) and not isinstance(n_jobs, bool)
    if not number or n_jobs != n_jobs // 1 or n_jobs == 0:
        raise ValueError(f"{name} must be a whole number other than 0 (−1: all cores), got {_checks.shown(n_jobs)}")
    most = max(MOST_JOBS, 4 * (os.cpu_count() or 1))
    if n_jobs > most:
        raise ValueError(f"{name}={n_jobs} is more processes than the {most} that help on {os.cpu_count()} cores")


def _watch(owner: int) -> None:
    """Let this worker process end with its parent: joblib's workers outlive a killed one."""
    if os.getppid() != owner:  # killed while this process started
        os._exit(1)
    threading.Thread(target=_end_without, args=(owner,), daemon=True).start()


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


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
    from joblib.parallel import LokyBackend, get_active_backend
    from tqdm import tqdm

    check_jobs("n_jobs", n_jobs)
    kind = "generator" if ordered else "generator_unordered"
    local = isinstance(get_active_backend()[0], LokyBackend) and n_jobs != 1
    start: dict[str, Any] = {"initializer": _watch, "initargs": (os.getpid(),)} if local else {}
    results = Parallel(n_jobs=n_jobs, return_as=kind, **start)(delayed(function)(piece) for piece in pieces)
    yield from tqdm(results, total=len(pieces), desc=progress, disable=progress is None)
