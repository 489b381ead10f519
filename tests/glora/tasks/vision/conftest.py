"""A small image task in the VTAB-1K layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from glora.tasks.vision.image_folder import Vtab
from tests.glora.pictures import write_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "set")


@pytest.fixture
def task(folder: Path) -> Vtab:
    return Vtab(folder=str(folder), model="none", side=8)
