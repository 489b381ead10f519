"""The rule on the source penalty says yes and no."""

from __future__ import annotations

from typing import Any

import pytest

from paper_checks.checks.source_penalty.best_start import CHECK
from paper_checks.core import Verdict


def cells(factor: float, gain: float) -> dict[str, Any]:
    """32 settings whose two penalties differ by a factor, and the gain of the transfer-optimal one."""
    one = {"source": 1.0, "transfer": factor, "gain": gain, "error": 0.1, "best_gain": 0.0}
    return {"batch0": {"draws": 200, "settings": [one] * 32}}


@pytest.mark.parametrize(
    ("factor", "gain", "verdict"),
    [
        (2.0, 1.0, Verdict.REPRODUCED),
        (1.1, 1.0, Verdict.NOT_REPRODUCED),
        (2.0, -1.0, Verdict.NOT_REPRODUCED),
        (2.0, 0.05, Verdict.UNDECIDED),
    ],
)
def test_the_rule_says_yes_and_no(factor: float, gain: float, verdict: Verdict) -> None:
    assert CHECK.judge(cells(factor, gain)).verdict is verdict
