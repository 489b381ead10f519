"""A setting with K classes and one score a class: one-vs-rest or softmax adapters on a frozen source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt.settings.isotropic import Comparable, Numbers
from rmt.settings.spectrum import Spectrum, check_dimension


@dataclass(frozen=True, kw_only=True, eq=False)
class MulticlassTransfer(Comparable):
    """Target samples of K Gaussian classes, and a frozen linear classifier W̃ with one row a class.

    The fine-tuned scores are (αW̃ + A)x + b, A of penalty γ; the class of the highest score is predicted.

    Args:
        n: target samples. gamma: ridge penalty (mean square loss without ½ on targets ±1; mean softmax loss with γ/2).
        means: (K, p) class means. covariances: one for all classes, or a sequence of K: (p, p) matrix, (p,) diagonal
            or :class:`rmt.Spectrum` each.
        source: (K, p) frozen weights. proportions: (K,) > 0 of sum 1; equal unless told.
        intercept: fit unpenalised intercepts, one a class.
        per_class: α has a last axis of length K, one scale a row of the source; else it is one scale for all.

    Raises:
        ValueError: shapes that differ, or values out of range.

    >>> import rmt
    >>> setting = rmt.MulticlassTransfer(
    ...     n=90,
    ...     gamma=0.5,
    ...     means=[[2.0, 0.0], [0.0, 2.0], [-1.0, -1.0]],
    ...     covariances=[[1.0, 1.0]] * 3,
    ...     source=[[1, 0], [0, 1], [-1, -1]],
    ... )
    >>> round(float(rmt.theory(setting).accuracy(0.0)), 3)
    0.869
    """

    n: int
    gamma: float
    means: Numbers
    covariances: Any
    source: Numbers
    proportions: Numbers = None
    intercept: bool = False
    per_class: bool = False

    def __post_init__(self) -> None:
        for name, array in (("n", _checks.count("n", self.n)), ("gamma", _checks.penalty("gamma", self.gamma))):
            if array.ndim:
                raise ValueError(f"{name} of a MulticlassTransfer must be one number; make one setting for each")
        if float(self.gamma) == 0:
            raise ValueError("gamma must be > 0 in a MulticlassTransfer; give a small one for the limit")
        means, source = (_checks.finite(name, getattr(self, name), largest=_checks.LARGEST) for name in _MATRICES)
        if means.ndim != 2 or len(means) < 2 or not means.shape[1]:
            raise ValueError(f"means must have shape (K, p) with K ≥ 2, got {means.shape}")
        if source.shape != means.shape:
            raise ValueError(f"source must have one row a class, shape {means.shape}, got {source.shape}")
        shares = self.shares
        if shares.shape != (len(means),) or not (shares > 0).all() or abs(shares.sum() - 1.0) > 1e-9:
            raise ValueError(
                f"proportions must be {len(means)} numbers > 0 with sum 1, got {_checks.shown(self.proportions)}"
            )
        if isinstance(self.covariances, Sequence) and len(self.covariances) != len(means):
            raise ValueError(f"covariances must be one or {len(means)} of them, got {len(self.covariances)}")
        for one in self._listed:
            check_dimension("covariances", one, self.p, "a class mean")
        for name in ("intercept", "per_class"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name} must be True or False, got {_checks.shown(getattr(self, name))}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(): one setting."""
        return ()

    @property
    def classes(self) -> int:
        """K."""
        return len(np.asarray(self.means))

    @property
    def p(self) -> int:
        """Dimension."""
        return int(np.shape(self.means)[1])

    @property
    def shares(self) -> FloatArray:
        """(K,) proportions π_c."""
        if self.proportions is not None:
            return _checks.finite("proportions", self.proportions)
        return np.full(self.classes, 1.0 / self.classes)

    @property
    def _listed(self) -> Sequence[Any]:
        if isinstance(self.covariances, list | tuple):
            return self.covariances
        return [self.covariances] * self.classes

    @cached_property
    def spectra(self) -> tuple[Spectrum, ...]:
        """The K covariances by their eigenvalues; one object for classes that share one."""
        made = {id(one): Spectrum.of(one, name="covariances") for one in self._listed}
        return tuple(made[id(one)] for one in self._listed)

    def scales(self, alpha: Any) -> FloatArray:
        """``alpha`` as (…, K), one scale a row of the source."""
        alpha = _checks.finite("alpha", alpha)
        if not self.per_class:
            return np.broadcast_to(alpha[..., None], (*alpha.shape, self.classes))
        if alpha.ndim == 0 or alpha.shape[-1] != self.classes:
            raise ValueError(f"alpha needs a last axis of length {self.classes}, one scale a class, got {alpha.shape}")
        return alpha


_MATRICES = ("means", "source")
