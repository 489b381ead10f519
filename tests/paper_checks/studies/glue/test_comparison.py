"""The GLUE study: fairness of its cells, its verdicts, and a whole run on a tiny model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paper_checks.checks.alpha_lora.glue_fair import CHECK
from paper_checks.checks.alpha_lora.glue_recipe import CHECK as RECIPE
from paper_checks.checks.alpha_lora.glue_recipe import GlueRecipe
from paper_checks.core import Context, NotAvailable, Verdict
from paper_checks.demo.tiny_text import save_model, save_reviews
from paper_checks.statistics.answers import bits
from paper_checks.statistics.paired import choice_weights, over_choices, paired
from paper_checks.studies.glue import study
from paper_checks.studies.glue.comparison import GlueFair
from paper_checks.studies.glue.study import METHODS, Study, score, train_one

TINY = Study({"sst2": 60}, ("lora", "alpha_scheduled", "alpha_joint"), seeds=2, curve_seeds=1, model="tiny", epochs=2.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    save_reviews(folder / "data" / "glue" / "sst2")
    save_model(folder / "models" / "tiny")
    return folder


class TinyCheck(GlueFair):
    id = "alpha_lora.glue_tiny"
    study = TINY

    def cells(self, context: Context) -> list[str]:
        return self.study.cells()  # costs are measured by a test of their own


def test_a_whole_study_can_be_interrupted_and_continued(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(out=tmp_path, data=data)
    check = TinyCheck()
    real, done = study.selection, []

    def interrupted(*arguments: Any) -> Any:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("paper_checks.studies.glue.comparison.selection", interrupted)
        with pytest.raises(KeyboardInterrupt):
            check.run(context)
    assert len(check.finished(tmp_path)) == 4
    partial = check.recall(tmp_path)
    assert partial.verdict is Verdict.UNDECIDED
    assert "Not complete: 4 of 21 cells" in partial.summary
    outcome = check.run(context)
    cells = check.finished(tmp_path)
    assert set(cells) >= set(TINY.cells())
    assert all(".rate" in cell for cell in set(cells) - set(TINY.cells()))  # beyond the grid, where its end was best
    assert outcome.verdict in set(Verdict)
    assert check.draw(cells) is not None
    passes = {f["passes"] for name, f in cells.items() if "seed" in name}
    assert max(passes) - min(passes) < 2 * TINY.batch_size  # equal work, to within the last batch
    alpha = cells["sst2.alpha_scheduled.seed0"]
    assert alpha["alpha_steps"] == alpha["steps"] // 10
    assert len(alpha["affine"]) == len(study.AFFINE)
    same = next(point for point in alpha["affine"] if (point["a"], point["b"]) == (1.0, 0.0))
    assert same["correct"] == alpha["correct"]
    assert len(cells["sst2.alpha_scheduled.at0.002.seed0"]["affine"]) == len(study.AFFINE)


def test_learning_rates_never_see_the_development_set(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from glora.tasks.text.glue import Glue

    asked: list[str] = []
    real = Glue.batch
    monkeypatch.setattr(Glue, "batch", lambda self, split, *rest: asked.append(split) or real(self, split, *rest))
    check = TinyCheck()
    context = Context(out=tmp_path, data=data)
    check.compute(context, "sst2.alpha_scheduled.rate0.002")
    assert set(asked) == {"train", "validation"}


def test_seeds_are_paired(data: Path, tmp_path: Path) -> None:
    """Methods that share a seed start from the same head."""
    context = Context(out=tmp_path, data=data)
    study = replace(TINY, epochs=0.3)
    heads = []
    for name in ("lora", "alpha_joint"):
        done = train_one(study, context, "sst2", METHODS[name], 0.0, 5, split="train+validation", alpha={"lr": 0.0})
        heads.append(done.model.classifier.base.weight.detach().numpy())
    np.testing.assert_array_equal(*heads)


@pytest.mark.parametrize("name", ["ia3", "dora", "bitfit", "full", "glora", "glora_fixed", "alpha_scalar"])
def test_every_method_trains(data: Path, tmp_path: Path, name: str) -> None:
    context = Context(out=tmp_path, data=data)
    done = train_one(replace(TINY, epochs=0.6), context, "sst2", METHODS[name], 1e-3, 0, split="train+validation")
    assert done.result.steps >= 1
    assert done.parameters > 0


def test_finals_compute_the_learning_rates_they_rest_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the smallest rate of the grid, whose loss is the least, the choice goes on downwards."""
    with pytest.raises(NotAvailable, match="models/tiny"):
        TinyCheck().compute(Context(out=tmp_path, data=tmp_path), "sst2.lora.rate0.002")
    losses = {5e-4: 0.5, 2e-3: 0.6, 8e-3: 0.7, 1.25e-4: 0.4, 3.125e-5: 0.45}
    monkeypatch.setattr(
        "paper_checks.studies.glue.comparison.selection",
        lambda study, context, task, method, rate: {
            "rate": rate,
            "validation": {"loss": losses[rate], "accuracy": 80.0 + (rate == 2e-3)},
        },
    )
    runs: list[float] = []

    def final(*arguments: Any, **options: Any) -> dict[str, Any]:
        runs.append(arguments[4])
        return {"rate": arguments[4]}

    monkeypatch.setattr("paper_checks.studies.glue.comparison.final", final)
    check, context = TinyCheck(), Context(out=tmp_path, data=data)
    assert check.compute(context, "sst2.lora.seed0") == {"rate": 1.25e-4}
    assert set(check.finished(tmp_path)) == {f"sst2.lora.rate{rate:g}" for rate in losses}
    losses |= {1.25e-4: 0.6, 2e-3: 0.4}
    for cell in (tmp_path / check.id).glob("*.json"):
        cell.unlink()
    assert check.compute(context, "sst2.lora.seed1") == {"rate": 2e-3}
    done = len(runs)
    check.need(context, "sst2.lora.seed0")
    assert check.compute(context, "sst2.lora.at0.002.seed0") == {"rate": 2e-3, "copied_from": "sst2.lora.seed0"}
    assert len(runs) == done + 1  # the curve passes through the chosen rate: one run
    assert check.compute(context, "sst2.lora.at0.008.seed0") == {"rate": 8e-3}
    assert len(runs) == done + 2


def test_the_rate_is_chosen_by_the_loss() -> None:
    tried = [{"validation": {"accuracy": a, "loss": b}} for a, b in ((80, 0.5), (81, 0.9), (81, 0.8))]
    assert max(tried, key=score) == tried[0]


def test_the_choice_is_drawn_again() -> None:
    weights = choice_weights({5e-4: 68.3, 2e-3: 68.3, 8e-3: 67.0}, 300)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights[5e-4] == pytest.approx(weights[2e-3], abs=0.03)
    assert 0.2 < weights[8e-3] < weights[2e-3]
    assert choice_weights({5e-4: 60.0, 2e-3: 80.0}, 300) == {5e-4: 0.0, 2e-3: 1.0}


def test_noise_of_the_choice_widens_the_interval() -> None:
    """At a rate that is bad for one method, and chosen half the time, the difference is not sure any more."""
    good, bad = ([{"correct": answers(level, seed)} for seed in range(3)] for level in (0.8, 0.7))
    sure = over_choices({1.0: good}, {1.0: bad}, ({1.0: 1.0}, {1.0: 1.0}), 300)
    direct = paired(good, bad)
    assert sure.interval == pytest.approx(direct.interval, rel=0.02)
    noisy = over_choices({1.0: good, 2.0: bad}, {1.0: bad}, ({1.0: 0.5, 2.0: 0.5}, {1.0: 1.0}), 300)
    assert noisy.mean == pytest.approx(direct.mean / 2)
    choice = next(part for part in noisy.parts if part.what == "validation examples")
    assert choice.variance == pytest.approx((direct.mean / 2) ** 2)
    assert noisy.interval[0] < 0 < sure.interval[0]


def answers(rate: float, seed: int, examples: int = 2000) -> str:
    draw = np.random.default_rng(seed).random(examples) < rate
    return "".join("01"[int(one)] for one in draw)


def test_the_papers_recipe_tunes_nothing_and_does_more_work(data: Path, tmp_path: Path) -> None:
    class TinyRecipe(GlueRecipe):
        study = Study({"sst2": 60}, RECIPE.study.methods, seeds=1, epochs=2.0, batch_size=4, model="tiny")

    check = TinyRecipe()
    outcome = check.run(Context(out=tmp_path, data=data))
    lora, alpha = (check.finished(tmp_path)[f"sst2.{method}.seed0"] for method in check.study.methods)
    assert lora["rate"] == alpha["rate"] == 1e-4
    assert alpha["steps"] == lora["steps"]
    assert alpha["alpha_steps"] == lora["steps"] // 10
    assert alpha["passes"] > lora["passes"]
    assert check.draw(check.finished(tmp_path)) is not None
    assert outcome.verdict in set(Verdict)


def test_paired_differences_cover_the_truth() -> None:
    """The 95 % interval holds the true difference, whether examples or seeds make most of the spread.

    Satterthwaite's degrees of freedom are an approximation: with three seeds that differ much it holds in 91 to 93 %.
    """
    draw = np.random.default_rng(0)
    for seed_spread, size in ((0.0, 500), (0.03, 500), (0.03, 4000)):
        covered, truth = 0, 2.0
        for _ in range(200):
            easy = 0.2 + 0.6 * draw.random(size)  # how hard each example is, the same for both methods and all seeds
            runs = [
                [
                    {"correct": bits(draw.random(size) < easy + shift + seed_spread * draw.standard_normal())}
                    for _ in range(3)
                ]
                for shift in (0.02, 0.0)
            ]
            low, high = paired(*runs).interval
            covered += low <= truth <= high
        assert covered >= 180, (seed_spread, size)


def study_cells(gains: Mapping[str, float], level: float = 0.8) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name in CHECK.study.cells():
        task, method, step = name.split(".", 2)
        if step.startswith("rate"):
            metrics = {"accuracy": 80.0, "loss": 0.5}
            cells[name] = {"rate": float(step[4:]), "validation": metrics, "curve": [[1, 70.0], [2, 80.0]]}
            continue
        base = np.array([float(c) for c in answers(level, seed=len(task))])
        if method == "alpha_scheduled":  # exactly so many more (or fewer) right answers
            wanted = base < 0.5 if gains[task] > 0 else base > 0.5
            flip = np.flatnonzero(wanted)[: round(abs(gains[task]) * len(base))]
            base[flip] = 1 - base[flip]
        text = "".join("01"[int(one)] for one in base)
        cells[name] = {"accuracy": 100 * base.mean(), "correct": text, "majority": 55.0}
        rate = float(step[2:].rpartition(".")[0]) if step.startswith("at") else 2e-3
        cells[name] |= {"parameters": 1000, "train_seconds": 1.0, "rate": rate}
    return cells


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ({"sst2": 0.05, "mrpc": 0.04}, Verdict.REPRODUCED),
        ({"sst2": 0.05, "mrpc": 0.0005}, Verdict.UNDECIDED),
        ({"sst2": 0.05, "mrpc": -0.04}, Verdict.NOT_REPRODUCED),
    ],
)
def test_verdicts(gains: dict[str, float], verdict: Verdict) -> None:
    cells = study_cells(gains)
    outcome = CHECK.judge(cells)
    assert outcome.verdict is verdict
    if verdict is Verdict.UNDECIDED:
        assert "so how many would decide cannot be known" in outcome.summary
    cells.pop("mrpc.alpha_scheduled.at0.008.seed4")
    assert CHECK.judge(cells).verdict is Verdict.UNDECIDED
    assert "Not complete: 119 of 120 cells" in CHECK.judge(cells).summary


def test_methods_beside_the_claim_do_not_delay_its_verdict() -> None:
    cells = study_cells({"sst2": 0.05, "mrpc": 0.04})
    cells.pop("mrpc.glora.seed2")
    outcome = CHECK.judge(cells)
    assert outcome.verdict is Verdict.REPRODUCED
    assert "Not complete: 119 of 120 cells" in outcome.summary


def test_cost_cells_come_last_and_are_not_waited_for() -> None:
    cells = list(CHECK.cells(Context(out=Path("unused"))))
    assert cells[: -len(CHECK.study.costs())] == CHECK.study.cells()
    assert cells[-1] == "cost.mrpc.glora"
    stored = study_cells({"sst2": 0.05, "mrpc": 0.04})
    cost = {"memory_mib": 20.0, "seconds": 0.1, "ratio": 1.2, "error": 0.01, "device": "cpu"}
    costs = {"cost.sst2.lora": cost, "cost.sst2.glora": cost}
    outcome = CHECK.judge(stored | costs)
    assert outcome.verdict is Verdict.REPRODUCED
    rows = {row.name: row.ours for row in outcome.rows}
    assert rows["SST2, GLoRA (A vector, B low-rank, E vector) / LoRA: time of a training step"] == 1.2
    stored.pop("mrpc.glora.seed2")
    assert "Not complete: 119 of 120 cells" in CHECK.judge(stored | costs).summary


def test_a_method_s_cost(data: Path, tmp_path: Path) -> None:
    """α-LoRA's steps on α are part of it; the base model is not."""
    figures = TinyCheck().compute(Context(out=tmp_path, data=data), "cost.sst2.alpha_scheduled")
    assert figures["parameters"] > 0
    assert 0 <= figures["memory_mib"] < 200
    assert 0.3 < figures["ratio"] < 3
    assert figures["steps"] == 8


def test_a_task_at_the_majority_class_decides_nothing() -> None:
    outcome = CHECK.judge(study_cells({"sst2": 0.05, "mrpc": 0.05}, level=0.52))
    assert outcome.verdict is Verdict.UNDECIDED
    assert "does not beat the majority class" in outcome.summary
