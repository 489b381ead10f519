"""Every rule can say yes and no: studies simulated under both hypotheses, at the size of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from paper_checks.core import COMMITTED, Context, Verdict, all_checks
from paper_checks.statistics.answers import bits, pack

pytest.importorskip("torch")
CHECKS = all_checks()
STUDIES = 5  #: simulated ones a hypothesis
Draw = np.random.Generator
Cells = dict[str, Any]


def coins(draw: Draw, hard: Any, gain: float) -> Any:
    """Right answers of a run to examples of given difficulty; seeds differ by one point."""
    return draw.random(len(hard)) < hard + gain + 0.01 * draw.standard_normal()


def glue(draw: Draw, gain: float, name: str = "glue_fair") -> Cells:
    """α-LoRA better by ``gain`` at every rate of the curve."""
    cells: Cells = {}
    check: Any = CHECKS[f"alpha_lora.{name}"]
    hard = {task: 0.6 + 0.3 * draw.random(1500) for task in check.study.tasks}
    for name in check.study.cells():
        task, method, step = name.split(".", 2)
        if step.startswith("rate"):
            cells[name] = {"rate": float(step[4:]), "validation": {"accuracy": 75.0, "loss": 0.5}, "curve": [[1, 70.0]]}
            continue
        right = coins(draw, hard[task], gain if method == check.claimed else 0.0)
        rate = float(step[2:].rpartition(".")[0]) if step.startswith("at") else 2e-3
        cells[name] = {"accuracy": 100 * right.mean(), "correct": bits(right), "majority": 55.0, "rate": rate}
        cells[name] |= {"parameters": 1, "train_seconds": 1.0}
    return cells


def glue_balanced(draw: Draw, gain: float) -> Cells:
    cells: Cells = {}
    for task in ("mrpc", "sst2"):
        hard = 0.6 + 0.3 * draw.random(1000)
        for seed in range(3):
            for method, more in (("glora_all", gain), ("lora_all", 0.0)):
                right = coins(draw, hard, more)
                figures = {"accuracy": 100 * right.mean(), "correct": bits(right), "rate": 2e-3, "parameters": 1}
                cells[f"{task}.{method}.seed{seed}"] = figures
    return cells


def affine(draw: Draw, gain: float) -> Cells:
    from paper_checks.checks.alpha_lora.glue_affine import TESTED
    from paper_checks.studies.glue.study import AFFINE

    cells = {}
    for task in ("sst2", "mrpc"):
        hard = 0.6 + 0.3 * draw.random(3000)
        for seed in range(3):
            luck = draw.random(len(hard))  # the answers of one run to the same example
            points = [{"a": a, "b": b, "correct": bits(luck < hard - gain * ((a, b) in TESTED))} for a, b in AFFINE]
            cells[f"{task}.seed{seed}"] = {"points": points, "majority": 55.0}
    return cells


def vision(prefix: str, one: str, other: str, tasks: tuple[str, ...] = ("cifar10", "gtsrb")) -> Callable[..., Cells]:
    """``one`` better than ``other`` by ``gain``, three seeds."""

    def make(draw: Draw, gain: float) -> Cells:
        cells = {}
        for task in tasks:
            hard = 0.3 + 0.4 * draw.random(2000)
            for seed in range(3):
                for method, more in ((one, gain), (other, 0.0)):
                    right = coins(draw, hard, more)
                    clean = coins(draw, hard[:300] + 0.2, 0.0)
                    names = [f"{kind}-3" for kind in "abcde"]
                    found = {name: pack(coins(draw, hard[:300], 1.5 * more)) for name in names}
                    figures = {"right": pack(right), "accuracy": 100 * right.mean(), "parameters": 280_000, "lr": 1e-3}
                    cells[f"{prefix}-{task}-{method}-s{seed}"] = {
                        **figures,
                        "corruptions": {"clean": pack(clean), **found},
                    }
        return cells

    return make


def few_shot(draw: Draw, gain: float) -> Cells:
    cells: Cells = {}
    for shots in (1, 2, 4, 8, 16):
        for name, figures in vision("fewown", "glora_searched", "lora", ("cifar10",))(draw, gain).items():
            stem, _, seed = name.rpartition("-")
            cells[f"{stem}-k{shots}-{seed}"] = figures
    return cells


def language(draw: Draw, gain: float) -> Cells:
    from paper_checks.checks.glora.language_model import QUESTIONS

    def cell(more: float, loss: float) -> Cells:
        return {name: bits(coins(draw, np.full(550, 0.4), more)) for name in QUESTIONS} | {"loss": loss}

    runs = {f"{name}.seed{s}": cell(g, 0.9) for s in range(3) for name, g in (("lora", 0.0), ("glora", gain))}
    return {"before.all": cell(0.0, 1.0), **runs}


def digits(draw: Draw, gain: float) -> Cells:
    cells = {}
    check: Any = CHECKS["alpha_lora.digits_alpha_star"]
    for name in check.cells(None):
        sizes = [{"n": n, "alpha_star": 0.3, "best": [95.0, 0.1]} for n in (10, 40)]
        cells[name] = {"sizes": [{**s, "gain": [100 * gain + 0.05 * draw.standard_normal(), 0.05]} for s in sizes]}
    return cells


def scales(draw: Draw, gain: float) -> Cells:
    """A pattern common to seeds and tasks in the measure of ``gain`` (0 to 1), judged from its figures."""
    rho, spread = gain + 0.01 * draw.standard_normal(), 0.05
    one = {"seeds": 3, "mean": [1.0] * 3, "spread": [spread] * 3, "below_one": [0.5] * 3, "between_seeds": rho}
    one |= {"null": 0.02, "between_tasks": rho / 2, "null_tasks": 0.012}
    return {"sst2": one, "mrpc": one, "noise": {task: {"spread": 0.033} for task in ("sst2", "mrpc")}}


def variants(draw: Draw, gain: float) -> Cells:
    """Every variant better than LoRA by ``gain`` on every task, on many examples."""
    from paper_checks.checks.tuned_lora.variants import HOMES, SEEDS, run_name

    cells = {}
    for task, homes in HOMES.items():
        hard = 0.6 + 0.3 * draw.random(20_000)
        for seed in range(SEEDS):
            luck = draw.random(len(hard))
            for method in homes:
                right = luck < hard + gain * (method != "lora") + 0.0003 * draw.standard_normal()
                language = "." in run_name(task, method, seed)
                cells[run_name(task, method, seed)] = {"correct": bits(right)} if language else {"right": pack(right)}
    return cells


def scaling(draw: Draw, loss: float) -> Cells:
    """All methods lose ``loss`` points by the source's scaling."""
    from paper_checks.checks.alpha_lora.source_scaling import METHODS

    cells = {}
    for pair in CHECKS["alpha_lora.source_scaling"].cells(Context(out=COMMITTED)):
        base = 60 + 5 * np.arange(len(METHODS)) + draw.standard_normal()
        own = {name: list(level + draw.standard_normal(30)) for name, level in zip(METHODS, base, strict=True)}
        cells[pair] = {"own": own, "source": {name: list(np.array(some) - loss) for name, some in own.items()}}
    return cells


def leak(draw: Draw, gain: float) -> Cells:
    cells = vision("final", "a", "b")(draw, 0.0)
    return {
        f"supernet-{task}-s{seed}": {
            "config": {},
            "inherited": cells[f"final-{task}-a-s{seed}"],
            "search": {
                "validation_accuracy": cells[f"final-{task}-a-s{seed}"]["accuracy"] + 100 * gain + draw.normal()
            },
        }
        for task in ("cifar10", "gtsrb")
        for seed in range(3)
    }


#: How a study is made, and what the claim and its contrary are.
SIMULATED: dict[str, tuple[Callable[[Draw, float], Cells], float, float]] = {
    "alpha_lora.glue_fair": (glue, 0.08, -0.08),
    "alpha_lora.glue_five": (partial(glue, name="glue_five"), 0.08, -0.08),
    "alpha_lora.glue_affine": (affine, 0.07, 0.0),
    "alpha_lora.glue_alpha": (scales, 0.6, 0.07),
    "alpha_lora.digits_alpha_star": (digits, 0.01, -0.01),
    "glora.glue_balanced": (glue_balanced, 0.08, -0.08),
    "glora.vtab": (vision("final", "glora_searched", "lora"), 0.07, -0.07),
    "glora.vtab_balanced": (vision("final", "glora_searched", "lora"), 0.07, -0.07),
    "glora.vtab_corruptions": (vision("final", "glora_searched", "lora"), 0.08, -0.08),
    "glora.vtab_fewshot": (few_shot, 0.07, -0.07),
    "glora.vtab_search": (vision("own", "glora_searched", "glora_random"), 0.07, -0.07),
    "glora.vtab_corruptions_balanced": (vision("final", "glora_searched", "lora"), 0.08, -0.08),
    "glora.vtab_fewshot_balanced": (few_shot, 0.07, -0.07),
    "glora.vtab_search_balanced": (vision("own", "glora_searched", "glora_random"), 0.07, -0.07),
    "glora.vtab_leak": (leak, 0.07, -0.07),
    "glora.language_model": (language, 0.09, -0.09),
    "alpha_lora.source_scaling": (scaling, 3.0, 0.2),
    "tuned_lora.variants": (variants, 0.0, -0.05),
}
#: Rules that the tests of their own modules bend to yes and to no: formulas, counts, and the studies named there.
BENT = {
    "test_verdicts.py": "arbitrary_source several_sources beyond ridge_source figure1 figure2 histograms regression regularisation table1 figure3 "
    "digits choose_alpha real_curves",
    "test_choose_alpha_held_out.py": "choose_alpha_held_out",
    "test_universality.py": "universality",
    "test_best_start.py": "best_start",
    "test_suggested_alpha.py": "suggested_alpha",
    "test_glue_analyses.py": "glue_sensitivity",
    "test_alpha_overhead.py": "alpha_overhead",
    "test_steps.py": "steps one_rate vtab_layers_balanced",
    "test_study.py": "vtab_layers vtab_merging vtab_paper vtab_gpu",
    "test_comparison.py": "glue_recipe glue_full",
    "test_layer_claims.py": "hypothesis_class merging parameter_counts special_cases",
}


@pytest.mark.parametrize("name", SIMULATED)
def test_a_simulated_study_is_judged_rightly(name: str) -> None:
    make, true, false = SIMULATED[name]
    said = {True: 0, False: 0}
    for number in range(STUDIES):
        for holds in (True, False):
            cells = make(np.random.default_rng([number, holds]), true if holds else false)
            wanted = Verdict.REPRODUCED if holds else Verdict.NOT_REPRODUCED
            said[holds] += CHECKS[name].judge(cells).verdict is wanted
    assert said[True] >= STUDIES - 1, said
    assert said[False] >= STUDIES - 1, said


@pytest.mark.parametrize(("errors", "wanted"), [(3.0, Verdict.REPRODUCED), (1.0, Verdict.UNDECIDED)])
def test_a_task_near_the_majority_class_decides_nothing(errors: float, wanted: Verdict) -> None:
    cells = glue(np.random.default_rng(0), 0.08)
    for task in CHECKS["alpha_lora.glue_fair"].study.tasks:  # type: ignore[attr-defined]
        runs: dict[str, list[Any]] = {}
        for name, figures in cells.items():
            if name.startswith(f"{task}.") and "correct" in figures:
                runs.setdefault(name.rpartition(".seed")[0], []).append(figures)
        best = max(float(np.mean([one["accuracy"] for one in some])) for some in runs.values())
        error = 100 * (best / 100 * (1 - best / 100) / 1500) ** 0.5
        for figures in (one for some in runs.values() for one in some):
            figures["majority"] = best - errors * error
    assert CHECKS["alpha_lora.glue_fair"].judge(cells).verdict is wanted


def test_every_rule_is_covered() -> None:
    bent = {name for names in BENT.values() for name in names.split()}
    assert {check.split(".")[1] for check in CHECKS} == bent | {check.split(".")[1] for check in SIMULATED}
