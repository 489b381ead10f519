"""Real data as plain arrays, checked when read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt._files import as_path

#: The domains of the Amazon reviews and the file stem of each.
AMAZON = {"book": "books", "dvd": "dvd", "elec": "elec", "kitchen": "kitchen"}
AMAZON_FEATURES = 400


@dataclass(frozen=True, eq=False)
class Domain:
    """One binary classification data set.

    Args:
        name: what it is called.
        features: (n, p) finite numbers, one row a sample.
        labels: (n,) of −1 and +1, both present.
    """

    name: str
    features: FloatArray
    labels: FloatArray

    def __post_init__(self) -> None:
        features = _checks.finite("features", self.features)
        labels = _checks.finite("labels", self.labels)
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise ValueError(f"features must be (n, p) and labels (n,), got {features.shape} and {labels.shape}")
        if set(np.unique(labels)) != {-1.0, 1.0}:
            raise ValueError(f"labels of {self.name!r} must hold both −1 and +1, got {np.unique(labels)[:5]}")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "labels", labels)

    def standardised(self) -> Domain:
        """Every feature centred and scaled to variance 1 over all rows; constant features become 0.

        The paper does this before it splits, so the test rows take part.
        """
        spread = self.features.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        return Domain(self.name, (self.features - self.features.mean(axis=0)) / scale, self.labels)

    @property
    def class_means(self) -> tuple[FloatArray, FloatArray]:
        """(p,) mean of the rows labelled −1 and of those labelled +1."""
        return self.features[self.labels < 0].mean(axis=0), self.features[self.labels > 0].mean(axis=0)

    @property
    def signed_mean(self) -> FloatArray:
        """(p,) half the difference of the class means, the plug-in for m (or μ) of theory.md §0."""
        negative, positive = self.class_means
        return (positive - negative) / 2.0


def load_amazon(folder: str | Path) -> dict[str, Domain]:
    """The four Amazon review domains, from ``books.mat, dvd.mat, elec.mat, kitchen.mat`` in ``folder``.

    Each file holds ``fts`` (n×400) and ``labels`` (n×1 of 0 and 1); label 0 becomes +1 and label 1
    becomes −1, as in the paper's code. Rows keep their order.

    Raises:
        ValueError: a file is missing, is not a readable .mat file, or holds something else.

    >>> import rmt
    >>> rmt.load_amazon("no-such-folder")
    Traceback (most recent call last):
        ...
    ValueError: folder 'no-such-folder' does not exist; give the folder that holds books.mat … kitchen.mat
    """
    folder = as_path("folder", folder)
    if not folder.is_dir():
        raise ValueError(f"folder {str(folder)!r} does not exist; give the folder that holds books.mat … kitchen.mat")
    return {name: _load_mat(name, folder / f"{stem}.mat") for name, stem in AMAZON.items()}


def _load_mat(name: str, path: Path) -> Domain:
    from scipy.io import loadmat

    remedy = f"replace it by the Amazon review file (keys fts n×{AMAZON_FEATURES}, labels n×1 of 0 and 1)"
    if not path.is_file():
        raise ValueError(f"file {str(path)!r} does not exist; add the Amazon review file of that name")
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises many kinds, from OSError to zlib.error, on broken files
        raise ValueError(f"file {str(path)!r} is not a readable .mat file ({error}); {remedy}") from None
    keys = sorted(key for key in content if not key.startswith("__"))
    for key in ("fts", "labels"):
        if key not in content:
            raise ValueError(f"file {str(path)!r} lacks the key {key!r}, it holds {keys}; {remedy}")
    try:
        features = np.asarray(content["fts"], dtype=float)
        labels = np.asarray(content["labels"], dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"file {str(path)!r} holds fts or labels that are not numbers; {remedy}") from None
    if features.ndim != 2 or features.shape[1] != AMAZON_FEATURES or not len(features):
        raise ValueError(f"file {str(path)!r} has fts of shape {features.shape}; {remedy}")
    if labels.shape not in {(len(features), 1), (1, len(features)), (len(features),)}:
        raise ValueError(f"file {str(path)!r} has {len(features)} rows but labels of shape {labels.shape}; {remedy}")
    labels = labels.ravel()
    if set(np.unique(labels)) != {0.0, 1.0}:
        raise ValueError(f"file {str(path)!r} has labels other than 0 and 1, or only one of them; {remedy}")
    if not np.isfinite(features).all():
        raise ValueError(f"file {str(path)!r} has NaN or infinite features; {remedy}")
    return Domain(name, features, 1.0 - 2.0 * labels)
