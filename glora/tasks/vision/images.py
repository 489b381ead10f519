"""Images from files to tensors, by Pillow and NumPy alone.

An `ImageList` says which files and which labels; a `Transform` says how a file becomes numbers; an `ImageSet`
is both, with every problem of every file reported at once and the resized pixels kept in memory while they
fit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glora._checks import whole
from glora._files import require_regular

#: Mean and standard deviation of each channel (0..1) that pretrained models were trained with.
NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

#: Formats that Pillow may try, whatever a file's name: those of `lists.IMAGE_SUFFIXES`. Others start programs (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
#: Largest picture that is decoded, unless told.
MOST_PIXELS = 50_000_000

Pixels = NDArray[np.uint8]  # shape: (side, side, 3)


class DataProblems(ValueError):
    """Everything that is wrong with a data set, in one message.

    Attributes:
        what: the data set.
        problems: one sentence each.
    """

    def __init__(self, what: str, problems: Sequence[str], limit: int = 20) -> None:
        self.what, self.problems = what, tuple(problems)
        lines = [f"{what}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
        lines += [f"  {problem}" for problem in problems[:limit]]
        if len(problems) > limit:
            lines.append(f"  … and {len(problems) - limit} more")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class ImageList:
    """Files and labels of one split.

    Attributes:
        name: what messages call it ("cifar10/val200.txt").
        root: folder the paths start from.
        paths: one path an image, relative to `root`.
        labels: one class number an image.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int]) -> ImageList:
        """The images at these positions, in this order."""
        return ImageList(
            self.name, self.root, tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices)
        )

    def relabel(self, mapping: dict[int, int]) -> ImageList:
        """Images whose label is in `mapping`, under their new labels (ImageNet-A's 200 of 1,000 classes).

        Raises:
            ValueError: no label is in `mapping`.
        """
        kept = [i for i, label in enumerate(self.labels) if label in mapping]
        if not kept:
            raise ValueError(f"mapping holds none of the labels of {self.name}; its keys are labels of that list")
        chosen = self.take(kept)
        return ImageList(self.name, self.root, chosen.paths, tuple(mapping[label] for label in chosen.labels))


@dataclass(frozen=True, kw_only=True)
class Transform:
    """How an image file becomes a tensor (3, side, side).

    Args:
        side: height and width the model sees.
        resize: "squash" resizes both sides to `side` (VTAB-1K); "crop" resizes the shorter side to
            ``side / crop_ratio`` and cuts out the centre (ImageNet).
        crop_ratio: see `resize`; 0.875 is 256 → 224.
        normalisation: a name of `NORMALISATIONS`.
        most_pixels: larger pictures are refused before they are decoded.

    Raises:
        ValueError: a field has a value out of its range.
    """

    side: int = 224
    resize: str = "squash"
    crop_ratio: float = 0.875
    normalisation: str = "imagenet"
    most_pixels: int = MOST_PIXELS

    def __post_init__(self) -> None:
        whole("most_pixels", self.most_pixels, 1)
        if isinstance(self.side, bool) or not isinstance(self.side, int) or self.side < 1:
            raise ValueError(f"side must be a positive integer, got {self.side!r}")
        if self.resize not in ("squash", "crop"):
            raise ValueError(f"resize must be 'squash' or 'crop', got {self.resize!r}")
        if not 0 < self.crop_ratio <= 1:
            raise ValueError(f"crop_ratio must lie in (0, 1], got {self.crop_ratio!r}")
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation must be one of {', '.join(NORMALISATIONS)}; got {self.normalisation!r}")

    def pixels(self, path: Path | BinaryIO) -> Pixels:
        """Read and resize one file, by its path or opened: uint8 (side, side, 3).

        Raises:
            OSError: the file is missing or is no readable image.
        """
        from PIL import Image

        try:
            if isinstance(path, Path):
                require_regular(path)
            with Image.open(path, formats=FORMATS) as opened:
                if opened.width * opened.height > self.most_pixels:
                    raise OSError(f"{opened.width}×{opened.height} pixels, more than most_pixels={self.most_pixels:,}")
                image = opened.convert("RGB")
        except OSError:
            raise
        except Exception as error:
            # On damaged files Pillow's decoders raise whatever they come upon: SyntaxError, ValueError, struct.error,
            # DecompressionBombError …
            raise OSError(f"{type(error).__name__}: {error}") from error
        bicubic = Image.Resampling.BICUBIC
        if self.resize == "squash":
            image = image.resize((self.side, self.side), bicubic)
        else:
            shorter = max(self.side, round(self.side / self.crop_ratio))
            scale = shorter / min(image.size)
            width, height = (max(self.side, round(scale * extent)) for extent in image.size)
            left, top = (width - self.side) // 2, (height - self.side) // 2
            image = image.resize((width, height), bicubic).crop((left, top, left + self.side, top + self.side))
        return np.asarray(image)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (n, side, side, 3) → float32 (n, 3, side, side), zero mean and unit variance by channel."""
        mean, std = (torch.tensor(values) for values in NORMALISATIONS[self.normalisation])
        return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


#: Changes the pixels of one image; draws from the generator only.
Augmentation = Callable[[Pixels, np.random.Generator], Pixels]


@dataclass
class ImageSet:
    """Images of a list as tensors, in memory while they fit.

    Args:
        images: files and labels.
        transform: how a file becomes numbers.
        cache_bytes: keep the resized pixels of the whole list if they need no more than this.
        opened: gives the file of a path where it lies in no folder (in a table of Hugging Face's, say).

    Raises:
        DataProblems: files are missing or unreadable; all of them are named.
    """

    images: ImageList
    transform: Transform
    cache_bytes: int = 1 << 30
    opened: Callable[[str], BinaryIO] | None = field(default=None, repr=False)
    labels: Tensor = field(init=False)
    _cache: Tensor | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.labels = torch.tensor(self.images.labels, dtype=torch.long)
        if not len(self):
            raise DataProblems(self.images.name, ["the list holds no image"])
        keep = len(self) * 3 * self.transform.side**2 <= self.cache_bytes
        kept, problems = [], []
        for path in self.images.paths:
            try:
                pixels = self._read(path)
            except OSError as error:
                missing = isinstance(error, FileNotFoundError)
                problems.append(f"{path}: " + ("missing" if missing else f"unreadable ({error})"))
            else:
                if keep:
                    kept.append(pixels)
        if problems:
            raise DataProblems(f"{self.images.name} in {str(self.images.root)!r}", problems)
        if keep:
            self._cache = torch.from_numpy(np.stack(kept))

    def __len__(self) -> int:
        return len(self.images)

    def _read(self, path: str) -> Pixels:
        return self.transform.pixels(self.images.root / path if self.opened is None else self.opened(path))

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """Resized images as uint8 (n, side, side, 3)."""
        if self._cache is not None:
            return self._cache[torch.as_tensor(indices, dtype=torch.long)]
        return torch.from_numpy(np.stack([self._read(self.images.paths[i]) for i in indices]))

    def batch(
        self,
        indices: Sequence[int],
        augment: Augmentation | None = None,
        generator: np.random.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Inputs (n, 3, side, side) float32 and labels (n,) of these images.

        Args:
            indices: positions in the list.
            augment: changes each image before it is normalised.
            generator: source of `augment`'s randomness.

        Raises:
            ValueError: `augment` without `generator`.
        """
        pixels = self.pixels(indices)
        if augment is not None:
            if generator is None:
                raise ValueError("augment draws random numbers; give generator=numpy.random.default_rng(seed)")
            pixels = torch.from_numpy(np.stack([augment(image, generator) for image in pixels.numpy()]))
        return self.transform.normalise(pixels), self.labels[torch.as_tensor(indices, dtype=torch.long)]

    def replaced(self, pixels: Tensor) -> ImageSet:
        """The same list and labels with other pixels, uint8 (n, side, side, 3) (corrupted ones)."""
        if pixels.shape != (len(self), self.transform.side, self.transform.side, 3):
            raise ValueError(f"pixels has shape {tuple(pixels.shape)}, expected those of {len(self)} images")
        other = copy.copy(self)
        other._cache = pixels
        return other

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole list in order, `size` images at a time."""
        for start in range(0, len(self), size):
            yield self.batch(range(start, min(start + size, len(self))))
