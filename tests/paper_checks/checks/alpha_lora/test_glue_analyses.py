"""The checks that read the study's finished runs: trained α, aα + b, sensitivity, and the full-size study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paper_checks.checks.alpha_lora import glue_affine, glue_alpha, glue_full, glue_sensitivity
from paper_checks.checks.alpha_lora.glue_fair import CHECK as STUDY
from paper_checks.core import COMMITTED, Context, NotAvailable, Verdict
from paper_checks.studies.glue.comparison import CLAIMED, MIDDLE
from paper_checks.studies.glue.study import AFFINE
from rmt._files import write_json


def judged(check: Any, context: Context) -> dict[str, Any]:
    """Figures of a run."""
    check.run(context)
    return check.finished(context.out)


def store(
    folder: Path,
    shared: float,
    *,
    shift: float = 0.0,
    drop: float = 0.0,
    seeds: int = 3,
    majority: float = 55.0,
    steps: int = 5,
) -> Context:
    """Finished α-LoRA runs whose scales have a pattern in common to the degree `shared`."""
    draw = np.random.default_rng(0)
    pattern = {f"layer.{i}.{kind}": draw.standard_normal(200) for i in range(2) for kind in ("query", "value")}
    for task in STUDY.study.tasks:
        curve = [f"{task}.{CLAIMED}.at{MIDDLE:g}.seed{seed}" for seed in range(3)]
        for cell in [*STUDY.study.finals(task, CLAIMED)[:seeds], *curve[:seeds]]:
            noise = {name: draw.standard_normal(200) for name in pattern}
            alpha = {name: 1 + shift + 0.05 * (shared * pattern[name] + (1 - shared) * noise[name]) for name in pattern}
            right = {point: 850 - (round(10 * drop) if point in glue_affine.TESTED else 0) for point in AFFINE}
            points = [{"a": a, "b": b, "correct": "1" * n + "0" * (1000 - n)} for (a, b), n in right.items()]
            figures = {"alpha": alpha, "alpha_steps": steps, "affine": points, "majority": majority, "rate": 2e-3}
            write_json(folder / STUDY.id / f"{cell}.json", {"figures": figures, "quick": False, "seed": 0})
    return Context(out=folder)


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({"shared": 0.5}, Verdict.REPRODUCED),
        ({"shared": 0.0}, Verdict.NOT_REPRODUCED),
        ({"shared": 0.15}, Verdict.NOT_REPRODUCED),  # above its null, and of no size
        ({"shared": 0.5, "steps": 60}, Verdict.NOT_REPRODUCED),  # noise alone would spread α more
        ({"shared": 0.5, "shift": 0.1}, Verdict.NOT_REPRODUCED),
        ({"shared": 0.5, "seeds": 1}, Verdict.UNDECIDED),
    ],
)
def test_trained_scales(tmp_path: Path, options: dict[str, Any], verdict: Verdict) -> None:
    context = store(tmp_path, **options)
    assert glue_alpha.CHECK.judge(judged(glue_alpha.CHECK, context)).verdict is verdict
    cells = glue_alpha.CHECK.finished(tmp_path)
    assert glue_alpha.CHECK.draw(cells) is not None


def test_tasks_must_agree(tmp_path: Path) -> None:
    context = store(tmp_path, shared=0.5)
    glue_alpha.CHECK.run(context)
    cells = glue_alpha.CHECK.finished(tmp_path)
    cells["sst2"]["between_tasks"] = 0.005
    assert glue_alpha.CHECK.judge(cells).verdict is Verdict.NOT_REPRODUCED
    cells.pop(glue_alpha.NOISE)
    assert glue_alpha.CHECK.judge(cells).verdict is Verdict.UNDECIDED


def test_the_null_holds_its_level() -> None:
    draw = np.random.default_rng(1)
    exceeded = 0
    for seed in range(20):
        runs = [{"a": draw.standard_normal(50), "b": draw.standard_normal(50)} for _ in range(2)]
        pairs = [(runs[0], runs[1])]
        correlation = glue_alpha._mean_correlation(pairs)
        null = glue_alpha._null(pairs, seed)
        assert correlation is not None
        assert null is not None
        exceeded += correlation > null
    assert exceeded <= 2


@pytest.mark.parametrize(
    ("drop", "majority", "verdict"),
    [
        (20.0, 55.0, Verdict.REPRODUCED),
        (1.0, 55.0, Verdict.REPRODUCED),
        (0.1, 55.0, Verdict.NOT_REPRODUCED),
        (0.1, 84.0, Verdict.UNDECIDED),
    ],
)
def test_affine(tmp_path: Path, drop: float, majority: float, verdict: Verdict) -> None:
    context = store(tmp_path, 0.5, drop=drop, majority=majority)
    assert glue_affine.CHECK.judge(judged(glue_affine.CHECK, context)).verdict is verdict
    cells = glue_affine.CHECK.finished(tmp_path)
    assert glue_affine.CHECK.draw(cells) is not None
    cells.pop("mrpc.seed2")
    assert glue_affine.CHECK.judge(cells).verdict is Verdict.UNDECIDED
    old = {"sst2": cells["sst2.seed0"], "mrpc": cells["mrpc.seed0"]}  # cells of the rule with one seed
    assert "1 of 3 seeds" in glue_affine.CHECK.judge(old).summary


def sensitivity(changes: dict[str, float], level: float = 0.5) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    easy = level + 0.1 * draw.standard_normal(300)
    return {
        f"{variant}.seed{seed}": {
            "losses": easy + changes.get(variant, 0.0) + 0.005 * draw.standard_normal(300) + 1e-4 * seed,
            "accuracy": 75.0,
            "constant": 0.65,
        }
        for variant in glue_sensitivity.VARIANTS
        for seed in range(2)
    }


@pytest.mark.parametrize(
    ("changes", "level", "verdict"),
    [
        ({"T1": 0.01}, 0.5, Verdict.REPRODUCED),
        ({"T1": 0.02}, 0.5, Verdict.UNDECIDED),
        ({"T1": 0.1}, 0.5, Verdict.NOT_REPRODUCED),
        ({"T1": -0.1}, 0.5, Verdict.NOT_REPRODUCED),
        ({"T1": 0.1}, 0.65, Verdict.UNDECIDED),
    ],
)
def test_sensitivity(changes: dict[str, float], level: float, verdict: Verdict) -> None:
    cells = sensitivity(changes, level)
    assert glue_sensitivity.CHECK.judge(cells).verdict is verdict
    assert glue_sensitivity.CHECK.draw(cells) is not None
    cells.pop("overlap.seed1")
    outcome = glue_sensitivity.CHECK.judge(cells)
    assert outcome.verdict is Verdict.UNDECIDED
    assert "Not complete: 15 of 16" in outcome.summary


@pytest.mark.parametrize("check", [glue_alpha.CHECK, glue_affine.CHECK, glue_sensitivity.CHECK])
def test_they_say_what_they_need(tmp_path: Path, check: Any) -> None:
    context = Context(out=tmp_path)
    outcome = check.run(context)
    assert outcome.verdict is Verdict.NOT_RUN
    assert "run that check first" in outcome.summary


def test_the_full_study_needs_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = glue_full.CHECK
    # Runs, those of the claim's methods at every rate, and what each method costs on each task.
    assert len(check.cells(Context(out=tmp_path))) == 440 + 150 + 55
    monkeypatch.setattr(glue_full, "_has_gpu", lambda: False)
    with pytest.raises(NotAvailable, match="needs a GPU"):
        check.compute(Context(out=tmp_path), "mrpc.lora.rate0.002")


def test_committed_scales_give_the_stored_figures() -> None:
    """Seeds and cells are found under the id of today, whatever it was when they were computed."""
    stored = glue_alpha.CHECK.finished()
    if not stored:
        pytest.skip("no committed results")
    found = glue_alpha.CHECK.compute(Context(out=COMMITTED), "mrpc")
    for key in ("null", "null_tasks", "between_seeds", "between_tasks"):
        assert found[key] == pytest.approx(stored["mrpc"][key], rel=1e-9)
