"""Image data sets on disk: the VTAB-1K layout, few-shot lists, class folders, and a writer.

The layout that all VTAB-1K repositories share::

    <task>/images/…                       one file an image
    <task>/train800.txt val200.txt        "path label" a line, paths relative to <task>
    <task>/train800val200.txt test.txt

Few-shot sets (NOAH's layout) keep ``annotations/train_meta.list.num_shot_<k>.seed_<s>``, ``val_meta.list`` and
``test_meta.list`` beside ``images/``.  A reader opens the lists it was asked for and no others: a search that
asks for train800 and val200 never sees the test list.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from glora._files import read_text, require_regular
from glora.tasks.vision.images import DataProblems, ImageList
from glora.tasks.vision.list_checks import overlaps

#: The 19 tasks of VTAB-1K under the folder names that its repositories use, with their class counts, in the
#: order of the papers' tables: natural (7), specialised (4), structured (8).
VTAB_TASKS: dict[str, int] = {
    "cifar": 100,
    "caltech101": 102,
    "dtd": 47,
    "oxford_flowers102": 102,
    "oxford_iiit_pet": 37,
    "svhn": 10,
    "sun397": 397,
    "patch_camelyon": 2,
    "eurosat": 10,
    "resisc45": 45,
    "diabetic_retinopathy": 5,
    "clevr_count": 8,
    "clevr_dist": 6,
    "dmlab": 6,
    "kitti": 4,
    "dsprites_loc": 16,
    "dsprites_ori": 16,
    "smallnorb_azi": 18,
    "smallnorb_ele": 9,
}

#: Positions in `VTAB_TASKS` of the three groups whose means are averaged.
VTAB_GROUPS = {"natural": slice(0, 7), "specialised": slice(7, 11), "structured": slice(11, 19)}

#: Splits of the VTAB-1K layout. "train800val200" is the union of the first two, for the final training.
VTAB_SPLITS = ("train800", "val200", "train800val200", "test")

#: Lists that must not share an image. train800val200 holds val200, which then only served to choose.
_APART = tuple(
    (one, other)
    for one in ("train", "train800", "train800val200", "val", "val200")
    for other in ("val", "val200", "test")
    if one != other and (one, other) != ("train800val200", "val200")
)

#: File names that `class_folders` takes for images.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


def vtab(folder: str | Path, splits: Sequence[str], classes: int | None = None) -> dict[str, ImageList]:
    """Lists of a folder in the VTAB-1K layout; files of other splits are not opened.

    Args:
        folder: the task's folder.
        splits: names out of `VTAB_SPLITS`.
        classes: number of classes; `class_count` tells it if None.

    Returns:
        One list a split.

    Raises:
        ValueError: an unknown split.
        DataProblems: lists are missing, empty or malformed, labels are out of range, or two of these lists share
            images that must not; everything is named at once.
    """
    folder = Path(folder)
    unknown = [split for split in splits if split not in VTAB_SPLITS]
    if unknown or not splits:
        raise ValueError(f"splits must be names out of {', '.join(VTAB_SPLITS)}; got {list(splits)}")
    return _open(folder, {split: Path(f"{split}.txt") for split in splits}, folder, classes)


def few_shot(
    folder: str | Path, shots: int, seed: int, splits: Sequence[str], classes: int | None = None
) -> dict[str, ImageList]:
    """Lists of a few-shot set in NOAH's layout.

    Args:
        folder: the set's folder, with ``annotations/`` and ``images/``.
        shots, seed: which training list, ``train_meta.list.num_shot_<shots>.seed_<seed>``.
        splits: out of "train", "val", "test"; other files are not opened.
        classes: see `vtab`.

    Raises:
        ValueError, DataProblems: see `vtab`.
    """
    folder = Path(folder)
    files = {
        "train": Path(f"annotations/train_meta.list.num_shot_{shots}.seed_{seed}"),
        "val": Path("annotations/val_meta.list"),
        "test": Path("annotations/test_meta.list"),
    }
    unknown = [split for split in splits if split not in files]
    if unknown or not splits:
        raise ValueError(f"splits must be names out of {', '.join(files)}; got {list(splits)}")
    # Both conventions occur: paths from the set's folder, and from images/.
    return _open(folder, {split: files[split] for split in splits}, folder, classes, alternative=folder / "images")


def folder_names(folder: str | Path) -> list[str]:
    """Names of the folders in a folder, sorted; none if there is no such folder."""
    folder = Path(folder)
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def class_folders(folder: str | Path, classes: Mapping[str, int] | None = None, *, complete: bool = False) -> ImageList:
    """A folder with one folder of images a class; class numbers follow the sorted names.

    Args:
        folder: the set's folder.
        classes: class number of each folder name instead, e.g. to map ImageNet-R's 200 folders to 1,000
            classes; folders without a number are left out.
        complete: `classes` names every class there is, so a folder without a number is a problem.

    Raises:
        DataProblems: there is no class folder, one is empty, or (if `complete`) one is of no known class.
    """
    folder = Path(folder)
    names = folder_names(folder)
    numbers = dict(classes) if classes is not None else {name: number for number, name in enumerate(names)}
    paths: list[str] = []
    labels: list[int] = []
    problems = [] if names else ["it holds no class folder"]
    for name in names:
        if name not in numbers:
            if complete:
                problems.append(f"{name}/ is none of the {len(numbers)} known classes ({_few(numbers)})")
            continue
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            problems.append(f"{name}/ holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        paths += [str(path.relative_to(folder)) for path in found]
        labels += [numbers[name]] * len(found)
    if problems or not paths:
        raise DataProblems(str(folder), problems or ["no class folder has a number in classes"])
    return ImageList(folder.name, folder, tuple(paths), tuple(labels))


def class_names(folder: str | Path) -> list[str] | None:
    """Names of the classes in the order of their numbers by ``classes.txt`` (one name a line), None without it."""
    path = Path(folder) / "classes.txt"
    if not path.is_file():
        return None
    try:
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except ValueError as error:
        raise DataProblems(str(folder), [str(error)]) from None


def class_count(folder: str | Path) -> int | None:
    """Number of classes by ``classes.txt``, else by the task's name in `VTAB_TASKS`, else None."""
    names = class_names(folder)
    return VTAB_TASKS.get(Path(folder).name) if names is None else len(names)


def draw_few_shot(images: ImageList, shots: int, seed: int) -> ImageList:
    """`shots` images of every class of a list, drawn without replacement.

    Raises:
        ValueError: a class has fewer images.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, got {shots}")
    rng = np.random.default_rng(seed)
    labels = np.asarray(images.labels)
    chosen: list[int] = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        if len(positions) < shots:
            raise ValueError(
                f"class {label} of {images.name} has {len(positions)} images, fewer than shots={shots}; "
                "ask for fewer shots"
            )
        chosen += sorted(rng.choice(positions, shots, replace=False).tolist())
    return images.take(chosen)


def write_vtab(
    folder: str | Path,
    train: Sequence[tuple[Any, int]],
    test: Sequence[tuple[Any, int]],
    *,
    validation: int = 200,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write images as a folder in the VTAB-1K layout; it appears in full or not at all.

    Args:
        folder: where; must not exist.
        train: (image, label) pairs; an image is a Pillow image or a uint8 array (h, w) or (h, w, 3).
        test: the same for ``test.txt``.
        validation: how many of `train`, the last ones, make the validation list. The other lists are named
            train800 and val200 whatever their lengths, because every reader expects these names.
        class_names: written to ``classes.txt``.

    Returns:
        The folder.

    Raises:
        ValueError: the folder exists, `validation` leaves nothing to train on, or a label is no number of a class.
    """
    from PIL import Image

    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"folder {str(folder)!r} exists; write to a new one")
    if not 0 < validation < len(train):
        raise ValueError(f"validation must lie between 1 and {len(train) - 1}, got {validation}")
    high = None if class_names is None else len(class_names)
    wrong = [
        label
        for _, label in (*train, *test)
        if isinstance(label, bool) or not isinstance(label, Integral) or label < 0 or (high and label >= high)
    ]
    if wrong:
        raise ValueError(
            f"{len(wrong)} labels are no whole numbers {f'below {high}' if high else '≥ 0'}, for instance {wrong[0]!r}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        lines: dict[str, list[str]] = {}
        for part, pairs in (("train", train), ("test", test)):
            (scratch / "images" / part).mkdir(parents=True)
            lines[part] = []
            for number, (image, label) in enumerate(pairs):
                path = f"images/{part}/{number:05d}.png"
                opened = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
                opened.save(scratch / path)
                lines[part].append(f"{path} {int(label)}\n")
        cut = len(train) - validation
        texts = {
            "train800": lines["train"][:cut],
            "val200": lines["train"][cut:],
            "train800val200": lines["train"],
            "test": lines["test"],
        }
        for split, content in texts.items():
            (scratch / f"{split}.txt").write_text("".join(content), encoding="utf-8")
        if class_names is not None:
            (scratch / "classes.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        scratch.chmod(0o755)  # mkdtemp makes folders that only the owner can read
        os.replace(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return folder


def _few(names: Iterable[str], most: int = 5) -> str:
    """The first of some names, for a message."""
    names = list(names)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _open(
    folder: Path, files: Mapping[str, Path], root: Path, classes: int | None, alternative: Path | None = None
) -> dict[str, ImageList]:
    problems: list[str] = []
    if not folder.is_dir():
        raise DataProblems(str(folder), ["no such folder"])
    classes = class_count(folder) if classes is None else classes
    lists: dict[str, ImageList] = {}
    for split, file in files.items():
        path = folder / file
        if not path.is_file():
            problems.append(f"{file}: no such list")
            continue
        images = _parse(path, f"{folder.name}/{file}", root, classes, problems)
        if alternative is not None and images.paths and not (root / images.paths[0]).exists():
            images = ImageList(images.name, alternative, images.paths, images.labels)
        lists[split] = images
    problems += overlaps(lists, _APART)
    if problems:
        raise DataProblems(str(folder), problems)
    return lists


def _parse(path: Path, name: str, root: Path, classes: int | None, problems: list[str]) -> ImageList:
    """Read "path label" lines; what is wrong with them is appended to `problems`."""
    paths: list[str] = []
    labels: list[int] = []
    require_regular(path)
    text = path.read_text(encoding="utf-8-sig", errors="replace")  # a mark that editors put first is no path
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        # The label is the last word: paths may hold spaces.
        file, _, label = line.strip().rpartition(" ")
        if not file or not label.isdigit():
            problems.append(f'{path.name}:{number}: expected "path label", got {line[:60]!r}')
        elif classes is not None and int(label) >= classes:
            problems.append(f"{path.name}:{number}: label {label} is out of range for {classes} classes")
        else:
            paths.append(file)
            labels.append(int(label))
    if not text.strip():
        problems.append(f"{path.name}: the list holds no image")
    return ImageList(name, root, tuple(paths), tuple(labels))
