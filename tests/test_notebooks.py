"""Every notebook runs in its fast mode, and is paired with an executed .ipynb."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent / "notebooks"
SOURCES = sorted(HERE.glob("[0-9]*.py"))


@pytest.mark.filterwarnings("default")  # the kernel machinery warns for itself; the kernel has filters of its own
@pytest.mark.parametrize(
    "source",  # each takes a kernel and half a minute: one of theory and one of layers run always, all in `make test-all`
    [
        pytest.param(path, id=path.stem, marks=() if path.stem[:2] in ("03", "07") else pytest.mark.whole)
        for path in SOURCES
    ],
)
@pytest.mark.slow
def test_notebook_runs(source):
    for module in ("jupytext", "nbclient", "ipykernel", "ipywidgets"):
        pytest.importorskip(module)
    spec = importlib.util.spec_from_file_location("build", HERE / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.main([source.stem, "--fast"]) == 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_is_paired(source):
    import json

    notebook = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in code), "run `make notebooks`"
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
