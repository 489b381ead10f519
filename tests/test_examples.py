"""The scripts in `examples/` are short and run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SAYS = {
    "adapt_save_merge": "merged, differs by",
    "one_rate": "proved   merged = unmerged",
    "own_features": "accuracy on fresh samples 0.",
    "predict_and_simulate": "best scale 1.838",
    "read_a_verdict": "corrected: ",
}


def test_there_are_five():
    assert [path.stem for path in SCRIPTS] == sorted(SAYS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_runs(script, capsys, monkeypatch, tmp_path):
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    assert SAYS[script.stem] in capsys.readouterr().out
