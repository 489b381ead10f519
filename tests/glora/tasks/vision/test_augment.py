"""Random changes of training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image

from glora.tasks.vision.augment import _OPERATIONS, RandAugment, _box, _noise
from glora.tasks.vision.image_folder import Vtab
from glora.tasks.vision.images import NORMALISATIONS
from tests.glora.pictures import picture


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
