"""Direct simulation of every setting and loss: draw samples, fit at each α, measure the fit exactly.

Where :func:`rmt.simulate` is fast because square loss and ridge are linear, this fits adapters of any loss, in any
subspace, with an intercept, by Newton's method on many draws at once. It shares no formula with the theory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt._parallel import stream
from rmt.losses import find_loss
from rmt.scores.estimates import Comparison, Estimate, Simulation, mean_estimate
from rmt.scores.score import Score
from rmt.simulators.drawing import Drawing
from rmt.simulators.model import model_of

#: Draws are fitted in blocks of about this many numbers of training data.
_BLOCK = 2**21


@dataclass(frozen=True)
class FitSimulation:
    """What independent fits give at each α: (D, A) mean, variance and accuracy of the score of a fresh point.

    >>> import rmt
    >>> setting = rmt.Transfer(p=20, n=30, N=50, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> fits = rmt.simulate_fits(setting, [0.0, 1.0], draws=20, seed=0, loss="logistic")
    >>> fits.accuracy.value.shape
    (2,)
    """

    alpha: FloatArray  #: (A,)
    means: FloatArray
    variances: FloatArray
    accuracies: FloatArray
    p: int

    @property
    def mean(self) -> Estimate:
        """(A,) mean score."""
        return mean_estimate(self.means)

    @property
    def variance(self) -> Estimate:
        """(A,) score variance."""
        return mean_estimate(self.variances)

    @property
    def accuracy(self) -> Estimate:
        """(A,) accuracy."""
        return mean_estimate(self.accuracies)

    def _repr_html_(self) -> str:
        from rmt._html import table

        columns = (self.alpha, self.mean.value, self.variance.value, self.accuracy.value, self.accuracy.stderr)
        title = f"FitSimulation: {len(self.means)} draws at p = {self.p}"
        return table(("α", "mean", "variance", "accuracy", "± stderr"), zip(*columns, strict=True), title)

    def compare(self, score: Score, *, doubled: FitSimulation | None = None, allowance: float = 0.0) -> Comparison:
        """z-scores against ``score``; ``doubled`` and ``allowance`` as in :meth:`rmt.Simulation.compare`."""
        names = ("mean", "variance", "accuracy")
        return Comparison.of(
            self.alpha,
            {name: np.asarray(getattr(score, name)(self.alpha)) for name in names},
            {name: getattr(self, name) for name in names},
            doubled=None if doubled is None else {name: getattr(doubled, name) for name in names},
            allowance=allowance / self.p,
        )


def simulate_fits(setting: Any, alpha: ArrayLike, draws: int, seed: int = 0, *, loss: Any = "square") -> FitSimulation:
    """Fit adapters on ``draws`` independent samples of ``setting`` at each scale.

    Args:
        setting: one scalar setting with one source: :class:`rmt.Transfer`, :class:`rmt.GaussianTransfer`,
            :class:`rmt.ClassTransfer`, :class:`rmt.EllipticalTransfer`, :class:`rmt.SubspaceTransfer` or
            :class:`rmt.FilteredTransfer`.
        alpha: scales (A,). draws: number of samples. seed: same seed, same numbers.
        loss: as in :func:`rmt.theory`.

    Raises:
        ValueError: arrays of settings, several sources, or γ = 0.

    >>> import rmt
    >>> setting = rmt.Transfer(p=20, n=30, N=50, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> rmt.simulate_fits(setting, [1.0], draws=10, seed=0, loss="logistic").accuracy.value > 0.6
    array([ True])
    """
    drawing = draw_fits(setting, alpha, draws, seed, loss=loss)
    return drawing.finish(list(drawing.parts), _checks.whole("draws", draws))


def draw_fits(setting: Any, alpha: ArrayLike, draws: int, seed: int = 0, *, loss: Any = "square") -> Drawing:
    """The blocks of :func:`simulate_fits`, fitted one after the other as they are asked for."""
    scales = _checks.line("alpha", _checks.finite("alpha", alpha))
    draws, seed, loss = _checks.whole("draws", draws), _checks.whole("seed", seed, low=0), find_loss(loss)
    model = model_of(setting)
    if len(model.sources) > 1:
        raise ValueError("a fit at given scales takes one source, given plainly, not a sequence")
    if model.gamma <= 0:
        raise ValueError("gamma must be > 0 in simulate_fits")
    _checks.fits_memory(f"draws={draws}", 3.0 * draws * len(scales), "give fewer draws")
    block = max(1, _BLOCK // (model.n * model.p))

    def finish(parts: Sequence[tuple[FloatArray, ...]], count: int) -> FitSimulation:
        means, variances, accuracies = (np.concatenate([part[i] for part in parts])[:count] for i in range(3))
        return FitSimulation(alpha=scales, means=means, variances=variances, accuracies=accuracies, p=model.p)

    starts = range(0, draws, block)
    pieces = (model.block(stream(seed, i), min(block, draws - s), scales, loss) for i, s in enumerate(starts))
    return Drawing(pieces, finish)


def draw_affine(setting: Any, draws: int, seed: int = 0) -> Drawing:
    """Square-loss fits of a setting with one Gaussian class, in coordinates: (c, V) of every draw, for every α."""
    draws, seed, model = _checks.whole("draws", draws), _checks.whole("seed", seed, low=0), model_of(setting)
    if model.gamma <= 0 and model.filter is None:
        raise ValueError("gamma must be > 0 in a simulation of fits; give a small one for the limit")
    block = max(1, _BLOCK // (model.n * model.p))
    base = getattr(setting, "base", setting)

    def finish(parts: Sequence[tuple[FloatArray, ...]], count: int) -> Simulation:
        c, V, *points = (np.concatenate([part[i] for part in parts])[:count] for i in range(len(parts[0])))
        several = base.source_count is not None
        return Simulation(c=c, V=V, p=model.p, vector_alpha=several, points=points[0] if points else None)

    return Drawing((model.affine_block(stream(seed, i), block) for i in range(-(-draws // block))), finish)
