"""Image folders: lists, transforms, augmentation, corruptions, the task, and everything that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image

from glora.tasks import make_task
from glora.tasks.base import Task
from glora.tasks.vision.augment import _OPERATIONS, RandAugment, _box, _noise
from glora.tasks.vision.corruptions import CORRUPTIONS, corrupt, corrupt_all
from glora.tasks.vision.image_folder import Vtab
from glora.tasks.vision.images import NORMALISATIONS, DataProblems, ImageList, ImageSet, Transform
from glora.tasks.vision.lists import VTAB_GROUPS, VTAB_TASKS, class_folders, draw_few_shot, few_shot, vtab, write_vtab
from tests.glora.pictures import picture, write_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "set")


@pytest.fixture
def task(folder: Path) -> Vtab:
    return Vtab(folder=str(folder), model="none", side=8)


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


class TestTransforms:
    def test_normalisation(self):
        white = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
        for name, (mean, std) in NORMALISATIONS.items():
            got = Transform(side=4, normalisation=name).normalise(white)
            expected = (1 - torch.tensor(mean)) / torch.tensor(std)
            torch.testing.assert_close(got[0, :, 0, 0], expected)
            assert got.shape == (1, 3, 4, 4)

    def test_squash_and_crop(self, tmp_path):
        wide = np.zeros((20, 40, 3), np.uint8)
        wide[:, 10:30] = 200  # the middle half
        Image.fromarray(wide).save(tmp_path / "wide.png")
        squash = Transform(side=20).pixels(tmp_path / "wide.png")
        crop = Transform(side=20, resize="crop", crop_ratio=1.0).pixels(tmp_path / "wide.png")
        assert squash.shape == crop.shape == (20, 20, 3)
        assert crop.min() == 200
        assert squash[:, :3].max() < 30

    def test_grey_and_palette_images_become_rgb(self, tmp_path):
        Image.fromarray(picture(0)[..., 0]).save(tmp_path / "grey.png")
        Image.fromarray(picture(0)).convert("P").save(tmp_path / "palette.png")
        for name in ("grey", "palette"):
            assert Transform(side=6).pixels(tmp_path / f"{name}.png").shape == (6, 6, 3)

    @pytest.mark.parametrize(
        "fields", [{"side": 0}, {"resize": "fit"}, {"crop_ratio": 1.2}, {"normalisation": "inception"}]
    )
    def test_impossible_fields(self, fields):
        with pytest.raises(ValueError, match=next(iter(fields))):
            Transform(**fields)

    def test_a_set_too_large_for_memory_is_read_on_demand(self, folder):
        images = vtab(folder, ["test"])["test"]
        kept, streamed = (ImageSet(images, Transform(side=8), cache_bytes=size) for size in (1 << 20, 0))
        assert streamed._cache is None
        assert torch.equal(kept.batch([4, 1])[0], streamed.batch([4, 1])[0])
        with pytest.raises(DataProblems, match="holds no image"):
            ImageSet(ImageList("empty", folder, (), ()), Transform(side=8))


class TestAugmentation:
    def test_deterministic_by_generator_and_changes_images(self):
        image, augment = picture(1, 16), RandAugment()
        one, same = (augment(image, np.random.default_rng(3)) for _ in range(2))
        assert np.array_equal(one, same)
        assert one.shape == image.shape
        assert one.dtype == np.uint8
        assert not np.array_equal(one, image)
        assert not np.array_equal(one, augment(image, np.random.default_rng(4)))

    @pytest.mark.parametrize("name", list(_OPERATIONS))
    def test_operations_grow_with_magnitude(self, name):
        smooth = np.asarray(Image.fromarray(picture(2, 4)).resize((32, 32), Image.Resampling.BICUBIC))
        image = Image.fromarray(smooth)
        weak, strong = (np.abs(np.asarray(_OPERATIONS[name](image, m, 1), float) - smooth).mean() for m in (0.1, 0.9))
        assert strong >= weak
        assert strong > 0

    def test_nothing_is_nothing(self):
        for nothing in ({"operations": 0}, {"probability": 0}):
            calm = RandAugment(crop=1, flip=0, erase=0, **nothing)
            assert np.array_equal(calm(picture(5), np.random.default_rng(0)), picture(5))
        with pytest.raises(ValueError, match="magnitude"):
            RandAugment(magnitude=11)
        with pytest.raises(ValueError, match="erase"):
            RandAugment(erase=2)
        with pytest.raises(ValueError, match="crop must lie in"):
            RandAugment(crop=0)

    def test_half_of_the_drawn_operations_are_applied(self):
        rng, image = np.random.default_rng(0), picture(3, 16)
        augment = RandAugment(operations=1, crop=1, flip=0, erase=0)
        changed = np.mean([not np.array_equal(augment(image, rng), image) for _ in range(1500)])
        # A few of the changes do nothing to some images (autocontrast); none happens without an operation.
        assert 0.4 < changed < 0.5 + 4 * 0.5 / 1500**0.5

    def test_boxes_have_the_area_and_the_aspect_asked_for(self):
        rng = np.random.default_rng(1)
        boxes = np.array([_box(200, (0.08, 1.0), (3 / 4, 4 / 3), rng) for _ in range(2000)])
        left, top, width, height = boxes.T
        assert boxes.min() >= 0
        assert max((left + width).max(), (top + height).max()) <= 200
        part, aspect = width * height / 200**2, width / height
        assert 0.078 < part.min() < 0.1
        assert abs(aspect.min() - 3 / 4) < 0.03
        assert abs(aspect.max() - 4 / 3) < 0.03
        assert np.abs(np.log(aspect)).max() < np.log(4 / 3) + 0.03
        assert 0.45 < part.mean() < 0.56  # uniform, less those near 1 that do not fit

    def test_erasing_covers_a_box_with_noise_of_the_images_kind(self):
        noise = _noise(200, 200, np.random.default_rng(2)).astype(float)
        mean, spread = (np.array(values) * 255 for values in NORMALISATIONS["imagenet"])
        assert np.allclose(noise.mean((0, 1)), mean, atol=2)
        assert np.allclose(noise.std((0, 1)), spread, atol=3)
        image = picture(4, 32)
        augment = RandAugment(operations=0, crop=1, flip=0, erase=1)
        rng = np.random.default_rng(5)
        covered = [np.mean((augment(image, rng) != image).any(-1)) for _ in range(200)]
        assert min(covered) > 0.015
        assert max(covered) < 0.36

    def test_training_batches_only(self, folder):
        task = Vtab(folder=str(folder), model="none", side=8, augment=True)

        def batch(split, seed):
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            return task.batch(split, [0, 1], generator)["pixel_values"]

        assert torch.equal(batch("train", 1), batch("train", 1))
        assert not torch.equal(batch("train", 1), batch("train", 2))
        assert not torch.equal(batch("train", 1), batch("train", None))
        assert torch.equal(batch("validation", 1), batch("validation", None))


class TestCorruptions:
    @pytest.mark.parametrize("kind", list(CORRUPTIONS))
    def test_severities_are_ordered_and_seeded(self, kind):
        smooth = np.asarray(Image.fromarray(picture(3, 6)).resize((56, 56), Image.Resampling.BICUBIC))
        errors = [
            np.mean([np.abs(corrupt(smooth, kind, severity=s, seed=seed) - smooth.astype(float)).mean()
                     for seed in range(4)])
            for s in range(1, 6)
        ]  # fmt: skip
        assert errors[0] > 0
        assert errors == sorted(errors)
        assert np.array_equal(*(corrupt(smooth, kind, severity=3, seed=5) for _ in range(2)))

    def test_an_image_does_not_depend_on_its_neighbours(self):
        images = np.stack([picture(i) for i in range(4)])
        both = corrupt_all(images, "shot_noise", severity=2, seed=0)
        assert np.array_equal(both[:2], corrupt_all(images[:2], "shot_noise", severity=2, seed=0))

    def test_errors(self):
        with pytest.raises(ValueError, match="kind"):
            corrupt(picture(0), "snow", severity=1, seed=0)
        with pytest.raises(ValueError, match="severity"):
            corrupt(picture(0), "fog", severity=6, seed=0)


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


class TestModels:
    @pytest.fixture(scope="class")
    @staticmethod
    def vit(tmp_path_factory):
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
        folder = tmp_path_factory.mktemp("vit")
        transformers.ViTModel(transformers.ViTConfig(**sizes, intermediate_size=32)).half().save_pretrained(folder)
        return folder

    @pytest.mark.parametrize("side", [8, 16])  # the size it was built for, and interpolated positions
    def test_any_side_that_patches_divide(self, vit, side):
        from glora.tasks.vision.models import load_classifier

        model = load_classifier(str(vit), 5, side=side, generator=torch.Generator().manual_seed(0)).eval()
        assert model(torch.randn(2, 3, side, side)).shape == (2, 5)
        assert model.head.weight.dtype == next(model.backbone.parameters()).dtype == torch.float32
        assert not any("pooler" in name for name, _ in model.named_parameters())

    def test_dinov2(self):
        transformers = pytest.importorskip("transformers")
        from glora.tasks.vision.models import wrap

        config = transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
        )
        model = wrap(transformers.Dinov2Model(config), 3, side=42)
        assert model(torch.randn(2, 3, 42, 42)).shape == (2, 3)

    def test_errors_name_the_remedy(self, vit, tmp_path):
        from glora.tasks.vision.models import load_classifier, new_head, wrap

        with pytest.raises(ValueError, match=r"side=9 is not divisible by the patch size 4.*8 is"):
            load_classifier(str(vit), 5, side=9)
        with pytest.raises(ValueError, match="cannot be loaded"):
            load_classifier(str(tmp_path), 5, side=8)
        with pytest.raises(ValueError, match="no vision transformer"):
            wrap(torch.nn.Linear(2, 2), 3, side=8)
        with pytest.raises(ValueError, match="at least 2"):
            new_head(4, 1)

    def test_timm_is_optional(self):
        from glora.tasks.vision.models import load_classifier

        try:
            import timm  # noqa: F401
        except ImportError:
            with pytest.raises(ValueError, match="pip install timm"):
                load_classifier("timm:vit_tiny_patch16_224", 3, side=224)
