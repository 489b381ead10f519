"""What can be wrong between image lists that are each right: shared images, and a union that is none.

Only paths and labels are compared; no image is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from glora.tasks.vision.images import ImageList


def overlaps(lists: Mapping[str, ImageList], apart: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for every two lists that share images: none may be trained on or chosen by, and judged by.

    Args:
        lists: lists by name.
        apart: pairs of names; those of which a list is not there are passed over.
    """
    files = {name: _files(images).keys() for name, images in lists.items()}
    found = []
    for one, other in apart:
        shared = files.get(one, set()) & files.get(other, set())
        if shared:
            found.append(f"{len(shared)} images are in both {one} and {other}, for instance {min(shared)}")
    return found


def contradictions(lists: Mapping[str, ImageList]) -> list[str]:
    """A sentence for every list that gives one image two labels."""
    found = []
    for images in dict.fromkeys(lists.values()):
        labels: dict[str, int] = {}
        both = [path for path, label in _pairs(images) if labels.setdefault(path, label) != label]
        if both:
            found.append(f"{images.name}: {len(both)} images have two labels, for instance {min(both)}")
    return found


def leaving(lists: Mapping[str, ImageList]) -> list[str]:
    """A sentence for every list whose paths leave its folder."""
    found = []
    for images in dict.fromkeys(lists.values()):
        away = [p for p in images.paths if os.path.isabs(p) or os.path.normpath(p).split(os.sep)[0] == os.pardir]
        if away:
            found.append(
                f"{images.name}: {len(away)} paths leave the folder, for instance {away[0]}; outside = true allows it"
            )
    return found


def differs_from_union(whole: ImageList, parts: Sequence[ImageList]) -> list[str]:
    """A sentence if a list is not its parts together, with the same labels."""
    files, wanted = _files(whole), {path: label for part in parts for path, label in _files(part).items()}
    missing, extra = wanted.keys() - files.keys(), files.keys() - wanted.keys()
    relabelled = {path for path in files.keys() & wanted.keys() if files[path] != wanted[path]}
    if not missing and not extra and not relabelled:
        return []
    return [
        f"{whole.name} is not {' and '.join(part.name for part in parts)} together: {len(missing)} images are missing, "
        f"{len(extra)} are in it alone, {len(relabelled)} have another label, for instance "
        f"{min(missing | extra | relabelled)}"
    ]


def _files(images: ImageList) -> dict[str, int]:
    """Label of each file; see `_pairs`."""
    return dict(_pairs(images))


def _pairs(images: ImageList) -> Iterator[tuple[str, int]]:
    """(file, label), the path freed of ``.`` and ``..`` so that equal files have equal names."""
    paths = (os.path.normpath(images.root / path) for path in images.paths)
    return zip(paths, images.labels, strict=True)


def labels_that_teach_nothing(lists: Mapping[str, ImageList]) -> list[str]:
    """Labels that count from 1, and a training list of one class."""
    problems = []
    own = {split: images for split, images in lists.items() if not split.startswith("shift:")}
    if {"train", "validation"} <= own.keys() and min(min(images.labels) for images in own.values()) == 1:
        problems.append("no image of any list has label 0: labels count from 0, so subtract 1 from all of them")
    if "train" in own and len(set(own["train"].labels)) == 1:
        problems.append(
            f"{own['train'].name}: every image has label {own['train'].labels[0]}; give two classes or more"
        )
    return problems


def oddities(lists: Mapping[str, ImageList]) -> list[str]:
    """What is odd about lists and does not keep them from being used: repeated lines, classes that are not trained."""
    notes = []
    for images in dict.fromkeys(lists.values()):
        count = len(images) - len(_files(images))
        if count:
            notes.append(f"{images.name}: {count} of {len(images)} lines repeat another line")
    trained = set(lists["train"].labels) if "train" in lists else None
    for split in ("validation", "test"):
        if trained is not None and split in lists:
            new = sorted(set(lists[split].labels) - trained)
            if new:
                shown = ", ".join(map(str, new[:5])) + (" …" if len(new) > 5 else "")
                notes.append(f"{lists[split].name}: no training image is of class {shown}")
    return notes
