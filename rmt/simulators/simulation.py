"""``simulate``: one call for both simulators, with worker-independent seeds and running estimates."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt._parallel import check_jobs, run, stream
from rmt.features import RandomFeatures
from rmt.losses import SQUARE, find_loss
from rmt.scores.estimates import Simulation
from rmt.settings.classes import ClassTransfer
from rmt.settings.elliptical import EllipticalTransfer
from rmt.settings.filters import FilteredTransfer
from rmt.settings.gaussian import GaussianTransfer
from rmt.settings.isotropic import Transfer
from rmt.settings.many_classes import MulticlassTransfer
from rmt.settings.regression import Regression
from rmt.settings.subspace import SubspaceTransfer
from rmt.simulators.drawing import Drawing
from rmt.simulators.exact import check_draws, draw_block, single_setting


def block_size(setting: Transfer) -> int:
    """Draws of one block of the exact sampler, which has a random stream of its own; large systems get small ones."""
    sizes = [int(setting.n), int(setting.p)]
    return int(np.clip(400_000 // min(sizes), 50, 1000))


def simulate(
    setting: Any,
    draws: int = 1000,
    seed: int = 0,
    *,
    method: str | None = None,
    loss: Any = "square",
    alpha: ArrayLike | None = None,
    **options: Any,
) -> Any:
    """Simulate any setting, trained with any loss; the result has the methods of its score and returns estimates.

    Args:
        setting: one scalar setting of any type that :func:`rmt.theory` takes.
        draws: number of independent experiments.
        seed: same seed, same numbers, whatever the number of workers; more draws extend fewer.
        method: for a :class:`rmt.Transfer` with the square loss: ``"exact"`` (the default) draws from the exact
            finite-size law without data (:func:`rmt.sample_exact`); ``"direct"`` draws the data
            (:func:`rmt.simulate_direct`). Everything else is drawn and fitted (``"direct"``).
        loss: as in :func:`rmt.theory`; for a :class:`rmt.MulticlassTransfer` ``"square"`` or ``"softmax"``.
        alpha: the scales to fit at, where one fit does not give them all: another loss, classes, elliptical noise.
        options: of the simulator (``gamma``, ``n_jobs``, ``progress``; for direct also ``noise``, ``backend``, …);
            a :class:`rmt.Transfer` with the square loss takes them.

    Returns:
        :class:`rmt.Simulation` for the square loss and one Gaussian class, for every α; with ``alpha``
        :class:`rmt.FitSimulation` or :class:`rmt.MulticlassSimulation`; :class:`rmt.RegressionSimulation`.

    Raises:
        ValueError: a combination that has no simulator, named; ``alpha`` missing or superfluous.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> simulation = rmt.simulate(setting, draws=500, seed=0)
    >>> simulation.compare(rmt.theory(setting), alpha=[0.0, 1.0]).worst < 5
    True
    """
    from rmt.simulators.direct import simulate_regression

    if isinstance(setting, Regression):
        _only_square(setting, loss)
        return simulate_regression(setting, draws, seed, **options)
    drawing = _drawing(setting, draws, seed, method, loss, alpha, options)
    return drawing.finish(list(drawing.parts), _checks.whole("draws", draws))


def _drawing(
    setting: Any, draws: int, seed: int, method: str | None, loss: Any, alpha: ArrayLike | None, options: dict[str, Any]
) -> Drawing:
    """The simulator of a setting and a loss, under way."""
    from rmt.simulators.direct import draw_direct
    from rmt.simulators.fits import draw_affine, draw_fits
    from rmt.simulators.many_classes import draw_classes

    draws = _checks.whole("draws", draws)
    if not isinstance(setting, _SETTINGS):
        names = ", ".join(kind.__name__ for kind in _SETTINGS)
        raise ValueError(f"simulate takes a setting (there is no model for {type(setting).__name__}): {names}")
    if method is not None:
        _checks.one_of("method", method, ("exact", "direct"))
    if isinstance(setting, MulticlassTransfer):
        linear, loss = False, getattr(loss, "name", loss)
    else:
        loss = find_loss(loss)
        linear = loss is SQUARE and isinstance(
            setting, Transfer | GaussianTransfer | SubspaceTransfer | FilteredTransfer | RandomFeatures
        )
    if isinstance(setting, FilteredTransfer):
        _only_square(setting, loss)
    words = f"a {type(setting).__name__} with loss {getattr(loss, 'name', loss)!r}"
    if linear and alpha is not None:
        raise ValueError(f"{words} gives every alpha from the same fits; leave alpha out and ask the result")
    if isinstance(setting, Transfer) and linear:
        check_options(method or "exact", options)
        chosen = draw_direct if method == "direct" else draw_exact
        return chosen(setting, draws, seed, **options)
    if method == "exact":
        raise ValueError(f"method 'exact' samples a Transfer with the square loss; {words} needs method 'direct'")
    if options:
        raise ValueError(f"{', '.join(sorted(options))}: options of a Transfer with the square loss, not of {words}")
    if linear:
        return draw_affine(setting, draws, seed)
    if alpha is None:
        raise ValueError(f"{words} is fitted at given scales; give alpha, for instance alpha=[0, 1, 2]")
    if isinstance(setting, MulticlassTransfer):
        return draw_classes(setting, alpha, draws, seed, loss=loss)
    return draw_fits(setting, alpha, draws, seed, loss=loss)


_SETTINGS = (
    Transfer,
    GaussianTransfer,
    ClassTransfer,
    MulticlassTransfer,
    EllipticalTransfer,
    SubspaceTransfer,
    FilteredTransfer,
    RandomFeatures,
)


def _only_square(setting: Any, loss: Any) -> None:
    """A regression and a filter are square-loss fits by their nature."""
    if find_loss(loss) is not SQUARE:
        raise ValueError(f"a {type(setting).__name__} is fitted with loss='square', got {find_loss(loss).name!r}")


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

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> rmt.sample_exact(setting, draws=100, seed=0).accuracy([0.0, 1.0]).value.shape
    (2,)
    """
    drawing = draw_exact(setting, draws, seed, gamma=gamma, n_jobs=n_jobs, progress=progress)
    return drawing.finish(list(drawing.parts), _checks.whole("draws", draws))


def draw_exact(
    setting: Transfer,
    draws: int,
    seed: int,
    *,
    gamma: ArrayLike | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> Drawing:
    """The blocks of :func:`sample_exact`, as they are made."""
    single_setting(setting)
    draws = _checks.whole("draws", draws)
    gammas = _checks.line("gamma", _checks.at_least("gamma", setting.gamma if gamma is None else gamma, 0.0))
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
    _checks.flag("progress", progress)
    pieces = [
        (setting, _checks.whole("seed", seed, low=0), index, gammas)
        for index in range(-(-draws // block_size(setting)))
    ]

    def finish(parts: Sequence[tuple[FloatArray, ...]], count: int) -> Simulation:
        c, V = (np.concatenate([part[i] for part in parts])[:count] for i in range(2))
        return Simulation(
            c=c[:, 0] if gamma is None else c,
            V=V[:, 0] if gamma is None else V,
            p=int(setting.p),
            gamma=None if gamma is None else gammas,
            vector_alpha=setting.source_count is not None,
        )

    return Drawing(run(_exact_block, pieces, n_jobs=n_jobs, progress="exact sampler" if progress else None), finish)


def _exact_block(piece: tuple[Transfer, int, int, FloatArray]) -> tuple[FloatArray, FloatArray]:
    setting, seed, index, gammas = piece
    return draw_block(setting, block_size(setting), stream(seed, index), gammas)


def simulate_running(
    setting: Any,
    steps: Sequence[int],
    seed: int = 0,
    *,
    method: str | None = None,
    loss: Any = "square",
    alpha: ArrayLike | None = None,
    **options: Any,
) -> Iterator[Any]:
    """Yield the simulation after each number of draws in ``steps`` (increasing), for convergence plots.

    Each is yielded as soon as its draws are made. Every one extends the one before: nothing is drawn twice, and the
    last equals one call of :func:`simulate` with that many draws and the same options.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> [float(one.accuracy(1.0).stderr) > 0 for one in rmt.simulate_running(setting, [20, 100])]
    [True, True]
    """
    steps = _checks.listed("steps", steps, "counts of draws")
    counts = [_checks.whole("steps", step) for step in steps]
    if not counts or any(later <= earlier for earlier, later in itertools.pairwise(counts)):
        raise ValueError(f"steps must be increasing counts of draws, got {_checks.shown(list(steps))}")
    if isinstance(setting, Regression):
        raise ValueError("a Regression is simulated in one go; use rmt.simulate")
    drawing = _drawing(setting, counts[-1], seed, method, loss, alpha, options)
    made: list[tuple[FloatArray, ...]] = []
    for count in counts:
        while sum(map(drawing.size, made)) < count:
            made.append(next(drawing.parts))
        yield drawing.finish(made, count)
