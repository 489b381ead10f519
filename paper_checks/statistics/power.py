"""What would decide an undecided comparison: seeds and examples, from the parts of its variance.

The variance of a mean difference is a sum of parts: the spread of the seeds over their number, that of the examples
over theirs, and what the choice of a learning rate adds. With as many times more seeds and examples every part falls
alike, so one factor says how many of each an interval needs to leave 0 out. The factor is known no better than the
variance: few seeds leave it open by orders of magnitude, and then this is what is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Upper end over lower end of the interval of the factor beyond which the factor counts as unknown.
VAGUE = 10.0


@dataclass(frozen=True)
class Part:
    """One part of the variance of a mean.

    Attributes:
        what: the units that are drawn, in plural: "seeds", "examples".
        variance: what they contribute to the variance of the mean.
        freedom: degrees of freedom of that estimate.
        count: how many of the units there are; 0 for a part whose units are not counted.
    """

    what: str
    variance: float
    freedom: float
    count: int = 0


def total(parts: Sequence[Part]) -> tuple[float, float]:
    """Standard error of the mean and its degrees of freedom by Satterthwaite."""
    variance = sum(part.variance for part in parts)
    spread = sum(part.variance**2 / part.freedom for part in parts if part.variance > 0)
    freedom = variance**2 / spread if spread > 0 else max((part.freedom for part in parts), default=1.0)
    return math.sqrt(variance), float(freedom)


def needed(mean: float, parts: Sequence[Part]) -> str:
    """How many units of every part would tell a difference of this size from 0, as a clause.

    With an interval (95 %, chi-square of the variance), or a clause that says why the number cannot be known: the
    difference is smaller than its own error, or the variance rests on too few degrees of freedom.
    """
    from scipy.stats import chi2

    error, freedom = total(parts)
    counted = [part for part in parts if part.count]
    have = " and ".join(f"{part.count:,} {part.what}" for part in counted)
    if error == 0:
        return f"{have} show no spread, so how many would decide cannot be known"
    if abs(mean) < error:
        return f"the difference is smaller than its error, so how many would decide cannot be known from {have}"
    low, high = (freedom / float(chi2.ppf(q, freedom)) for q in (0.975, 0.025))
    if high / low > VAGUE:
        return f"how many would decide cannot be known from {have}: the spread is known to a factor of {high / low:.0f}"
    factor = (1.96 * error / mean) ** 2
    # By the normal law this may come out below what there is: few degrees of freedom have a wider interval.
    factor = max(factor, 1.01)
    enough = " and ".join(f"{math.ceil(factor * part.count):,} {part.what}" for part in counted)
    alone = "" if any(part.what == "seeds" for part in parts) else "; what seeds add cannot be known from one"
    return (
        f"about {enough} would decide a difference of this size ({factor:.1f} times as many as here; 95 % interval "
        f"{max(1.0, factor * low):.1f} to {factor * high:.1f}){alone}"
    )
