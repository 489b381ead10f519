"""The task on image folders: its splits, and everything that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image

from glora.tasks import make_task
from glora.tasks.base import Task
from glora.tasks.vision.image_folder import Vtab
from glora.tasks.vision.images import DataProblems
from tests.glora.pictures import picture


class TestTask:
    def test_is_a_task_by_name(self, folder):
        task = make_task("vtab", {"folder": str(folder), "model": "none", "side": 8})
        assert isinstance(task, Task)
        assert [task.size(split) for split in ("train", "validation", "train+validation", "test")] == [24, 6, 30, 10]
        task.check()

    def test_training_opens_no_test_list(self, folder, task):
        (folder / "test.txt").unlink()
        for path in (folder / "images/test").iterdir():
            path.unlink()
        task.check_splits(["train", "validation", "train+validation"])
        task.batch("train", [0])
        with pytest.raises(DataProblems, match="test"):
            task.check()

    def test_further_splits(self, folder, task):
        clean, noisy = task.batch("test", [0, 1]), task.batch("test:gaussian_noise:5", [0, 1])
        assert torch.equal(clean["labels"], noisy["labels"])
        assert not torch.equal(clean["pixel_values"], noisy["pixel_values"])
        for split in ("test:snow:3", "test:fog:9", "train:fog:1", "shift:sketch"):
            with pytest.raises(ValueError, match="split|shift"):
                task.batch(split, [0])

    def test_shifts_with_a_mapping(self, folder, tmp_path):
        for name in ("n1", "n2"):
            (tmp_path / "art" / name).mkdir(parents=True)
            Image.fromarray(picture(9)).save(tmp_path / "art" / name / "0.png")
        (tmp_path / "map.json").write_text(json.dumps({"n2": 1}))
        (tmp_path / "labels.json").write_text(json.dumps({"0": 2}))
        task = Vtab(
            folder=str(folder), model="none", side=8,
            shifts={
                "art": {"folder": str(tmp_path / "art"), "mapping": str(tmp_path / "map.json")},
                "same": str(folder),
                "part": {"folder": str(folder), "mapping": str(tmp_path / "labels.json")},
            },
        )  # fmt: skip
        assert task.batch("shift:art", [0])["labels"].tolist() == [1]
        assert task.size("shift:same") == 10
        assert task.batch("shift:part", [0, 1])["labels"].tolist() == [2, 2]

    def test_few_shot_of_a_vtab_folder(self, task):
        few = task.few(2, 0)
        assert few.size("train") == few.size("train+validation") == 6
        assert few.size("validation") == 6

    def test_test_limit_spreads_over_the_list(self, folder):
        limited = Vtab(folder=str(folder), model="none", side=8, test_limit=4)
        paths = limited.image_list("test").paths
        assert [Path(path).stem for path in paths] == ["00000", "00003", "00006", "00009"]

    def test_metrics(self, task):
        class Oracle(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = torch.nn.Parameter(torch.tensor(10.0))

            def forward(self, x):
                return self.scale * torch.eye(3)[[0] * len(x)]

        oracle = Oracle()
        got = task.metrics(oracle, "test", batch_size=3)
        assert got["accuracy"] == pytest.approx(40.0)
        assert oracle.training
        batch = task.batch("test", range(4))
        assert task.correct(oracle, batch).tolist() == [True, False, False, True]
        assert task.weight(batch) == 4

    def test_class_count_mismatch(self, folder):
        with pytest.raises(DataProblems, match="out of range for 2 classes"):
            Vtab(folder=str(folder), model="none", side=8, classes=2).check()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"layout": "zip"}, "layout"),
            ({"layout": "few_shot"}, "needs shots"),
            ({"layout": "folders", "shots": 1}, "shots works"),
            ({"test_limit": 0}, "test_limit"),
            ({"side": -1}, "side"),
        ],
    )
    def test_impossible_options(self, fields, message):
        with pytest.raises(ValueError, match=message):
            Vtab(**{"folder": "x", "model": "y", **fields})

    def test_class_folder_layout(self, tmp_path):
        for split in ("train", "val", "test"):
            for label in ("a", "b"):
                (tmp_path / split / label).mkdir(parents=True)
                Image.fromarray(picture(len(label))).save(tmp_path / split / label / "0.png")
        task = Vtab(folder=str(tmp_path), model="none", layout="folders", side=8)
        task.check()
        assert task.class_number == 2
        assert task.size("train+validation") == 4
