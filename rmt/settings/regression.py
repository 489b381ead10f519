"""A setting with several real outputs (theory.md §6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rmt import _checks
from rmt.settings.isotropic import Comparable, Numbers, reject_interpolation
from rmt.settings.spectrum import Spectrum, check_dimension


@dataclass(frozen=True, kw_only=True, eq=False)
class Regression(Comparable):
    """Target outputs ``y = target·x + noise·ε`` in ℝᵈ, x ~ N(0, C), ε ~ N(0, I_d), and frozen ``source`` weights.

    The fine-tuned matrix is D·source + a ridge adapter fitted to the residual, D = α or diag(α₁ … α_d).

    Args:
        n: target samples (broadcasts). gamma: ridge penalty of the mean squared loss (broadcasts).
        target: (d, p) true weights W_t. source: (d, p) frozen weights W_s. noise: σ₀ ≥ 0.
        covariance: C of the inputs: (p, p) matrix, (p,) diagonal, or :class:`rmt.Spectrum`; None for the identity.

    Raises:
        ValueError: shapes that differ, non-finite entries, γ < 0, or γ = 0 with p = n.

    >>> import rmt
    >>> setting = rmt.Regression(n=40, gamma=0.1, target=[[1.0, 0.0, 0.5]], source=[[0.5, 0.1, 0.2]], noise=0.3)
    >>> round(float(rmt.theory(setting).risk(1.0)), 4)
    0.0994
    """

    n: Numbers
    gamma: Numbers
    target: Numbers
    source: Numbers
    noise: Numbers = 0.0
    covariance: Any = None

    def __post_init__(self) -> None:
        n = _checks.count("n", self.n)
        gamma = _checks.penalty("gamma", self.gamma)
        noise = _checks.at_least("noise", self.noise, 0.0, largest=_checks.LARGEST)
        target, source = (
            _checks.finite("target", self.target, largest=_checks.LARGEST),
            _checks.finite("source", self.source, largest=_checks.LARGEST),
        )
        if target.ndim != 2 or target.shape != source.shape:
            raise ValueError(f"target and source must both have shape (d, p), got {target.shape} and {source.shape}")
        if self.covariance is None:
            reject_interpolation("gamma", gamma, "n", n, np.asarray(float(self.p)))
        else:
            check_dimension("covariance", self.covariance, self.p, "target")
        object.__setattr__(self, "_shape", _checks.broadcast(n=n, gamma=gamma, noise=noise))

    @property
    def shape(self) -> tuple[int, ...]:
        """Broadcast shape of n, gamma and noise."""
        return self._shape

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigendecomposition of the covariance of the inputs."""
        return Spectrum(np.ones(self.p)) if self.covariance is None else Spectrum.of(self.covariance)

    @property
    def p(self) -> int:
        """Input dimension."""
        return int(np.shape(self.target)[1])

    @property
    def outputs(self) -> int:
        """Output dimension d."""
        return int(np.shape(self.target)[0])
