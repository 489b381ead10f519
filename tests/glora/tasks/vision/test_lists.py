"""Image lists on disk: the VTAB-1K layout, few-shot lists, class folders, and the writer."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from glora.tasks.vision.image_folder import Vtab
from glora.tasks.vision.images import DataProblems, ImageSet, Transform
from glora.tasks.vision.lists import VTAB_GROUPS, VTAB_TASKS, class_folders, draw_few_shot, few_shot, vtab, write_vtab
from tests.glora.pictures import picture


class TestLists:
    def test_the_nineteen_tasks(self):
        assert len(VTAB_TASKS) == 19
        counts = [list(VTAB_TASKS.values())[part] for part in VTAB_GROUPS.values()]
        assert [len(part) for part in counts] == [7, 4, 8]
        assert [sum(part) for part in counts] == [795, 62, 83]

    def test_written_folder_reads_back(self, folder):
        lists = vtab(folder, ["train800", "val200", "train800val200", "test"])
        assert [len(part) for part in lists.values()] == [24, 6, 30, 10]
        assert lists["train800"].paths + lists["val200"].paths == lists["train800val200"].paths
        images = ImageSet(lists["test"], Transform(side=12))
        assert np.array_equal(images.pixels([3])[0].numpy(), picture(103))  # png keeps every bit
        assert images.labels.tolist() == [i % 3 for i in range(10)]

    def test_writer_leaves_nothing_behind_when_it_fails(self, tmp_path):
        with pytest.raises(TypeError):
            write_vtab(tmp_path / "set", [(picture(0), 0), ("no image", 1), (picture(1), 0)], [], validation=1)
        assert list(tmp_path.iterdir()) == []

    def test_writer_refuses(self, folder):
        with pytest.raises(ValueError, match="exists"):
            write_vtab(folder, [], [])
        with pytest.raises(ValueError, match="validation"):
            write_vtab(folder.parent / "new", [(picture(0), 0)], [], validation=1)

    def test_all_problems_at_once(self, folder):
        (folder / "val200.txt").write_text("images/train/00024.png 7\nno-label\nimages/train/00000.png 0\n")
        (folder / "test.txt").write_text("")
        with pytest.raises(DataProblems) as caught:
            vtab(folder, ["train800", "val200", "test"])
        text = "\n".join(caught.value.problems)
        assert "val200.txt:1: label 7 is out of range for 3 classes" in text
        assert "val200.txt:2: expected" in text
        assert "test.txt: the list holds no image" in text
        assert "1 images are in both train800 and val200" in text
        assert len(caught.value.problems) == 4

    def test_missing_and_unreadable_images_at_once(self, folder, task):
        (folder / "images/train/00003.png").unlink()
        (folder / "images/train/00005.png").write_bytes(b"no image")
        (folder / "images/test/00002.png").write_bytes((folder / "images/test/00001.png").read_bytes()[:60])
        with pytest.raises(DataProblems) as caught:
            task.check()
        text = "\n".join(caught.value.problems)
        assert "00003.png: missing" in text
        assert "00005.png: unreadable" in text
        assert "test/00002.png: unreadable" in text
        assert len(caught.value.problems) == 3

    def test_missing_lists_and_folders(self, folder, tmp_path):
        (folder / "val200.txt").unlink()
        with pytest.raises(DataProblems, match=r"val200\.txt: no such list"):
            vtab(folder, ["val200"])
        with pytest.raises(DataProblems, match="no such folder"):
            vtab(tmp_path / "nowhere", ["test"])
        with pytest.raises(ValueError, match="splits"):
            vtab(folder, ["train"])

    def test_paths_with_spaces(self, folder):
        (folder / "images/a b.png").write_bytes((folder / "images/test/00000.png").read_bytes())
        (folder / "test.txt").write_text("images/a b.png 2\n")
        assert vtab(folder, ["test"])["test"].paths == ("images/a b.png",)

    def test_few_shot_lists(self, folder):
        notes = folder / "annotations"
        notes.mkdir()
        (notes / "train_meta.list.num_shot_1.seed_2").write_text("train/00000.png 0\ntrain/00001.png 1\n")
        (notes / "val_meta.list").write_text("train/00024.png 0\n")
        (notes / "test_meta.list").write_text("test/00000.png 0\n")
        lists = few_shot(folder, 1, 2, ["train", "val", "test"])
        assert [len(part) for part in lists.values()] == [2, 1, 1]
        task = Vtab(folder=str(folder), model="none", side=8, layout="few_shot", shots=1, list_seed=2)
        task.check()
        assert (task.size("train"), task.size("train+validation")) == (2, 2)
        with pytest.raises(DataProblems, match="seed_0"):
            few_shot(folder, 1, 0, ["train"])

    def test_drawn_few_shot(self, folder):
        images = vtab(folder, ["train800"])["train800"]
        drawn = draw_few_shot(images, 4, seed=1)
        assert np.bincount(drawn.labels).tolist() == [4, 4, 4]
        assert drawn == draw_few_shot(images, 4, seed=1)
        assert drawn != draw_few_shot(images, 4, seed=2)
        with pytest.raises(ValueError, match="fewer than shots=9"):
            draw_few_shot(images, 9, seed=0)

    def test_class_folders_and_mapping(self, tmp_path):
        for name, count in (("n02", 2), ("n01", 3)):
            (tmp_path / name).mkdir()
            for number in range(count):
                Image.fromarray(picture(number)).save(tmp_path / name / f"{number}.png")
        found = class_folders(tmp_path)
        assert found.labels == (0, 0, 0, 1, 1)
        assert class_folders(tmp_path, {"n02": 7}).labels == (7, 7)
        (tmp_path / "n03").mkdir()
        with pytest.raises(DataProblems, match="n03"):
            class_folders(tmp_path)
        with pytest.raises(ValueError, match="none of the labels"):
            found.relabel({9: 0})
        assert found.relabel({1: 5}).labels == (5, 5)
