"""The table of docs/silent.md says what `benchmarks.peft_silent` measures."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("peft")
pytest.importorskip("transformers")

from benchmarks import peft_silent

PAGE = (Path(__file__).parents[2] / "docs" / "silent.md").read_text(encoding="utf-8").splitlines()
ROWS = {
    line.split(" | ")[0].removeprefix("| "): line.removesuffix(" |").split(" | ")[1:] for line in PAGE if " | " in line
}


def test_the_table_has_every_fault_and_none_is_silent_here():
    shown = [ROWS[peft_silent.label(fault)] for fault in peft_silent.FAULTS]
    assert all(here != "silent" for _, here in shown)


@pytest.mark.parametrize("fault", peft_silent.FAULTS, ids=lambda fault: fault.__name__)
def test_what_happens_here(fault):
    assert peft_silent.outcome(fault, peft_silent.Ours()) == ROWS[peft_silent.label(fault)][1]


@pytest.mark.slow
def test_what_happens_with_peft():
    found = {peft_silent.label(fault): peft_silent.outcome(fault, peft_silent.Peft()) for fault in peft_silent.FAULTS}
    assert found == {key: ROWS[key][0] for key in found}
