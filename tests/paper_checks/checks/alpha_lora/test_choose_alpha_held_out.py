"""The rule says both yes and no; one draw of a task has every column."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
from paper_checks.checks.alpha_lora import choose_alpha_held_out as held_out
from paper_checks.core import Context, Verdict

COLUMNS = ("auto", "oracle", *held_out.RIVALS)


def cells():
    def one(n):
        return {
            "n": n,
            "mean": dict(zip(COLUMNS, (80.0, 81.0, 70.0, 75.0, 77.0, 76.0), strict=True)),
            "error": {"auto": [0.5] * 4, "oracle": [0.5] * 4},
            "predicted": 81.0,
            "covered": 0.95,
            "plainly_covered": 0.9,
        }

    each = {f"task, source {k}, n = {n}": one(n) for n in held_out.SIZES for k in range(6)}
    return {name: {"cells": copy.deepcopy(each)} for name in held_out.OPEN + held_out.CLOSED}


def bend(figures, column, value):
    if column in COLUMNS:
        figures["mean"][column] = value
    else:
        figures[column] = value


@pytest.mark.parametrize(
    ("count", "column", "value"),
    [(2, "source", 82.5), (1, "source", 86.5), (6, "predicted", 95.0), (6, "covered", 0.3), (6, "covered", 1.0)],
)
def test_the_rule(count, column, value):
    figures = cells()
    judge = held_out.CHECK.judge
    assert judge(figures).verdict == Verdict.REPRODUCED
    for cell in figures["digits"]["cells"].values():  # an open set decides nothing
        bend(cell, column, value)
    assert judge(figures).verdict == Verdict.REPRODUCED
    for name in held_out.CLOSED:
        for cell in list(figures[name]["cells"].values())[:count]:
            bend(cell, column, value)
    outcome = judge(figures)
    assert outcome.verdict == Verdict.NOT_REPRODUCED
    assert outcome.summary.endswith(".")
    assert "% of cells below" in held_out.CHECK.number(outcome)


def test_one_draw():
    task = next(held_out._tasks(Context(out=Path("unused")), "digits"))
    sources = held_out._sources(task, np.random.default_rng(0))
    assert set(sources) == {"good", "weak", "related", "useless", "turned"}
    rows = next(held_out._splits(task.y, 0, 20, 1, even=False))
    found = held_out._draw(task, sources, rows)
    assert found["good"]["source"] > 90.0 > 10.0 > found["turned"]["source"]
    assert found["turned"]["auto"] > 70.0
    figures = held_out._summary([found["weak"], found["weak"]])
    assert figures["mean"]["oracle"] >= figures["mean"]["α = 1"] - 20.0
    assert figures["error"]["auto"].tolist() == [0.0] * 4
