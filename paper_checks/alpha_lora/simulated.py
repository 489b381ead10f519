"""What the synthetic checks share: the allowance for finite size, and z-scores as the rules state them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt.result import ALLOWANCE, Estimate

#: Simulation and theory agree where |z| is at most this, after the allowance.
Z_LIMIT = 4.0

#: The sentence that the rules of the synthetic checks share.
ALLOWANCE_IN_WORDS = (
    f"z is the difference in standard errors after the finite-size allowance is taken off: "
    f"{ALLOWANCE:g}/p of the value for moments and scales, {ALLOWANCE / 5:g}/p for accuracies"
)


def z_score(estimate: Estimate, expected: ArrayLike, p: int, *, accuracy: bool = False) -> Any:
    """z of ``estimate`` against ``expected`` as in :data:`ALLOWANCE_IN_WORDS`."""
    scale = 0.2 if accuracy else np.abs(np.asarray(expected, dtype=float))
    return estimate.z(expected, ALLOWANCE / p * scale)


def plain(estimate: Estimate) -> dict[str, Any]:
    """``estimate`` for storing."""
    return {"value": estimate.value, "stderr": estimate.stderr}
