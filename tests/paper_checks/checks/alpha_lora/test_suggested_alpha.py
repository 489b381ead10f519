"""The few-shot study of suggested scales: its rule says yes, no and undecided; a toy cell runs without data."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from paper_checks.checks.alpha_lora import suggested_alpha  # noqa: E402
from paper_checks.core import Context, NotAvailable, Verdict  # noqa: E402
from paper_checks.statistics import intervals  # noqa: E402
from paper_checks.studies import few_shot  # noqa: E402

CHECK = suggested_alpha.CHECK


def cells(gain: float, spread: float, seeds: int = 5) -> dict:
    found = {}
    for task in ("mrpc", "cifar10"):
        for seed in range(seeds):
            wiggle = spread * (-1) ** seed
            runs = {
                f"{start}-{mode}": {"test": 70.0 + (gain + wiggle) * (start == "suggested") - 5.0 * (start == "random")}
                for start in suggested_alpha.STARTS
                for mode in ("frozen", "trained")
            }
            found[f"{task}-{seed}"] = {
                "source_only": 60.0,
                "runs": runs,
                "suggestion": {"before": 0.7, "after": 0.71, "alphas": {"a": 1.0, "b": 1.2}},
                "head": {"predicted_gain": 1.0, "real_gain": 0.5},
            }
    return found


@pytest.mark.parametrize(
    ("gain", "spread", "verdict"),
    [
        (2.0, 0.5, Verdict.REPRODUCED),
        (-2.0, 0.5, Verdict.NOT_REPRODUCED),
        (0.5, 2.0, Verdict.UNDECIDED),
        (0.0, 0.0, Verdict.UNDECIDED),
    ],
)
def test_rule(gain, spread, verdict):
    outcome = CHECK.judge(cells(gain, spread))
    assert outcome.verdict == verdict
    assert outcome.summary.endswith(".")
    assert ("would decide" in outcome.summary) == (verdict == Verdict.UNDECIDED)
    assert CHECK.draw(cells(gain, spread)).axes
    assert CHECK.judge(cells(gain, spread, seeds=1)).verdict == Verdict.UNDECIDED


def test_number_of_seeds_that_would_decide():
    rng = np.random.default_rng(0)
    gaps = [rng.normal(0.3, 1.0, size=6), rng.normal(0.3, 2.0, size=6)]
    mean, _, enough = intervals.interval(gaps)

    def half(count: int) -> float:  # the same spread, `count` seeds a task
        error = np.sqrt(sum(gap.var(ddof=1) / count for gap in gaps)) / 2
        return intervals.stats.t.ppf(0.975, 2 * count - 2) * error

    assert half(enough) <= abs(mean) < half(int(enough / 1.1))


def test_disjoint_and_balanced():
    labels = [1.0] * 10 + [-1.0] * 6
    few, held = few_shot.disjoint(np.random.default_rng(0), labels, 4, 20)
    assert len(few) == 4
    assert len(held) == 8  # as many as the smaller class has left
    assert not set(few) & set(held)
    assert sum(np.asarray(labels)[held]) == 0


def test_needs_data():
    with pytest.raises(NotAvailable, match="ADAPT_SHARED"):
        CHECK.compute(Context(out=None), "cifar10-1")


def test_toy_cell(monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    monkeypatch.setattr(suggested_alpha, "EPOCHS", 5)
    context = Context(out=tmp_path, quick=True)
    assert CHECK.cells(context) == ["toy-0", "toy-1"]
    figures = CHECK.compute(context, "toy-0")
    assert set(figures["runs"]) == {f"{s}-{m}" for s in suggested_alpha.STARTS for m in ("frozen", "trained")}
    assert figures["runs"]["suggested-frozen"]["epochs"] < figures["runs"]["one-frozen"]["epochs"] == 5
    assert 0 <= figures["source_only"] <= 100
    assert CHECK.judge({"toy-0": figures}).verdict == Verdict.UNDECIDED


def test_committed_figures_are_judged():
    cells = CHECK.finished()
    if not cells:
        pytest.skip("no committed results")
    outcome = CHECK.judge(cells)
    assert outcome.summary.endswith(".")
    assert all(np.isfinite(row.ours) for row in outcome.rows)
