"""Corruptions in five severities."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from glora.tasks.vision.corruptions import CORRUPTIONS, corrupt, corrupt_all
from tests.glora.pictures import picture


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
