"""Spectral filters, and a setting that is trained by one instead of ridge (theory.md §5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmt import _checks
from rmt.settings.isotropic import Comparable, Transfer

ComplexArray = NDArray[np.complex128]


@dataclass(frozen=True)
class RidgeFilter:
    """φ(l) = 1/(l + γ), γ from the setting: a check on the contour, since the closed form is known.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> same = rmt.theory(rmt.FilteredTransfer(base=setting, filter=rmt.RidgeFilter()))
    >>> abs(float(same.accuracy(1.0)) - float(rmt.theory(setting).accuracy(1.0))) < 1e-9
    True
    """

    def __call__(self, z: ComplexArray, gamma: float) -> ComplexArray:
        """φ at complex eigenvalues."""
        return 1.0 / (z + gamma)

    def left(self, gamma: float) -> float:
        """Left end of the contour: nearer to 0 than the pole."""
        return -0.5 * gamma


@dataclass(frozen=True)
class GradientFlow:
    """Gradient flow from αw̃ on (1/2n)Σ(1 − u_iᵀw)² + (γ/2)|w − αw̃|², stopped at ``time``.

    φ(l) = (1 − e^{−t(l+γ)})/(l + γ); γ = 0 in the setting gives plain early stopping, time → ∞ gives ridge.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> flow = rmt.FilteredTransfer(base=setting, filter=rmt.GradientFlow(time=1.0))
    >>> round(float(rmt.theory(flow).alpha_star), 3)
    1.666
    """

    time: float

    def __post_init__(self) -> None:
        if _checks.at_least("time", self.time, 0.0).ndim or self.time == 0:
            raise ValueError(f"time must be one number > 0, got {_checks.shown(self.time)}")

    def __call__(self, z: ComplexArray, gamma: float) -> ComplexArray:
        """φ at complex eigenvalues."""
        return -np.expm1(-self.time * (z + gamma)) / (z + gamma)

    def left(self, gamma: float) -> float:
        """Left end of the contour: φ has no pole, but grows like e^{−tl}."""
        return -min(0.5, 1.0 / self.time)


@dataclass(frozen=True)
class PrincipalComponents:
    """Ridge on the leading principal components of S, the source kept on the others: φ(l) = 1_{l > cut}/(l + γ).

    Args:
        cut: smallest eigenvalue kept, > 0; or
        fraction: kept share of the p components, in (0, min(1, n/p)); the cut follows from it.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> half = rmt.FilteredTransfer(base=setting, filter=rmt.PrincipalComponents(fraction=0.25))
    >>> round(float(rmt.theory(half).accuracy(1.0)), 4)
    0.8712
    """

    cut: float | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        if (self.cut is None) == (self.fraction is None):
            raise ValueError("give cut (an eigenvalue) or fraction (of the p components), exactly one of the two")
        if self.cut is not None and not _checks.finite("cut", self.cut) > 0:
            raise ValueError(f"cut must be > 0, got {self.cut}; RidgeFilter() keeps everything")
        if self.fraction is not None and not 0 < _checks.finite("fraction", self.fraction) < 1:
            raise ValueError(f"fraction must lie in (0, 1), got {self.fraction}")

    def __call__(self, z: ComplexArray, gamma: float) -> ComplexArray:
        """φ at complex eigenvalues right of the cut."""
        return 1.0 / (z + gamma)


@dataclass(frozen=True)
class SpectralFilter:
    """Any φ, analytic to the right of ``pole``.

    Args:
        function: φ on complex arrays.
        pole: its rightmost singularity on the real line, < 0; −inf if it has none.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> ridge = rmt.SpectralFilter(lambda l: 1 / (l + 1.0), pole=-1.0)
    >>> round(float(rmt.theory(rmt.FilteredTransfer(base=setting, filter=ridge)).accuracy(1.0)), 4)
    0.8559
    """

    function: Callable[[ComplexArray], ComplexArray]
    pole: float

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ValueError("function must be φ, a function of a complex array")
        if not _checks.real("pole", self.pole) < 0:
            raise ValueError(f"pole must be < 0: φ has to be analytic on the spectrum and at 0, got {self.pole}")

    def __call__(self, z: ComplexArray, gamma: float) -> ComplexArray:
        """φ at complex eigenvalues."""
        return np.asarray(self.function(z))

    def left(self, gamma: float) -> float:
        """Left end of the contour."""
        return max(0.5 * self.pole, -0.5)


@dataclass(frozen=True, kw_only=True, eq=False)
class FilteredTransfer(Comparable):
    """``base`` (isotropic, without label noise) trained by a spectral filter instead of ridge.

    Args:
        base: :class:`rmt.Transfer`; its γ enters where the filter says so.
        filter: :class:`GradientFlow`, :class:`PrincipalComponents`, :class:`RidgeFilter` or :class:`SpectralFilter`.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> stopped = rmt.FilteredTransfer(base=setting, filter=rmt.GradientFlow(time=2.0))
    >>> round(float(rmt.theory(stopped).accuracy(1.0)), 4)
    0.857
    """

    base: Transfer
    filter: Any

    def __post_init__(self) -> None:
        if not isinstance(self.base, Transfer):
            raise ValueError(f"base must be a Transfer (filters are solved for C = I), got {type(self.base).__name__}")
        if not isinstance(self.filter, RidgeFilter | GradientFlow | PrincipalComponents | SpectralFilter):
            raise ValueError(
                "filter must be a GradientFlow, PrincipalComponents, RidgeFilter or SpectralFilter, "
                f"got {_checks.shown(self.filter)}"
            )
        if np.any(np.asarray(self.base.label_noise) != 0):
            raise ValueError("label_noise must be 0 with a spectral filter: flipped labels are solved for ridge only")
        if isinstance(self.filter, RidgeFilter) and np.any(np.asarray(self.base.gamma) == 0):
            raise ValueError("gamma must be > 0 with RidgeFilter; theory(base) is the closed form and takes 0")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``base``."""
        return self.base.shape
