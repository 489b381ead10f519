"""What α costs: committed figures and bent ones."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from paper_checks.checks.alpha_lora.alpha_overhead import CHECK
from paper_checks.core import Context, Verdict


def judge(cells: dict) -> Verdict:
    outcome = CHECK.judge(cells)
    assert outcome.summary.endswith(".")
    assert all(row.ours is not None for row in outcome.rows)
    return outcome.verdict


def test_committed_figures_give_their_verdict():
    cells = CHECK.finished()
    if not cells:
        pytest.skip("no committed results")
    assert set(cells) == set(CHECK.cells(Context(out=None)))
    assert judge(cells) == Verdict.REPRODUCED


def test_parameters_decide_and_time_is_told():
    exact = {"alpha_error": 0.001, "error": 0.001, "recompute_ratio": 1.1, "peft_ratio": 1.0}
    counts = {"lora": 887_042, "alpha_lora": 905_474}
    for ratio in (1.01, 1.5):
        cells = {"parameters": counts, "time": {**exact, "ratio": ratio, "alpha_ratio": 1.0}}
        assert judge(cells) == Verdict.REPRODUCED
        assert f"takes {ratio + 0.1:.3f} ±" in CHECK.judge(cells).summary
    assert judge({"time": cells["time"]}) == Verdict.NOT_RUN
    assert judge({"parameters": {**counts, "alpha_lora": 887_042}}) == Verdict.NOT_REPRODUCED
