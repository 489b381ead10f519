"""Random changes of training images for few-shot tuning: RandAugment, colour jitter, erasing, flips.

It is modelled on the recipe of the GLoRA and NOAH few-shot runs, in timm's words ``rand-m9-mstd0.5-inc1``, colour
jitter .4, random erasing .25, on Pillow alone, and it is not that policy to the letter: each drawn operation is
applied, where timm applies it with probability .5; jitter comes on top of the operations; and images are flipped with
probability .5 (in `RandAugment`, ``flip=0`` turns that off). It is thus somewhat stronger. Shifts and erased boxes are
fractions of the side, so the strength does not depend on the image size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from glora.tasks.images import Pixels

_GREY = (124, 116, 104)  # ImageNet's mean: what timm fills empty corners with
_TOP = 10.0  # RandAugment's magnitudes run from 0 to 10


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """An `Augmentation`: flip, two random operations, erasing.

    Args:
        operations: how many operations an image gets.
        magnitude: their strength, 0 to 10, drawn around this value with standard deviation `spread`.
        spread: see `magnitude`.
        flip: probability of a left-right flip (0 for digits and signs that mirror into others).
        jitter: brightness, contrast and saturation are multiplied by 1 ± this.
        erase: probability of replacing a random box by noise.

    Raises:
        ValueError: a field has a value out of its range.
    """

    operations: int = 2
    magnitude: float = 9.0
    spread: float = 0.5
    flip: float = 0.5
    jitter: float = 0.4
    erase: float = 0.25

    def __post_init__(self) -> None:
        if self.operations < 0 or not 0 <= self.magnitude <= _TOP or self.spread < 0:
            raise ValueError(
                "operations and spread must not be negative and magnitude must lie in 0..10, got "
                f"operations={self.operations}, magnitude={self.magnitude}, spread={self.spread}"
            )
        for name in ("flip", "jitter", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}")

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Changed copy of uint8 (side, side, 3)."""
        from PIL import Image, ImageEnhance, ImageOps

        image = Image.fromarray(pixels)
        if rng.random() < self.flip:
            image = ImageOps.mirror(image)
        names = list(_OPERATIONS)
        for index in rng.integers(len(names), size=self.operations):
            magnitude = float(np.clip(rng.normal(self.magnitude, self.spread), 0, _TOP)) / _TOP
            sign = 1 if rng.random() < 0.5 else -1
            image = _OPERATIONS[names[index]](image, magnitude, sign)
        if self.jitter:
            factors = rng.uniform(1 - self.jitter, 1 + self.jitter, 3)
            for enhance, factor in zip(
                (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
            ):
                image = enhance(image).enhance(float(factor))
        changed = np.array(image)
        if rng.random() < self.erase:
            _erase(changed, rng)
        return changed


def _erase(pixels: Pixels, rng: np.random.Generator) -> None:
    """Overwrite a box of 2 to 33 % of the area, aspect 0.3 to 3.3, with noise, in place."""
    side = pixels.shape[0]
    area, aspect = rng.uniform(0.02, 1 / 3) * side**2, np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
    height = int(np.clip(round(np.sqrt(area * aspect)), 1, side))
    width = int(np.clip(round(np.sqrt(area / aspect)), 1, side))
    top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
    pixels[top : top + height, left : left + width] = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _affine(image: Any, *matrix: float) -> Any:
    from PIL import Image

    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=_GREY
    )


def _enhance(name: str) -> Callable[[Any, float, int], Any]:
    def change(image: Any, magnitude: float, sign: int) -> Any:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(image).enhance(1 + sign * 0.9 * magnitude)

    return change


def _ops(name: str, argument: Callable[[float], int] | None = None) -> Callable[[Any, float, int], Any]:
    def change(image: Any, magnitude: float, sign: int) -> Any:
        from PIL import ImageOps

        function = getattr(ImageOps, name)
        return function(image) if argument is None else function(image, argument(magnitude))

    return change


def _rotate(image: Any, magnitude: float, sign: int) -> Any:
    from PIL import Image

    return image.rotate(30 * magnitude * sign, resample=Image.Resampling.BICUBIC, fillcolor=_GREY)


#: The fifteen operations in their "increasing" form: a larger magnitude changes more.
_OPERATIONS: dict[str, Callable[[Any, float, int], Any]] = {
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
