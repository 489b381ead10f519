"""The check of first steps, and what the balanced study reports, on made-up figures."""

from __future__ import annotations

from paper_checks.checks.glora.steps import CHECK as STEPS
from paper_checks.checks.glora.vtab_balanced import CHECK as BALANCED
from paper_checks.checks.glora.vtab_balanced import best_rate
from paper_checks.core import Verdict


def figures(balanced: list[float]) -> dict:
    layers = [f"layer{number}" for number in range(len(balanced))]
    return {"ratios": {"C lora": {"layers": layers, "raw": [9.0] * len(balanced), "balanced": balanced}}}


def test_first_steps_are_judged_by_how_many_lie_within_a_factor_3() -> None:
    good = STEPS.judge({"a": figures([1.0] * 19 + [4.0])})
    assert good.verdict is Verdict.REPRODUCED
    assert any(row.ours == "layer19" for row in good.rows)
    assert STEPS.judge({"a": figures([1.0] * 18 + [4.0, 0.3])}).verdict is Verdict.NOT_REPRODUCED
    assert STEPS.judge({}).verdict is Verdict.UNDECIDED


def test_the_balanced_study_compares_best_rates_with_loras() -> None:
    cells = {
        f"rate-gtsrb-{method}-{rate:g}": {"lr": rate, "validation": value}
        for method, values in (("lora", (60.0, 75.0, 75.0)), ("glora_fixed", (50.0, 70.0, 84.0)))
        for rate, value in zip((1e-3, 2e-3, 5e-3), values, strict=True)
    }
    assert best_rate(cells, "gtsrb", "lora") == 2e-3
    outcome = BALANCED.judge(cells)
    assert outcome.verdict is Verdict.UNDECIDED
    assert "0.005 (2.5 × LoRA's)" in [row.ours for row in outcome.rows]


def test_the_balanced_study_differs_from_the_papers_in_steps_and_grids_alone() -> None:
    assert BALANCED.plan.steps == "balanced"
    assert BALANCED.home == "glora.vtab_balanced"
