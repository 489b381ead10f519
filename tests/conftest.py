"""Shared fixtures: where the real data lie, if they do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with ``data/`` and ``models/``; tests that need it are skipped without it."""
    folder = os.environ.get("ADAPT_SHARED", "")
    if not folder or not Path(folder, "data").is_dir():
        pytest.skip("needs real data: set ADAPT_SHARED to the folder that holds data/ and models/")
    return Path(folder)
