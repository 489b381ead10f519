"""What a simulation returns: estimates with standard errors under the names of a score, and their comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt.scores.quadratic import QuadraticScore
from rmt.scores.score import QUANTITIES, Score, ratio

#: A finite-size allowance C for :meth:`Simulation.compare` where nothing was simulated at twice the size: moments may
#: differ from the limit by C/p relatively, accuracies by C/(5p) (theory.md §7 puts the bias at p = 400 below 6e-3 and
#: 3e-4 away from p = n). It also hides a wrong setting of that size, so nothing is taken off unless it is asked for.
ALLOWANCE = 2.5


@dataclass(frozen=True)
class Estimate:
    """A mean over draws with its standard error; arrays of one shape.

    >>> import numpy as np
    >>> import rmt
    >>> rmt.Estimate(value=np.array(0.8), stderr=np.array(0.01)).stderr
    array(0.01)
    """

    value: FloatArray
    stderr: FloatArray

    def z(self, expected: ArrayLike, allowance: ArrayLike = 0.0) -> FloatArray:
        """(value − expected)/stderr after the difference is reduced towards 0 by ``allowance``."""
        difference = self.value - np.asarray(expected, dtype=float)
        beyond = np.sign(difference) * np.maximum(np.abs(difference) - allowance, 0.0)
        return ratio(beyond, self.stderr) + 0.0  # no −0

    def halving_z(self, expected: ArrayLike, doubled: Estimate) -> FloatArray:
        """z of 2·(error at twice the size) − (error at this size), which is 0 where the error is c/p.

        A bias that is no finite-size effect stays the same at twice the size and is left whole; the O(1/p²) rest of
        one that is vanishes. ``expected`` is the limit, the same for both sizes.
        """
        expected = np.asarray(expected, dtype=float)
        rest = 2.0 * (doubled.value - expected) - (self.value - expected)
        return ratio(rest, np.hypot(2.0 * doubled.stderr, self.stderr)) + 0.0


def mean_estimate(samples: FloatArray) -> Estimate:
    """Mean over the first axis with standard error (NaN for a single draw)."""
    count = samples.shape[0]
    spread = samples.std(axis=0, ddof=1) if count > 1 else np.full(samples.shape[1:], np.nan)
    return Estimate(samples.mean(axis=0), spread / np.sqrt(count))


def jackknife(function: Callable[..., FloatArray], *samples: FloatArray) -> Estimate:
    """``function`` of the means over the first axis, with the jackknife standard error."""
    count = samples[0].shape[0]
    value = function(*(array.mean(axis=0) for array in samples))
    if count < 2:
        return Estimate(value, np.full(np.shape(value), np.nan))
    left = function(*((array.sum(axis=0) - array) / (count - 1) for array in samples))
    spread = np.sqrt((count - 1) * np.mean((left - left.mean(axis=0)) ** 2, axis=0))
    return Estimate(value, spread)


@dataclass(frozen=True)
class Comparison:
    """Theory beside simulation, entry by entry.

    ``raw_z`` is (value − theory)/stderr. ``z`` is what is judged: the raw one; or, with a simulation at twice the
    size, whether the error halves (:meth:`Estimate.halving_z`, with ``doubled_z`` the raw z there); or the raw one
    after an allowance that was asked for.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> found = rmt.simulate(setting, draws=200, seed=0).compare(rmt.theory(setting), alpha=[0.0, 1.0])
    >>> found.worst < 5
    True
    """

    quantities: tuple[str, ...]
    alpha: FloatArray
    theory: dict[str, FloatArray]
    simulated: dict[str, Estimate]
    raw_z: dict[str, FloatArray]
    z: dict[str, FloatArray]
    doubled_z: dict[str, FloatArray] | None = None

    @staticmethod
    def of(
        alpha: FloatArray,
        theory: dict[str, FloatArray],
        simulated: dict[str, Estimate],
        *,
        doubled: dict[str, Estimate] | None = None,
        allowance: float = 0.0,
    ) -> Comparison:
        """The table of these quantities; ``allowance`` is relative to theory, a fifth of it for accuracies."""
        if doubled is not None and allowance:
            raise ValueError("give doubled or an allowance, not both: the simulation at twice the size replaces it")
        raw = {name: simulated[name].z(expected) for name, expected in theory.items()}
        if doubled is None:
            slack = {name: allowance * (0.2 if name == "accuracy" else np.abs(theory[name])) for name in theory}
            z = {name: simulated[name].z(expected, slack[name]) for name, expected in theory.items()}
            return Comparison(tuple(theory), alpha, theory, simulated, raw, z)
        z = {name: simulated[name].halving_z(expected, doubled[name]) for name, expected in theory.items()}
        there = {name: doubled[name].z(expected) for name, expected in theory.items()}
        return Comparison(tuple(theory), alpha, theory, simulated, raw, z, there)

    @property
    def worst(self) -> float:
        """The largest |z|."""
        return float(max(np.max(np.abs(values)) for values in self.z.values()))

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary an entry: quantity, alpha, theory, value, stderr, raw_z, z (and doubled_z)."""
        rows = []
        for name in self.quantities:
            theory, estimate = self.theory[name], self.simulated[name]
            for index in np.ndindex(theory.shape):
                rows.append(
                    {
                        "quantity": name,
                        "alpha": _entry(self.alpha, index, theory.shape),
                        "theory": float(theory[index]),
                        "value": float(estimate.value[index]),
                        "stderr": float(estimate.stderr[index]),
                        "raw_z": float(self.raw_z[name][index]),
                        "z": float(self.z[name][index]),
                        **({} if self.doubled_z is None else {"doubled_z": float(self.doubled_z[name][index])}),
                    }
                )
        return rows

    def __str__(self) -> str:
        heads = {"raw_z": "raw z", "doubled_z": "at 2p", "z": "z"}
        shown = [name for name in heads if name != "doubled_z" or self.doubled_z is not None]
        lines = [f"{'quantity':<14}{'alpha':>12}{'theory':>14}{'simulated':>14}{'± stderr':>12}"]
        lines[0] += "".join(f"{heads[name]:>8}" for name in shown)
        for row in self.rows():
            alpha = np.array2string(np.asarray(row["alpha"]), precision=4)
            lines.append(
                f"{row['quantity']:<14}{alpha:>12}{row['theory']:>14.6g}{row['value']:>14.6g}{row['stderr']:>12.2g}"
                + "".join(f"{row[name]:>8.2f}" for name in shown)
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from rmt._html import table

        rows = self.rows()
        return table(tuple(rows[0]), [tuple(row.values()) for row in rows], f"largest |z| {self.worst:.2f}")


def _entry(alpha: FloatArray, index: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """The scale(s) of entry ``index``; a trailing source axis of ``alpha`` is kept."""
    extra = alpha.shape[-1:] if alpha.ndim and alpha.ndim > len(shape) else ()
    return np.broadcast_to(alpha, shape + extra)[index].tolist()


@dataclass(frozen=True)
class Simulation:
    """Independent draws of (c, V), and the estimates they give.

    Attributes:
        c: (D, [G,] K+1) and V: (D, [G,] K+1, K+1): mean and variance of the score of a draw are cᵀq and qᵀVq.
        p: dimension, for the finite-size allowance.
        gamma: (G,) penalties when several were simulated on the same draws, else None.
        vector_alpha: whether α has a trailing axis of K scales.
        points: (D, [G,] T, K+1) scores of T real test points (columns as in q) where the test law is not
            Gaussian; accuracy is then counted on them.

    Methods take ``alpha`` as those of :class:`rmt.Score` do (broadcasting against the G penalties) and return
    :class:`Estimate`.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> draws = rmt.simulate(setting, draws=500, seed=0)
    >>> abs(float(draws.accuracy(1.0).value) - 0.8559) < 5 * float(draws.accuracy(1.0).stderr) + 1e-3
    True
    """

    c: FloatArray
    V: FloatArray
    p: int
    gamma: FloatArray | None = None
    vector_alpha: bool = False
    points: FloatArray | None = field(default=None, repr=False)

    @property
    def draws(self) -> int:
        """Number of draws D."""
        return self.c.shape[0]

    def _repr_html_(self) -> str:
        from rmt._html import table

        if self.gamma is not None or self.vector_alpha:
            return table((), [("draws", self.draws), ("p", self.p), ("α*", self.alpha_star.value)], "Simulation")
        found = {
            "α*": self.alpha_star,
            "accuracy at α*": self.best_accuracy,
            **{f"accuracy at α = {alpha:g}": self.accuracy(alpha) for alpha in (0.0, 1.0)},
        }
        rows = [(name, one.value, one.stderr) for name, one in found.items()]
        return table(("", "value", "± stderr"), rows, f"Simulation: {self.draws} draws at p = {self.p}")

    def _scored(self, alpha: ArrayLike) -> tuple[QuadraticScore, FloatArray]:
        """A score over the draws whose settings have axes (D, 1 …, [G]), so that α broadcasts against G only."""
        alpha = _checks.real("alpha", alpha)
        extra = alpha.ndim - int(self.vector_alpha) - (self.c.ndim - 2)
        axes = tuple(range(1, 1 + max(extra, 0)))
        c, V = np.expand_dims(self.c, axes), np.expand_dims(self.V, axes)
        return QuadraticScore(c, V, vector_alpha=self.vector_alpha), alpha

    def _average(self, name: str, alpha: ArrayLike) -> Estimate:
        score, alpha = self._scored(alpha)
        return mean_estimate(getattr(score, name)(alpha))

    def mean(self, alpha: ArrayLike) -> Estimate:
        """Mean score."""
        return self._average("mean", alpha)

    def variance(self, alpha: ArrayLike) -> Estimate:
        """Score variance within a draw, averaged over draws."""
        return self._average("variance", alpha)

    def second_moment(self, alpha: ArrayLike) -> Estimate:
        """Second moment of the score."""
        return self._average("second_moment", alpha)

    def risk(self, alpha: ArrayLike) -> Estimate:
        """Squared test risk."""
        return self._average("risk", alpha)

    def snr(self, alpha: ArrayLike) -> Estimate:
        """Mean over draws of the signed signal-to-noise ratio."""
        return self._average("snr", alpha)

    def accuracy(self, alpha: ArrayLike, *, folded: bool = False) -> Estimate:
        """Mean over draws of each draw's accuracy: Φ(s/σ), or counted on the test points where there are any."""
        per_draw = self.accuracy_per_draw(alpha)
        return mean_estimate(np.maximum(per_draw, 1.0 - per_draw) if folded else per_draw)

    def accuracy_per_draw(self, alpha: ArrayLike) -> FloatArray:
        """(D, …) accuracy of each draw."""
        score, alpha = self._scored(alpha)
        if self.points is None:
            return score.accuracy(alpha)
        scales = alpha if self.vector_alpha else alpha[..., None]
        counted = []
        for points in self.points:  # one draw at a time bounds the memory
            values = points[..., 0] + np.einsum("...tk,...k->...t", points[..., 1:], scales)
            counted.append(np.mean((values > 0) + 0.5 * (values == 0), axis=-1))
        return np.stack(counted)

    def _of_means(self, name: str) -> Estimate:
        def function(c: FloatArray, V: FloatArray) -> FloatArray:
            return getattr(QuadraticScore(c, V, vector_alpha=self.vector_alpha), name)

        return jackknife(function, self.c, self.V)

    @property
    def alpha_star(self) -> Estimate:
        """α* of the mean (c, V), with its jackknife standard error."""
        return self._of_means("alpha_star")

    @property
    def alpha_bar(self) -> Estimate:
        """ᾱ of the mean (c, V), with its jackknife standard error."""
        return self._of_means("alpha_bar")

    @property
    def alpha_risk(self) -> Estimate:
        """The scale of the lowest mean risk, with its jackknife standard error."""

        def function(c: FloatArray, second: FloatArray) -> FloatArray:
            V = second - c[..., :, None] * c[..., None, :]
            return QuadraticScore(c, V, vector_alpha=self.vector_alpha).alpha_risk

        # The mean risk is 1 − 2E[c]ᵀq + qᵀE[V + ccᵀ]q.
        return jackknife(function, self.c, self.V + self.c[..., :, None] * self.c[..., None, :])

    @property
    def best_accuracy(self) -> Estimate:
        """Mean accuracy at :attr:`alpha_star`."""
        return self.accuracy(self.alpha_star.value)

    def compare(
        self,
        score: Score,
        alpha: ArrayLike,
        *,
        quantities: Sequence[str] = QUANTITIES,
        doubled: Simulation | None = None,
        allowance: float = 0.0,
    ) -> Comparison:
        """z-scores of the simulation against ``score`` at ``alpha``.

        Theory is a limit; at size p it is off by about c/p. Whether that is all is told by ``doubled``, a simulation
        of :func:`rmt.doubled` of the setting: the error must halve (:func:`rmt.agreement` does both). Without it z is
        the raw z. ``allowance`` takes a bias of ``allowance``/p relative to theory (accuracy: ``allowance``/(5p),
        absolute) off instead, and with it every fault of that size. ``score`` must broadcast as the simulation does:
        with G penalties, settings of shape (G,).
        """
        alpha = _checks.real("alpha", alpha)
        theory = {name: np.asarray(getattr(score, name)(alpha)) for name in quantities}
        return Comparison.of(
            alpha,
            theory,
            {name: getattr(self, name)(alpha) for name in quantities},
            doubled=None if doubled is None else {name: getattr(doubled, name)(alpha) for name in quantities},
            allowance=allowance / self.p,
        )


@dataclass(frozen=True)
class RegressionSimulation:
    """Draws of the risk of a rescaled and adapted regression matrix, quadratic in the scale of each output.

    ``rows``: (D, d, 3) coefficients of 1, α, α² of the excess risk of each output; ``noise2`` = dσ₀².

    >>> import rmt
    >>> setting = rmt.Regression(n=40, gamma=0.1, target=[[1.0, 0.0, 0.5]], source=[[0.5, 0.1, 0.2]], noise=0.3)
    >>> rmt.simulate(setting, draws=50, seed=0).risk(1.0).value.shape
    ()
    """

    rows: FloatArray
    noise2: float

    def risk(self, alpha: ArrayLike) -> Estimate:
        """Risk at scalar scales (…)."""
        alpha = _checks.real("alpha", alpha)
        total = self.rows.sum(axis=1).reshape(-1, 3, *(1,) * alpha.ndim)
        return mean_estimate(total[:, 0] + alpha * (total[:, 1] + alpha * total[:, 2]) + self.noise2)

    def risk_rows(self, alpha: ArrayLike) -> Estimate:
        """Risk at one scale an output: ``alpha`` (…, d)."""
        alpha = _checks.real("alpha", alpha)
        rows = np.expand_dims(self.rows, tuple(range(1, alpha.ndim)))
        excess = rows[..., 0] + alpha * (rows[..., 1] + alpha * rows[..., 2])
        return mean_estimate(excess.sum(axis=-1) + self.noise2)

    @property
    def alpha_star(self) -> Estimate:
        """The scalar scale of the lowest mean risk."""
        return jackknife(lambda total: ratio(-total[..., 1], 2.0 * total[..., 2]), self.rows.sum(axis=1))

    @property
    def alpha_star_rows(self) -> Estimate:
        """(d,) the scale of the lowest mean risk of each output."""
        return jackknife(lambda rows: ratio(-rows[..., 1], 2.0 * rows[..., 2]), self.rows)
