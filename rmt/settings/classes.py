"""A setting whose classes differ in mean, covariance and share (theory.md §5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt.settings.gaussian import RidgeSource, check_sources
from rmt.settings.isotropic import Comparable, FixedSource, Numbers, flip_probability
from rmt.settings.spectrum import Spectrum, check_dimension


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassTransfer(Comparable):
    """Target samples from several Gaussian components, each with a label ±1, and one frozen source.

    Args:
        n: target samples. gamma: ridge penalty (mean square loss without ½, mean of any other loss with γ/2).
            These two broadcast.
        means: (C, p) means μ_c of the components (not multiplied by their labels).
        covariances: one for all components, or a sequence of C: (p, p) matrix, (p,) diagonal or ``Spectrum`` each.
        labels: (C,) of ±1; both must occur. Two components have labels (1, −1) unless told.
        proportions: (C,) > 0, sum 1, in training and test; equal unless told.
        source: ``FixedSource(vector=w)`` or :class:`rmt.RidgeSource`.
        intercept: fit an unpenalised intercept b₀ (the source brings none).
        label_noise: probability that a training label is flipped, one number.

    >>> import rmt
    >>> setting = rmt.ClassTransfer(
    ...     n=60,
    ...     gamma=0.5,
    ...     means=[[1.0, 0.0], [-1.0, 0.5]],
    ...     covariances=[[1.0, 1.0], [2.0, 2.0]],
    ...     source=rmt.FixedSource(vector=[0.7, 0.0]),
    ... )
    >>> round(float(rmt.theory(setting).best_accuracy), 4)
    0.8018
    """

    n: Numbers
    gamma: Numbers
    means: Numbers
    covariances: Any
    source: FixedSource | RidgeSource
    labels: Numbers = (1.0, -1.0)
    proportions: Numbers = None
    intercept: bool = False
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        _checks.flag("intercept", self.intercept)
        n, gamma = _checks.count("n", self.n), _checks.penalty("gamma", self.gamma)
        if (gamma == 0).any():
            raise ValueError("gamma must be > 0 in a ClassTransfer; give a small one for the limit")
        means = _checks.finite("means", self.means, largest=_checks.LARGEST)
        if means.ndim != 2 or len(means) < 2 or not means.shape[1]:
            raise ValueError(f"means must have shape (C, p) with C ≥ 2, got {means.shape}")
        labels = _checks.finite("labels", self.labels)
        if labels.shape != (len(means),) or set(labels) != {1.0, -1.0}:
            raise ValueError(
                f"labels must be {len(means)} numbers ±1 in which both occur, got {_checks.shown(self.labels)}"
            )
        shares = self.shares
        if shares.shape != labels.shape or not (shares > 0).all() or abs(shares.sum() - 1.0) > 1e-9:
            raise ValueError(
                f"proportions must be {len(means)} numbers > 0 with sum 1, got {_checks.shown(self.proportions)}"
            )
        if isinstance(self.covariances, Sequence) and len(self.covariances) != len(means):
            raise ValueError(f"covariances must be one or {len(means)} of them, got {len(self.covariances)}")
        for one in self._listed:
            check_dimension("covariances", one, self.p, "a class mean")
        if not isinstance(self.source, FixedSource | RidgeSource):
            raise ValueError(f"source must be one FixedSource or RidgeSource, got {type(self.source).__name__}")
        check_sources((self.source,), self.p)
        if not isinstance(self.intercept, bool | np.bool_):
            raise ValueError(f"intercept must be True or False, got {_checks.shown(self.intercept)}")
        if flip_probability("label_noise", self.label_noise).ndim:
            raise ValueError("label_noise of a ClassTransfer must be one number; make one setting for each")
        object.__setattr__(self, "_shape", _checks.broadcast(n=n, gamma=gamma))

    @property
    def shape(self) -> tuple[int, ...]:
        """Broadcast shape of n and gamma."""
        return self._shape

    @property
    def p(self) -> int:
        """Dimension."""
        return int(np.shape(self.means)[1])

    @property
    def shares(self) -> FloatArray:
        """(C,) proportions π_c."""
        if self.proportions is not None:
            return _checks.finite("proportions", self.proportions)
        count = len(np.asarray(self.means))
        return np.full(count, 1.0 / count)

    @property
    def _listed(self) -> Sequence[Any]:
        if isinstance(self.covariances, list | tuple):
            return self.covariances
        return [self.covariances] * len(np.asarray(self.means))

    @cached_property
    def spectra(self) -> tuple[Spectrum, ...]:
        """The C covariances by their eigenvalues; one object for classes that share one."""
        made = {id(one): Spectrum.of(one, name="covariances") for one in self._listed}
        return tuple(made[id(one)] for one in self._listed)
