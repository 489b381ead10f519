"""The package's face: complete, and nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import glora


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_every_export_resolves():
    assert sorted(glora.__all__) == sorted([*glora._HOME, "presets"])
    for name in glora.__all__:
        assert getattr(glora, name) is not None
    assert set(glora.__all__) <= set(dir(glora))
    assert glora.__version__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        glora.nonsense  # noqa: B018


def test_help_and_run_files_wait_for_no_library():
    code = (
        "import sys, glora, glora.cli.commands; glora.GLoRAConfig(); glora.presets.lora(4)\n"
        "from glora.runs.config import read; read('pkg:glue_mrpc')\n"
        "glora.cli.commands.build_parser().format_help()\n"
        "print([m for m in ('torch', 'numpy', 'transformers', 'pydantic') if m in sys.modules])"
    )
    assert python(code) == "[]"
