"""A small image task in the layout of VTAB-1K."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glora.tasks.vision.lists import write_vtab


def picture(number: int, side: int = 12) -> np.ndarray:
    """An image of noise, the same for the same number."""
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


def write_pictures(folder: Path) -> Path:
    """24 images to train on, 6 for validation and 10 for test, of three classes."""
    train = [(picture(i), i % 3) for i in range(30)]
    test = [(picture(100 + i), i % 3) for i in range(10)]
    return write_vtab(folder, train, test, validation=6, class_names=["a", "b", "c"])
