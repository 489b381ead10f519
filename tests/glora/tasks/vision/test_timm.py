"""timm's ViT, whose query, key and value are one layer, is adapted like any other; skipped without timm."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.mark.whole
@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm")
def test_a_timm_vit_is_adapted_and_merged() -> None:
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("timm_vit.py"))],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    block = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    assert found["layers"] == [f"backbone.blocks.{number}.{name}" for number in range(2) for name in block]
    assert found["shapes"][:2] == [[3 * 192, 192], [192, 192]]
    assert found["drop_path"] == pytest.approx(0.1)
    assert found["identity"] == 0
    assert found["moved"] > 0.05
    assert max(found["merged"], found["in_place"]) < 1e-5
