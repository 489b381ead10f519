"""``simulate``: one call for both simulators, with worker-independent seeds and running estimates."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt._parallel import check_jobs, run, stream
from rmt.scores.estimates import Simulation
from rmt.settings.isotropic import Transfer
from rmt.settings.regression import Regression
from rmt.simulators.exact import check_draws, draw_block, single_setting


def block_size(setting: Transfer) -> int:
    """Draws of one block of the exact sampler, which has a random stream of its own; large systems get small ones."""
    sizes = [int(setting.n), int(setting.p)]
    return int(np.clip(400_000 // min(sizes), 50, 1000))


def simulate(
    setting: Transfer | Regression, draws: int = 1000, seed: int = 0, *, method: str = "exact", **options: Any
) -> Any:
    """Simulate ``setting``; the result has the methods of its score and returns estimates.

    Args:
        setting: one scalar :class:`rmt.Transfer`, or a :class:`rmt.Regression` (always simulated directly).
        draws: number of independent experiments.
        seed: same seed, same numbers, whatever the number of workers; more draws extend fewer.
        method: ``"exact"`` draws from the exact finite-size law without data (:func:`rmt.sample_exact`);
            ``"direct"`` draws the data (:func:`rmt.simulate_direct`).
        options: passed on (``gamma``, ``n_jobs``, ``progress``; for direct also ``noise``, ``backend``, …).

    Returns:
        :class:`rmt.Simulation` or :class:`rmt.RegressionSimulation`.
    """
    _checks.one_of("method", method, ("exact", "direct"))
    from rmt.simulators.direct import simulate_direct, simulate_regression

    if isinstance(setting, Regression):
        return simulate_regression(setting, draws, seed, **options)
    chosen = sample_exact if method == "exact" else simulate_direct
    return chosen(setting, draws, seed, **options)


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError if :func:`simulate` would not take these options, before any work or file.

    A noise law, a device and names are looked at; what depends on the setting is left to the simulator.
    """
    from rmt.simulators.direct import check_device, simulate_direct
    from rmt.simulators.noise import noise_law

    known = inspect.signature(sample_exact if method == "exact" else simulate_direct).parameters
    names = [name for name, parameter in known.items() if parameter.kind is parameter.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise ValueError(f"method {method!r} has no option {', '.join(unknown)}; it has {', '.join(names)}")
    if "noise" in options:
        noise_law(options["noise"])
    check_device(options.get("backend", "numpy"), options.get("device"))


def sample_exact(
    setting: Transfer,
    draws: int = 1000,
    seed: int = 0,
    *,
    gamma: ArrayLike | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> Simulation:
    """Simulate with the exact finite-size sampler (C = I): all α, and several γ, from the same draws.

    Args:
        setting: one scalar :class:`rmt.Transfer`.
        draws: number of independent draws.
        seed: see :func:`simulate`.
        gamma: penalties to evaluate on the same draws (G of them); the setting's own when None.
        n_jobs: worker processes.
        progress: show a bar.

    Raises:
        ValueError: an array setting, or sizes below the method's (n ≥ K+2, N ≥ 2, p ≥ K+2 and 3; one more
            sample with label noise).
    """
    single_setting(setting)
    draws = _checks.whole("draws", draws)
    gammas = np.atleast_1d(_checks.at_least("gamma", setting.gamma if gamma is None else gamma, 0.0))
    check_jobs("n_jobs", n_jobs)
    check_draws(setting, draws, len(gammas))
    sizes = [int(setting.p), int(setting.n)]
    largest = max(min(sizes), 0 if setting.N is None or np.isinf(setting.N) else min(sizes[0], int(setting.N)))
    band = 4 + (setting.source_count or 1)  # see exact: b + 1 diagonals at most
    _checks.fits_memory(
        f"a block of {block_size(setting)} draws with p={sizes[0]} and n={sizes[1]}",
        2.0 * band * largest * block_size(setting),
        "lower p or n, or take theory alone",
    )
    pieces = [
        (setting, _checks.whole("seed", seed, low=0), index, gammas)
        for index in range(-(-draws // block_size(setting)))
    ]
    parts = list(run(_exact_block, pieces, n_jobs=n_jobs, progress="exact sampler" if progress else None))
    c, V = (np.concatenate([part[i] for part in parts])[:draws] for i in range(2))
    return Simulation(
        c=c[:, 0] if gamma is None else c,
        V=V[:, 0] if gamma is None else V,
        p=int(setting.p),
        gamma=None if gamma is None else gammas,
        vector_alpha=setting.source_count is not None,
    )


def _exact_block(piece: tuple[Transfer, int, int, FloatArray]) -> tuple[FloatArray, FloatArray]:
    setting, seed, index, gammas = piece
    return draw_block(setting, block_size(setting), stream(seed, index), gammas)


def simulate_running(
    setting: Transfer, steps: Sequence[int], seed: int = 0, *, method: str = "exact", **options: Any
) -> Iterator[Simulation]:
    """Yield the simulation after each number of draws in ``steps`` (increasing), for convergence plots.

    Every yielded simulation extends the one before: nothing is drawn twice, and the last equals one call of
    :func:`simulate` with that many draws.
    """
    counts = [_checks.whole("steps", step) for step in steps]
    if not counts or any(later <= earlier for earlier, later in itertools.pairwise(counts)):
        raise ValueError(f"steps must be increasing counts of draws, got {_checks.shown(list(steps))}")
    full = simulate(setting, counts[-1], seed, method=method, **options)
    for count in counts:
        points = None if full.points is None else full.points[:count]
        yield replace(full, c=full.c[:count], V=full.V[:count], points=points)
