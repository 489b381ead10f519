"""What can be wrong between the lists of one image task: class numbers, overlaps, shots, shifts, damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from glora.tasks.vision.image_folder import Vtab
from glora.tasks.vision.images import DataProblems
from glora.tasks.vision.lists import write_vtab
from tests.glora.pictures import picture, write_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "set")


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


class TestOverlap:
    def test_between_lists_that_are_opened_one_by_one(self, folder: Path) -> None:
        test, validation = ((folder / f"{name}.txt").read_text() for name in ("test", "val200"))
        for name in ("train800", "train800val200"):
            path = folder / f"{name}.txt"
            path.write_text(path.read_text() + test.replace("images/", "./images/", 2))
        (folder / "train800.txt").write_text((folder / "train800.txt").read_text() + validation.splitlines()[0])
        text = problems(task(folder))
        assert "1 images are in both train and validation" in text
        assert "10 images are in both train and test" in text
        assert "10 images are in both train+validation and test" in text
        assert "validation and test" not in text.replace("train+validation", "")
        with pytest.raises(DataProblems, match="train and validation"):
            task(folder).check_splits(["train", "validation"])

    def test_choosing_on_the_test_list(self, folder: Path) -> None:
        (folder / "val200.txt").write_text((folder / "test.txt").read_text())
        assert "10 images are in both validation and test" in problems(task(folder))

    def test_the_final_list_is_the_other_two(self, folder: Path) -> None:
        path = folder / "train800val200.txt"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([f"{lines[0][:-1]}1", *lines[2:]]) + "\n")
        text = problems(task(folder))
        assert "train800val200.txt is not set/train800.txt and set/val200.txt together: 1 images are missing" in text
        assert "0 are in it alone, 1 have another label" in text
        task(folder, shots=2).check()  # does not use that list

    def test_few_shot_lists(self, folder: Path) -> None:
        write_few_shot(folder, validation=range(2, 30))
        assert "1 images are in both train and validation" in problems(task(folder, layout="few_shot", shots=1))

    def test_no_image_is_opened_for_it(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = task(folder)
        made.check_splits(["train"])
        monkeypatch.setattr(Image, "open", lambda path: pytest.fail(f"{path} was opened"))
        lists = {split: made.image_list(split) for split in ("train", "validation", "train+validation", "test")}
        assert made._between_lists(lists) == []


def test_the_final_few_shot_training_has_the_shots_alone(folder: Path) -> None:
    write_few_shot(folder, validation=range(3, 30))
    listed, drawn = task(folder, layout="few_shot", shots=1), task(folder, shots=1)
    listed.check()
    assert [made.size("train+validation") for made in (listed, drawn)] == [3, 3]
    assert listed.image_list("train+validation") == listed.image_list("train")
    assert listed.size("validation") == 27


def write_few_shot(folder: Path, validation: range) -> None:
    """One shot of three classes, in NOAH's layout and with both its conventions for paths."""
    notes = folder / "annotations"
    notes.mkdir()
    train = "".join(f"train/{i:05d}.png {i % 3}\n" for i in range(3))
    (notes / "train_meta.list.num_shot_1.seed_0").write_text(train)
    (notes / "val_meta.list").write_text("".join(f"images/train/{i:05d}.png {i % 3}\n" for i in validation))
    (notes / "test_meta.list").write_text("images/test/00000.png 0\n")


class TestShifts:
    @pytest.mark.parametrize("shifts", ["a", 3, {"a": 3}, {"a": {"mapping": "m"}}, {"a": {"folder": "x", "map": "m"}},
                                        {"a": {"folder": 3}}])  # fmt: skip
    def test_shapes(self, folder: Path, shifts: Any) -> None:
        with pytest.raises(ValueError, match="shifts"):
            task(folder, shifts=shifts)

    def test_every_problem_is_found_before_training(self, folder: Path, tmp_path: Path) -> None:
        def mapping(name: str, content: str) -> dict[str, str]:
            (tmp_path / name).write_text(content)
            return {"folder": str(folder), "mapping": str(tmp_path / name)}

        text = problems(
            task(
                folder,
                shifts={
                    "high": mapping("high.json", json.dumps({"0": 7})),
                    "list": mapping("list.json", "[1]"),
                    "names": mapping("names.json", json.dumps({"a": 1})),
                    "none": mapping("none.json", json.dumps({"8": 1})),
                    "broken": mapping("broken.json", "{"),
                    "lost": {"folder": str(folder), "mapping": "nowhere.json"},
                    "nowhere": "nowhere",
                    "strange": str(folders(tmp_path, strange="ax") / "strange"),
                },
            )
        )
        for line in (
            "labels up to 7, but the task has 3 classes", "the mapping must be an object", "has the key 'a'",
            "holds none of the labels", "is no JSON file", "no such mapping", "holds no class folder",
            "x/ is none of the 3 known classes (a, b, c)",
        ):  # fmt: skip
            assert line in text
        assert text.count("shift:") == 8

    def test_a_damaged_image(self, folder: Path, tmp_path: Path) -> None:
        art = folders(tmp_path, art="ab") / "art"
        (art / "b" / "art.png").write_bytes(b"no image")
        assert "shift:art: " in problems(task(folder, shifts={"art": str(art)}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": 3}, "folder must be a text"),
        ({"model": None}, "model must be a text"),
        ({"augment": "no"}, "augment must be true or false"),
        ({"list_seed": -1}, "list_seed"),
        ({"list_seed": "a"}, "list_seed"),
        ({"side": "56"}, "side"),
    ],
)
def test_options_of_the_wrong_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vtab(**{"folder": "x", "model": "y", **options})


def test_all_damaged_files_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Pillow raises on a file, the file is listed with the others."""
    path = folder / "images/train/00001.png"
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"IHDR") + 8] ^= 1  # a PNG chunk with a wrong checksum: SyntaxError
    path.write_bytes(damaged)
    Image.fromarray(picture(0, 64)).save(folder / "images/train/00002.png")
    raised = {"00003.png": ValueError("bad value"), "00004.png": IndexError("index")}
    plain = Image.open

    def opened(file: Path, formats: Any = None) -> Any:
        if file.name in raised:
            raise raised[file.name]
        return plain(file, formats=formats)

    monkeypatch.setattr(Image, "open", opened)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    text = problems(task(folder))
    for name, error in (("00001", ""), ("00002", "DecompressionBombError"), ("00003", "ValueError: bad value"),
                        ("00004", "IndexError")):  # fmt: skip
        assert f"{name}.png: unreadable ({error}" in text
    assert len(text.splitlines()) == 6  # two names are in test, too


@pytest.mark.parametrize("label", [-1, 3, 1.5, "a", True])
def test_the_writer_checks_labels(tmp_path: Path, label: Any) -> None:
    with pytest.raises(ValueError, match="1 labels are no whole numbers below 3"):
        write_vtab(
            tmp_path / "set", [(picture(0), 0), (picture(1), label)], [], validation=1, class_names=["a", "b", "c"]
        )
    assert list(tmp_path.iterdir()) == []
    write_vtab(tmp_path / "set", [(picture(0), np.int64(0)), (picture(1), 7)], [], validation=1)


def test_class_folders_may_do_without_a_test(tmp_path: Path) -> None:
    made = task(folders(tmp_path, train="ab", val="ab"), layout="folders")
    made.check()
    assert not made.has_test
    with pytest.raises(DataProblems, match="test/ is missing"):
        made.image_list("test")
    assert "val/ is missing" in problems(task(folders(tmp_path / "other", train="ab", test="ab"), layout="folders"))


def test_one_class_and_labels_from_one_are_named(tmp_path: Path) -> None:
    one = task(folders(tmp_path / "one", train="a", val="a", test="a"), layout="folders")
    assert "every image has label 0" in problems(one)
    root = write_pictures(tmp_path / "set")
    for path in set(root.glob("*.txt")) - {root / "classes.txt"}:
        lines = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(f"{name} {int(label) + 1}\n" for name, label in lines))
    assert "labels count from 0" in problems(task(root, classes=30))


def test_repeated_lines_and_classes_without_training_images_are_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "set")
    lines = (root / "train800.txt").read_text().splitlines()
    last = max(lines, key=lambda line: int(line.split()[-1])).split()[-1]
    kept = [line for line in lines if line.split()[-1] != last]
    (root / "train800.txt").write_text("\n".join([*kept, kept[0]]) + "\n", encoding="utf-8-sig")
    validation = (root / "val200.txt").read_text().splitlines()
    (root / "train800val200.txt").write_text("\n".join(kept + validation) + "\n")
    with pytest.warns(UserWarning, match="look at the data before you train") as caught:
        task(root).check()
    text = str(caught[0].message)
    assert f"1 of {len(kept) + 1} lines repeat another line" in text
    assert f"no training image is of class {last}" in text
