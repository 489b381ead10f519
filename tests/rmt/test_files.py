"""Atomic files: whole or absent."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rmt._files import read_json, to_plain, write_atomic, write_json


def test_round_trip_with_numpy_and_infinities(tmp_path):
    path = write_json(tmp_path / "deep" / "x.json", {"a": np.array([1.0, np.inf]), 2: (np.int64(3), float("nan"))})
    assert read_json(path) == {"a": [1.0, "inf"], "2": [3, "nan"]}
    assert to_plain(np.float64(2.0)) == 2.0


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "x", "old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="missing.json' does not exist"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="bad.json' is not valid JSON"):
        read_json(tmp_path / "bad.json")
