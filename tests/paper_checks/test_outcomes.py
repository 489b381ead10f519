"""Verdict and figures of every check, from the committed cells, are those on record.

The record says what a change of the code must not change. After a change of the cells or of a rule, renew it by
``python -m tests.paper_checks.test_outcomes`` and look at its difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paper_checks.core import RENAMED, all_checks
from rmt._files import to_plain

RECORD = Path(__file__).with_name("outcomes.json")


def outcomes() -> dict[str, dict[str, Any]]:
    """Verdict, and rows as [name, paper, ours, error], by id."""
    found = {}
    for name, check in all_checks().items():
        outcome = check.recall()
        rows = [[row.name, row.paper, row.ours, row.error] for row in outcome.rows]
        found[name] = {"verdict": str(outcome.verdict), "rows": rows}
    return json.loads(json.dumps(to_plain(found)))


def test_every_outcome_is_the_recorded_one():
    pytest.importorskip("torch")  # without it some checks cannot be imported
    recorded, found = json.loads(RECORD.read_text(encoding="utf-8")), outcomes()
    recorded = {RENAMED.get(name, name): outcome for name, outcome in recorded.items()}
    assert set(found) == set(recorded)
    for name, outcome in found.items():
        assert outcome["verdict"] == recorded[name]["verdict"], name
        assert len(outcome["rows"]) == len(recorded[name]["rows"]), name
        for mine, theirs in zip(outcome["rows"], recorded[name]["rows"], strict=True):
            assert mine[:2] == theirs[:2], name
            for value, expected in zip(mine[2:], theirs[2:], strict=True):
                same = value == expected or value == pytest.approx(expected, rel=1e-9, nan_ok=True)
                assert same, f"{name}, {mine[0]}: {value} instead of {expected}"


if __name__ == "__main__":
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in outcomes().items())
    RECORD.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
