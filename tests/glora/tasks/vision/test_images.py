"""Images from files to tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image

from glora.tasks.vision.images import NORMALISATIONS, DataProblems, ImageList, ImageSet, Transform
from glora.tasks.vision.lists import vtab
from tests.glora.pictures import picture


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
