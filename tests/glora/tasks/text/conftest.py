"""A small set of reviews in SST-2's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from paper_checks.demo.tiny_text import save_reviews


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reviews(tmp_path_factory.mktemp("sst2"), train=20, test=8)
