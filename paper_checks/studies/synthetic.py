"""What the synthetic checks share: the allowance for finite size, and z-scores as the rules state them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import rmt
from rmt._checks import FloatArray
from rmt.resolvent import isotropic
from rmt.scores.estimates import Estimate, allowed

#: Simulation and theory agree where |z| is at most this, after the allowance.
Z_LIMIT = 4.0

#: The sentence that the rules of the synthetic checks share.
ALLOWANCE_IN_WORDS = (
    "z is the difference in standard errors after a finite-size allowance is taken off: "
    "1/(min(n, p, N)·√(h·h̃)) of the value for moments and scales, a fifth of that for accuracies; h "
    "and h̃ are the inflation factors (rmt.fixed_point), which vanish at the peaks of double descent"
)


def allowance(setting: rmt.Transfer) -> FloatArray:
    """Relative finite-size allowance of ``setting``: 1/(min(n, p, N)·√(h·h̃)).

    The constant 1 was fixed on other seeds than those of the checks, where no more than 0.6 was needed.
    """
    smallest = np.minimum(np.asarray(setting.n, dtype=float), np.asarray(setting.p, dtype=float))
    h = isotropic(setting.eta, setting.gamma).h
    if setting.N is not None:
        smallest = np.minimum(smallest, np.asarray(setting.N, dtype=float))
        assert setting.gamma_source is not None
        h = h * isotropic(setting.eta_source, setting.gamma_source).h
    return 1.0 / (smallest * np.sqrt(h))


def z_score(estimate: Estimate, expected: ArrayLike, setting: rmt.Transfer, *, accuracy: bool = False) -> FloatArray:
    """z of ``estimate`` against ``expected`` as in :data:`ALLOWANCE_IN_WORDS`."""
    name = "accuracy" if accuracy else "moment"
    return estimate.z(expected, allowed(name, expected, allowance(setting)))


def plain(estimate: Estimate) -> dict[str, Any]:
    """``estimate`` for storing."""
    return {"value": brief(estimate.value), "stderr": brief(estimate.stderr, 3)}


def brief(values: ArrayLike, digits: int = 7) -> FloatArray:
    """``values`` in so many significant digits, which keeps the stored files small."""
    array = np.asarray(values, dtype=float)
    return np.vectorize(lambda value: float(f"{value:.{digits}g}"), otypes=[float])(array)
