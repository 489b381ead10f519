"""What a method costs is its own: not the process's that asks, not the library's, not the base model's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("accelerate")

from paper_checks.core import Context, NotAvailable
from paper_checks.studies import cost
from tests.paper_checks.costed import WIDE, Costed


def test_peak_and_ratio_are_the_methods_own(tmp_path):
    held = np.ones(2**26)  # 512 MiB that must not show up in the measuring process
    context = Context(out=tmp_path)
    wide = cost.measure(Costed(), context, "wide")
    del held
    states = 4 * 4 * WIDE**2 / 2**20
    assert wide["parameters"] == 72 + 8 * WIDE + WIDE**2
    # Weights, gradient and two moments stay; weighting, clipping and AdamW take a few of their size on the way.
    assert 0.95 * states <= wide["memory_mib"] <= 2.25 * states
    assert wide["base_mib"] < 500
    assert wide["ratio"] > 2
    assert wide["device"] == "cpu"
    # Every step saw the four longest examples of everything there is to train on.
    assert set((tmp_path / "diary.txt").read_text().splitlines()[1:]) == {"train+validation [36, 37, 38, 39]"}


def test_what_is_missing_is_said_and_failures_are_shown(tmp_path):
    with pytest.raises(NotAvailable, match="the moon"):
        cost.measure(Costed(), Context(out=tmp_path), "absent")
    with pytest.raises(RuntimeError, match="No such file"):
        cost.measure(Costed(), Context(out=tmp_path / "nowhere"), "lora")


def test_rows():
    figures = {"memory_mib": 20.0, "seconds": 0.1, "ratio": 1.0, "error": 0.01, "device": "cpu"}
    costs = {"lora": figures, "ssf": {**figures, "memory_mib": 30.0, "ratio": 1.2, "device": "a card"}}
    rows = {row.name: row for row in cost.rows(costs, str.upper)}
    assert rows["SSF / LoRA: training memory"].ours == 1.5
    assert rows["SSF / LoRA: time of a training step"].ours == 1.2
    assert "LORA: CPU seconds a training step" in rows
    assert "SSF: GPU seconds a training step" in rows
    assert not any(name.startswith("LORA / LoRA") for name in rows)
    alone = {row.name for row in cost.rows({"ssf": figures}, str)}
    assert "ssf / LoRA: training memory" not in alone
