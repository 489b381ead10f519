"""What can be wrong between the lists of one image task: class numbers, overlaps, shots, shifts, damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from glora.tasks.image_lists import write_vtab
from glora.tasks.images import DataProblems
from glora.tasks.vtab import Vtab


def picture(number: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train = [(picture(i), i % 3) for i in range(30)]
    test = [(picture(100 + i), i % 3) for i in range(9)]
    return write_vtab(tmp_path / "set", train, test, validation=6, class_names=["a", "b", "c"])


def task(folder: Path, **options: Any) -> Vtab:
    return Vtab(folder=str(folder), model="none", side=8, **options)


def folders(root: Path, **splits: str) -> Path:
    """Class folders of one image each: ``train="abc"``."""
    for split, names in splits.items():
        for name in names:
            (root / split / name).mkdir(parents=True)
            Image.fromarray(picture(ord(name))).save(root / split / name / f"{split}.png")
    return root


def problems(made: Vtab) -> str:
    with pytest.raises(DataProblems) as caught:
        made.check()
    return "\n".join(caught.value.problems)


class TestClassNumbers:
    def test_one_numbering_for_all_splits_and_shifts(self, tmp_path: Path) -> None:
        root = folders(tmp_path / "set", train="abc", val="ac", test="bc")
        made = task(root, layout="folders", shifts={"art": str(folders(tmp_path, art="bc") / "art")})
        made.check()
        labels = {split: made.image_list(split).labels for split in ("train", "validation", "test", "shift:art")}
        assert labels == {"train": (0, 1, 2), "validation": (0, 2), "test": (1, 2), "shift:art": (1, 2)}
        assert made.image_list("train+validation").labels == (0, 1, 2, 0, 2)

    def test_an_unknown_folder_is_a_problem(self, tmp_path: Path) -> None:
        text = problems(task(folders(tmp_path, train="abc", val="ad", test="ae"), layout="folders"))
        assert "d/ is none of the 3 known classes (a, b, c)" in text
        assert "e/ is none of the 3 known classes" in text

    def test_class_folders_as_a_shift_of_a_list(self, folder: Path, tmp_path: Path) -> None:
        shifts = {"art": str(folders(tmp_path, art="bc") / "art")}
        assert task(folder, shifts=shifts).image_list("shift:art").labels == (1, 2)
        (folder / "classes.txt").unlink()
        with pytest.raises(DataProblems, match="2 class folders for 3 classes"):
            task(folder, shifts=shifts).image_list("shift:art")
        whole = {"art": str(folders(tmp_path / "whole", art="xyz") / "art")}
        assert task(folder, shifts=whole).image_list("shift:art").labels == (0, 1, 2)
