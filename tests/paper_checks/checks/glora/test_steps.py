"""The check of first steps, and what the balanced study reports, on made-up figures."""

from __future__ import annotations

from paper_checks.checks.glora.one_rate import CHECK as RATE
from paper_checks.checks.glora.steps import CHECK as STEPS
from paper_checks.checks.glora.vtab_balanced import CHECK as BALANCED
from paper_checks.checks.glora.vtab_layers import SECOND as LAYERS
from paper_checks.core import COMMITTED, Context, Verdict
from paper_checks.studies.vision.balanced import ONE_RATE


def figures(balanced: list[float]) -> dict:
    layers = [f"layer{number}" for number in range(len(balanced))]
    return {"ratios": {"C lora": {"layers": layers, "raw": [9.0] * len(balanced), "balanced": balanced}}}


def test_first_steps_are_judged_by_how_many_lie_within_a_factor_3() -> None:
    models = ("vit-s14", "minilm-l6", "tiny-llama")
    assert STEPS.judge({"vit-s14": figures([1.0])}).verdict is Verdict.UNDECIDED  # two models are missing
    good = STEPS.judge(dict.fromkeys(models, figures([1.0] * 19 + [4.0])))
    assert good.verdict is Verdict.REPRODUCED
    assert any(row.ours == "layer19" for row in good.rows)
    assert STEPS.judge({"a": figures([1.0] * 18 + [4.0, 0.3])}).verdict is Verdict.NOT_REPRODUCED
    assert STEPS.judge({}).verdict is Verdict.UNDECIDED


def best(rates: dict[str, float]) -> dict:
    return {
        f"best-{task}-{method}": {"lr": rates.get(method, 2e-3), "validation": {"0.002": 70.0, "0.005": 75.0}}
        for task in ("cifar10", "gtsrb")
        for method in ONE_RATE
    }


def test_one_rate_is_judged_by_the_best_rates_over_loras() -> None:
    assert RATE.judge(best({})).verdict is Verdict.REPRODUCED
    assert RATE.judge(best({"ssf": 5e-3, "hira": 1e-3})).verdict is Verdict.REPRODUCED
    outcome = RATE.judge(best({"lora": 5e-3, "ssf": 1e-3}))
    assert outcome.verdict is Verdict.NOT_REPRODUCED
    assert "SSF on gtsrb (0.2 ×)" in outcome.summary
    some = {cell: figures for cell, figures in best({}).items() if "gtsrb" in cell}
    assert RATE.judge(some).verdict is Verdict.UNDECIDED


def test_the_balanced_study_can_be_stopped_anywhere() -> None:
    """Cells rest on earlier ones alone, and LoRA's are those of the first study where the rate is the same."""
    assert BALANCED.plan.steps == "balanced"
    assert BALANCED.home == RATE.home == "glora.vtab_balanced"
    order = list(BALANCED.cells(Context(out=COMMITTED)))
    assert set(RATE.cells(Context(out=COMMITTED))) <= set(order)
    for one, other in (
        ("best-gtsrb-glora_fixed", "final-cifar10-glora_fixed-s0"),
        ("suprate-gtsrb-0.001", "supernet-gtsrb-s0"),
        ("supernet-cifar10-s0", "rate-cifar10-glora_searched-0.001"),
        ("final-gtsrb-glora_searched-s2", "best-gtsrb-hira"),
        ("best-gtsrb-vector_b", "final-cifar10-lora-s3"),
        ("final-gtsrb-glora_random-s4", "final-dtd10-lora-s0"),
    ):
        assert order.index(one) < order.index(other)
    assert "is missing" in BALANCED.judge({}).summary or "no pair" in BALANCED.judge({}).summary


def test_a_second_row_has_the_firsts_rule_and_waits_for_all_its_cells() -> None:
    def cell(share: float) -> dict:
        return {"layers": {"mlp_share": share, "random_mlp_share": 0.55, "random_spread": 0.02}}

    for check, share, verdict in ((LAYERS, 0.6, Verdict.REPRODUCED), (LAYERS, 0.5, Verdict.NOT_REPRODUCED)):
        cells = dict.fromkeys(check.cells(Context(out=COMMITTED)), cell(share))
        assert len(cells) == 6
        assert check.judge(cells).verdict is verdict
        cells.popitem()
        outcome = check.judge(cells)
        assert outcome.verdict is Verdict.UNDECIDED
        assert "1 of 6 runs are missing" in outcome.summary
