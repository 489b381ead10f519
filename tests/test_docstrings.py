"""Examples in docstrings run and print what they say; every public name of rmt, and glora's main ones, has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import glora
import rmt

ROOT = Path(__file__).parent.parent


def modules_with_examples() -> list[str]:
    found = []
    for path in sorted([*(ROOT / "rmt").rglob("*.py"), *(ROOT / "glora").rglob("*.py")]):
        examples = re.findall(r"^\s*>>> .*", path.read_text(encoding="utf-8"), re.M)
        if any("+SKIP" not in line for line in examples):
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_say_what_comes_out(module, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(module), report=False, verbose=False)
    assert not found.failed, "see the output"
    assert found.attempted


@pytest.mark.parametrize("package", [rmt, glora], ids=["rmt", "glora"])
def test_every_public_name_has_an_example(package):
    names = set(package.__all__) - {"presets"}  # a module
    bare = {name for name in names if ">>>" not in (inspect.getdoc(getattr(package, name)) or "")}
    assert not bare
