"""Own pictures: folders, tables, parts, copies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from glora.tasks import make_task
from glora.tasks.base import Task
from glora.tasks.own.images import Images
from glora.tasks.vision.images import DataProblems
from tests.glora.pictures import picture

CLASSES = ("lily", "rose", "tulip")


def fill(folder: Path, count: int = 30, first: int = 0) -> Path:
    """So many pictures in a folder a class."""
    for i in range(first, first + count):
        place = folder / CLASSES[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i)).save(place / f"{i}.png")
    return folder


def task(**options: Any) -> Images:
    found = make_task("images", {"model": "none", "side": 8, **options})
    assert isinstance(found, Images)
    return found


def sizes(own: Images) -> dict[str, int]:
    splits = ("train", "validation", "train+validation", "test")
    return {split: own.size(split) for split in splits if split != "test" or own.has_test}


def test_class_folders_alone_are_cut(tmp_path: Path) -> None:
    own = task(folder=str(fill(tmp_path / "f")))
    assert isinstance(own, Task)
    own.check()
    assert own.class_names == CLASSES
    assert sizes(own) == {"train": 18, "validation": 6, "train+validation": 24, "test": 6}
    assert sorted(own.image_list("test").labels) == [0, 0, 1, 1, 2, 2]
    other = task(folder=str(tmp_path / "f"), split={"seed": 1, "test": 0.1})
    assert sizes(other)["test"] == 3
    assert task(folder=str(tmp_path / "f")).image_list("test") == own.image_list("test")


def test_folders_with_parts_keep_them_and_lack_what_they_lack(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    own = task(folder=str(tmp_path))
    own.check()
    assert sizes(own) == {"train": 24, "validation": 6, "train+validation": 30}
    with pytest.raises(DataProblems, match=r"there is no test part; give task.split = \{test = 0.2\}"):
        own.size("test")
    fill(tmp_path / "valid", 9, 100)
    fill(tmp_path / "test", 6, 200)
    assert sizes(task(folder=str(tmp_path))) == {"train": 30, "validation": 9, "train+validation": 39, "test": 6}


def test_a_table_of_paths(tmp_path: Path) -> None:
    folder = fill(tmp_path / "f")
    lines = [f"f/{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    own = task(layout="csv", file=str(tmp_path / "list.csv"))
    own.check()
    assert own.class_names == CLASSES
    assert sizes(own)["test"] == 6
    away = tmp_path / "away.csv"
    away.write_text("path,label\n" + "\n".join(lines[:-1]) + f"\n{tmp_path}/{lines[-1]}\n")
    with pytest.raises(DataProblems, match="1 paths leave the folder.*outside = true allows it"):
        task(layout="csv", file=str(away)).check()
    task(layout="csv", file=str(away), outside=True).check()
    away.write_text("path,label\nf/lily/0.png,\n")
    with pytest.raises(DataProblems, match="row 1 has no label"):
        task(layout="csv", file=str(away)).check()


def test_copies_of_a_picture_stay_together(tmp_path: Path) -> None:
    folder = fill(tmp_path / "f", 60)
    for i in range(0, 60, 3):
        shutil.copy(folder / "lily" / f"{i}.png", folder / "lily" / f"copy{i}.png")
    own = task(folder=str(folder), split={"validation": 0.3, "test": 0.3})
    for split in ("train", "validation", "test"):
        names = {Path(path).name for path in own.image_list(split).paths if "lily" in path}
        assert {f"copy{name}" for name in names if "copy" not in name} == {name for name in names if "copy" in name}


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "f")
    (folder / "rose" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataProblems, match=r"rose/bad.png: unreadable"):
        task(folder=str(folder)).check()
    (folder / "empty").mkdir()
    with pytest.raises(DataProblems, match="empty/ holds no image"):
        task(folder=str(folder)).check()
    for options, message in (
        ({"layout": "list"}, "task.layout must be one of folders, csv, dataset"),
        ({"layout": "csv"}, "task.file belongs to task.layout='csv', and that needs it"),
        ({}, "needs task.folder"),
        ({"folder": "f", "label": "x"}, "folders have none"),
        ({"folder": "f", "shots": 2}, "cut a smaller part with task.split"),
        ({"folder": "f", "split": {"dev": 0.1}}, "unknown keys"),
    ):
        with pytest.raises(ValueError, match=message):
            task(**options)
    with pytest.raises(DataProblems, match="no such folder"):
        task(folder=str(tmp_path / "nowhere")).check()


def test_data_sets_on_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = {"image": [Image.fromarray(picture(i)) for i in range(30)], "label": [i % 3 for i in range(30)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=[*CLASSES])})
    datasets.Dataset.from_dict(table, features=features).save_to_disk(str(tmp_path / "d"))
    own = task(layout="dataset", folder=str(tmp_path / "d"))
    own.check()
    assert own.class_names == CLASSES
    assert sizes(own)["test"] == 6
    folders = task(folder=str(fill(tmp_path / "f")))
    assert own.batch("test", [0])["pixel_values"].shape == folders.batch("test", [0])["pixel_values"].shape
