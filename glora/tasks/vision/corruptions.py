"""Corruptions of images in five severities: how a tuned model fares away from its training data.

In the manner of ImageNet-C (Hendrycks & Dietterich, 2019), re-made on NumPy and Pillow for any image side:
lengths are fractions of the side, so severity 3 means the same at 56 and at 224 pixels.  The figures are
comparable among models measured here, not with published ImageNet-C figures.

>>> import numpy as np
>>> from glora.tasks.vision.corruptions import corrupt
>>> image = np.full((32, 32, 3), 128, np.uint8)
>>> corrupt(image, "contrast", severity=3, seed=0).shape
(32, 32, 3)
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from glora.tasks.vision.images import Pixels

Floats = NDArray[np.float64]  # shape: (side, side, 3), values 0..1

_Corruption = Callable[[Floats, int, np.random.Generator], Floats]


def corrupt(pixels: Pixels, kind: str, *, severity: int, seed: int) -> Pixels:
    """A corrupted copy of one image.

    Args:
        pixels: uint8 (height, width, 3).
        kind: a name of `CORRUPTIONS`.
        severity: 1 (mild) to 5 (strong).
        seed: the random part is drawn from it; give every image its own.

    Raises:
        ValueError: unknown `kind`, or `severity` out of 1..5.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"kind must be one of {', '.join(CORRUPTIONS)}; got {kind!r}")
    if severity not in range(1, 6):
        raise ValueError(f"severity must be 1, 2, 3, 4 or 5; got {severity!r}")
    changed = CORRUPTIONS[kind](pixels / 255.0, severity - 1, np.random.default_rng(seed))
    return np.clip(np.rint(changed * 255), 0, 255).astype(np.uint8)


def corrupt_all(images: NDArray[np.uint8], kind: str, *, severity: int, seed: int) -> NDArray[np.uint8]:
    """`corrupt` for images (n, height, width, 3); image i is drawn from the seed (seed, i), whatever n is."""
    seeds = [int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(len(images))]
    return np.stack([corrupt(image, kind, severity=severity, seed=s) for image, s in zip(images, seeds, strict=True)])


def _gaussian_noise(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    return image + rng.normal(0.0, (0.04, 0.07, 0.10, 0.15, 0.20)[level], image.shape)


def _shot_noise(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    photons = (250, 100, 50, 25, 12)[level]
    return rng.poisson(image * photons) / photons


def _impulse_noise(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    share = (0.01, 0.03, 0.06, 0.10, 0.16)[level]
    draws = rng.random(image.shape)
    return np.where(draws < share / 2, 0.0, np.where(draws < share, 1.0, image))


def _gaussian_blur(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    from scipy.ndimage import gaussian_filter

    sigma = (0.008, 0.012, 0.017, 0.023, 0.030)[level] * image.shape[0]
    return gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def _motion_blur(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    from scipy.ndimage import shift

    length, angle = (0.03, 0.05, 0.07, 0.10, 0.13)[level] * image.shape[0], rng.uniform(0, np.pi)
    steps = np.linspace(-length / 2, length / 2, max(3, int(np.ceil(length)) + 1))
    moved = [shift(image, (np.sin(angle) * s, np.cos(angle) * s, 0), order=1, mode="nearest") for s in steps]
    return np.mean(moved, axis=0)


def _contrast(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    mean = image.mean(axis=(0, 1), keepdims=True)
    return mean + (image - mean) * (0.7, 0.5, 0.35, 0.22, 0.12)[level]


def _brightness(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    return image + (0.1, 0.2, 0.3, 0.4, 0.5)[level]


def _fog(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    from scipy.ndimage import zoom

    # Noise of a few octaves, coarse ones stronger: clouds.
    side = max(image.shape[:2])
    cloud = np.zeros((side, side))
    for cells in (2, 4, 8, 16):
        patch = zoom(rng.random((cells, cells)), side / cells, order=1, mode="nearest", grid_mode=True)
        cloud += patch[:side, :side] / cells
    cloud = (cloud - cloud.min()) / max(np.ptp(cloud), 1e-12)
    share = (0.25, 0.35, 0.45, 0.55, 0.65)[level]
    return (1 - share) * image + share * (0.5 + 0.5 * cloud[: image.shape[0], : image.shape[1], None])


def _pixelate(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    from PIL import Image

    height, width = image.shape[:2]
    ratio = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    small = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    opened = Image.fromarray(np.rint(image * 255).astype(np.uint8))
    coarse = opened.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(coarse) / 255.0


def _jpeg(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    from PIL import Image

    file = io.BytesIO()
    quality = (40, 25, 17, 11, 7)[level]
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB")) / 255.0


#: The built-in corruptions by name.
CORRUPTIONS: dict[str, _Corruption] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "gaussian_blur": _gaussian_blur,
    "motion_blur": _motion_blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "fog": _fog,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
