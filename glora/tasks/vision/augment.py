"""Random changes of training images for few-shot tuning: crops, flips, RandAugment, erasing.

It is the policy of GLoRA's few-shot runs, timm's ``rand-m9-mstd0.5-inc1`` with random erasing .25, on Pillow alone.
(Those runs also ask timm for colour jitter .4, which timm leaves out beside RandAugment.) One thing differs: crops are
cut from the image that is already resized, which is what is kept in memory, and not from the file. Shifts and boxes
are fractions of the side, so the strength does not depend on the image size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glora.tasks.vision.images import NORMALISATIONS, Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

#: Mean and standard deviation of ImageNet's channels: empty corners get the mean, as in timm, and boxes noise like it.
_MEAN, _SPREAD = (255 * np.array(values) for values in NORMALISATIONS["imagenet"])
_GREY = tuple(int(value) for value in _MEAN.round())
_TOP = 10.0  # RandAugment's magnitudes run from 0 to 10


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """An `Augmentation`: a crop, a flip, two random operations, erasing.

    Args:
        operations: how many operations are drawn for an image.
        probability: with which each of them is applied.
        magnitude: their strength, 0 to 10, drawn around this value with standard deviation `spread`.
        spread: see `magnitude`.
        crop: smallest part of the area that a random crop keeps before it is enlarged again; 1 crops nothing.
        flip: probability of a left-right flip (0 for digits and signs that mirror into others).
        erase: probability of replacing a random box by noise.

    Raises:
        ValueError: a field has a value out of its range.
    """

    operations: int = 2
    probability: float = 0.5
    magnitude: float = 9.0
    spread: float = 0.5
    crop: float = 0.08
    flip: float = 0.5
    erase: float = 0.25

    def __post_init__(self) -> None:
        if self.operations < 0 or not 0 <= self.magnitude <= _TOP or self.spread < 0:
            raise ValueError(
                "operations and spread must not be negative and magnitude must lie in 0..10, got "
                f"operations={self.operations}, magnitude={self.magnitude}, spread={self.spread}"
            )
        for name in ("probability", "flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must lie in (0, 1], got {self.crop!r}; 1 crops nothing")

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Changed copy of uint8 (side, side, 3)."""
        from PIL import Image, ImageOps

        image = Image.fromarray(pixels)
        if self.crop < 1:
            left, top, width, height = _box(image.size[0], (self.crop, 1.0), (3 / 4, 4 / 3), rng)
            box = (left, top, left + width, top + height)
            image = image.resize(image.size, Image.Resampling.BICUBIC, box=box)
        if rng.random() < self.flip:
            image = ImageOps.mirror(image)
        names = list(_OPERATIONS)
        for index in rng.integers(len(names), size=self.operations):
            if rng.random() >= self.probability:
                continue
            magnitude = float(np.clip(rng.normal(self.magnitude, self.spread), 0, _TOP)) / _TOP
            sign = 1 if rng.random() < 0.5 else -1
            image = _OPERATIONS[names[index]](image, magnitude, sign)
        changed = np.array(image)
        if rng.random() < self.erase:
            left, top, width, height = _box(len(pixels), (0.02, 1 / 3), (0.3, 1 / 0.3), rng)
            changed[top : top + height, left : left + width] = _noise(height, width, rng)
        return changed


def _box(
    side: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random box: its part of the area uniform, its aspect log-uniform.

    A box that does not fit is drawn again, ten times at most; then it is the whole image.
    """
    for _ in range(10):
        part, ratio = rng.uniform(*area) * side**2, np.exp(rng.uniform(*np.log(aspect)))
        width, height = round(np.sqrt(part * ratio)), round(np.sqrt(part / ratio))
        if 0 < width <= side and 0 < height <= side:
            return int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1)), width, height
    return 0, 0, side, side


def _noise(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Normal noise with the mean and spread of ImageNet's channels."""
    return (_MEAN + _SPREAD * rng.standard_normal((height, width, 3))).round().clip(0, 255).astype(np.uint8)


def _affine(image: Image, *matrix: float) -> Image:
    from PIL import Image

    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=_GREY
    )


def _enhance(name: str) -> Callable[[Image, float, int], Image]:
    def change(image: Image, magnitude: float, sign: int) -> Image:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(image).enhance(1 + sign * 0.9 * magnitude)

    return change


def _ops(name: str, argument: Callable[[float], int] | None = None) -> Callable[[Image, float, int], Image]:
    def change(image: Image, magnitude: float, sign: int) -> Image:
        from PIL import ImageOps

        function = getattr(ImageOps, name)
        return function(image) if argument is None else function(image, argument(magnitude))

    return change


def _rotate(image: Image, magnitude: float, sign: int) -> Image:
    from PIL import Image

    return image.rotate(30 * magnitude * sign, resample=Image.Resampling.BICUBIC, fillcolor=_GREY)


#: The fifteen operations in their "increasing" form: a larger magnitude changes more.
_OPERATIONS: dict[str, Callable[[Image, float, int], Image]] = {
    "autocontrast": _ops("autocontrast"),
    "equalize": _ops("equalize"),
    "invert": _ops("invert"),
    "posterize": _ops("posterize", lambda m: max(1, 4 - round(4 * m))),
    "solarize": _ops("solarize", lambda m: 256 - round(256 * m)),
    "colour": _enhance("Color"),
    "contrast": _enhance("Contrast"),
    "brightness": _enhance("Brightness"),
    "sharpness": _enhance("Sharpness"),
    "rotate": _rotate,
    "shear x": lambda image, m, sign: _affine(image, 1, 0.3 * m * sign, 0, 0, 1, 0),
    "shear y": lambda image, m, sign: _affine(image, 1, 0, 0, 0.3 * m * sign, 1, 0),
    "shift x": lambda image, m, sign: _affine(image, 1, 0, 0.45 * m * sign * image.size[0], 0, 1, 0),
    "shift y": lambda image, m, sign: _affine(image, 1, 0, 0, 0, 1, 0.45 * m * sign * image.size[1]),
    "solarize add": lambda image, m, sign: image.point(lambda v: min(255, v + round(110 * m)) if v < 128 else v),
}
