"""What the code before steps wrote loads, resumes and evaluates as it did then: see fixtures/v1/write.py."""

# ruff: noqa: E402
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

for module in ("accelerate", "safetensors"):
    pytest.importorskip(module)

import glora
from tests.glora.fixtures.v1 import scenes
from tests.glora.models import tiny_vit

FOLDER = Path(scenes.__file__).parent
FIGURES = json.loads((FOLDER / "figures.json").read_text())
#: Another torch or another kind of CPU may round a product otherwise.
SAME_BITS = FIGURES["torch"] == torch.__version__ and FIGURES["cpu"] == torch.backends.cpu.get_cpu_capability()


def assert_alike(found: Any, wanted: Any) -> None:
    """Equal where this machine rounds as the one that wrote the fixtures, else close."""
    if SAME_BITS:
        assert found == wanted
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_alike(found[key], wanted[key])
    elif isinstance(wanted, list):
        for one, other in zip(found, wanted, strict=True):
            assert_alike(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", scenes.ADAPTERS)
def test_an_adapter(name: str) -> None:
    model = tiny_vit(seed=3, dim=8, depth=2)
    glora.load(model, FOLDER / name)
    found, wanted = scenes.figures_of(model), FIGURES["adapters"][name]
    assert found["tensors"] == wanted["tensors"]  # read, not computed: the same bits everywhere
    for key in ("outputs", "merged", "alphas"):
        assert_alike(found[key], wanted[key])


@pytest.mark.filterwarnings("ignore:.*without a digest:UserWarning")
@pytest.mark.parametrize("name", [*scenes.RUNS, *scenes.SEARCHES])
def test_a_half_done_run(tmp_path: Path, name: str) -> None:
    shutil.copytree(FOLDER / name, tmp_path / name)
    found, wanted = scenes.finish(tmp_path / name, name), dict(FIGURES[name])
    if not SAME_BITS:  # a digest tells nothing then
        found.pop("tensors"), wanted.pop("tensors")
    assert_alike(json.loads(json.dumps(found)), wanted)
