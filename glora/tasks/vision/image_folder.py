"""Image classification from a folder: VTAB-1K's layout, few-shot lists or class folders, and a pretrained ViT.

    [task]
    name = "vtab"
    folder = "vtab/cifar10"
    model = "models/vit-s14"        # a local folder, a name on the hub, or timm:<name>
    side = 56                       # 98 on a CPU, 224 on a GPU

Besides the four splits of `glora.tasks.base` there are further ones for what a tuned model does elsewhere:
``test:<corruption>:<severity>`` (see `glora.tasks.vision.corruptions`) and ``shift:<name>`` for the folders in
`shifts`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glora._checks import number, of_kind, whole
from glora.tasks.base import SPLITS, Batch, device_of, to_device
from glora.tasks.vision.augment import RandAugment
from glora.tasks.vision.corruptions import CORRUPTIONS, corrupt_all
from glora.tasks.vision.images import MOST_PIXELS, DataProblems, ImageList, ImageSet, Transform
from glora.tasks.vision.list_checks import (
    contradictions,
    differs_from_union,
    labels_that_teach_nothing,
    leaving,
    oddities,
    overlaps,
)
from glora.tasks.vision.lists import (
    class_count,
    class_folders,
    class_names,
    draw_few_shot,
    few_shot,
    folder_names,
    vtab,
)
from glora.tasks.vision.shifts import checked_shifts, shift_list

LAYOUTS = ("vtab", "few_shot", "folders")
_VTAB_FILES = {"train": "train800", "validation": "val200", "train+validation": "train800val200", "test": "test"}
_FEW_SHOT_FILES = {"train": "train", "validation": "val", "test": "test"}
#: Splits that must not share an image.
_APART = (("train", "validation"), ("train", "test"), ("train+validation", "test"), ("validation", "test"))
_FOLDERS = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Vtab:
    """A `Task` on image folders; accuracy is its metric.

    Args:
        folder: the data set's folder.
        model: name or folder of the pretrained model; see `models.load_classifier`.
        layout: "vtab", "few_shot" (``annotations/*_meta.list``) or "folders" (train/, val/, test/ with one folder
            of images a class; the folders of train/ in the order of their names number the classes of all three).
        side: image side that the model sees.
        resize, normalisation: see `images.Transform`.
        classes: number of classes; if None that of ``classes.txt``, of VTAB's table by the folder's name, or one more
            than the largest label of train and validation.
        shots: with layout "few_shot" which training list; with "vtab" train on so many images a class, drawn from
            train800. The final training on "train+validation" has these shots alone.
        list_seed: which few-shot list, or the seed of the draw.
        augment: random changes of training images, flips among them (see `augment`): leave it off where a mirrored
            image is of another class.
        drop_path: stochastic depth in training, see `models.load_classifier`.
        shifts: folders of other domains with the same classes: ``{name: folder}`` with ``test.txt`` or one folder
            a class, or ``{name: {folder = …, mapping = "map.json"}}`` with ``{label or folder name: class}``. Without
            a mapping, class folders bear the names of train/'s folders or those in ``classes.txt``.
        most_pixels: larger pictures are refused; see `images.Transform`.
        revision: commit, tag or branch of a model of the hub; None takes the newest.
        outside: allow lists whose paths leave the data folder (absolute, or with ``..``).
        test_limit: use only so many images of the test list, evenly spread (None: all of them).

    Raises:
        ValueError: a field has a value out of its range.
    """

    folder: str
    model: str
    layout: str = "vtab"
    side: int = 224
    resize: str = "squash"
    normalisation: str = "imagenet"
    classes: int | None = None
    shots: int | None = None
    list_seed: int = 0
    augment: bool = False
    drop_path: float = 0.0
    shifts: Mapping[str, Any] = field(default_factory=dict)
    test_limit: int | None = None
    most_pixels: int = MOST_PIXELS
    outside: bool = False
    revision: str | None = None

    main_metric = "accuracy"
    greater_is_better = True
    heads = ("head",)

    def __post_init__(self) -> None:
        self._check_layout()
        for name in ("shots", "test_limit", "classes"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
        whole("list_seed", self.list_seed, 0)
        for name, kind in (("folder", str), ("model", str), ("augment", bool), ("outside", bool)):
            of_kind(name, getattr(self, name), kind)
        number("drop_path", self.drop_path, 0.0)
        if self.drop_path >= 1.0:
            raise ValueError(f"drop_path is a probability in [0, 1), got {self.drop_path!r}; 0.1 is usual")
        object.__setattr__(self, "shifts", checked_shifts(self.shifts))
        self.transform  # noqa: B018 (checks side, resize and normalisation)

    def _check_layout(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {self.layout!r}")
        if self.layout == "few_shot" and self.shots is None:
            raise ValueError("layout='few_shot' needs shots (1, 2, 4, 8 or 16) to choose the training list")
        if self.layout == "folders" and self.shots is not None:
            raise ValueError("shots works with layout 'vtab' or 'few_shot'; write lists for class folders first")

    @cached_property
    def transform(self) -> Transform:
        """How files become tensors."""
        return Transform(
            side=self.side, resize=self.resize, normalisation=self.normalisation, most_pixels=self.most_pixels
        )

    @cached_property
    def class_number(self) -> int:
        """Number of classes: the field, ``classes.txt``, VTAB's table, or the largest training label."""
        known = self.classes or class_count(self.folder)
        if known:
            return known
        labels = {*self.image_list("train").labels, *self.image_list("validation").labels}
        if max(labels) >= 10 * len(labels):
            warnings.warn(
                f"the largest label in the lists of {self.folder!r} is {max(labels):,}, but only {len(labels)} labels "
                f"occur: the head gets {max(labels) + 1:,} outputs; number the classes from 0 on, or give task.classes",
                stacklevel=2,
            )
        return max(labels) + 1

    @property
    def outputs(self) -> int:
        """Number of the model's outputs."""
        return self.class_number

    @cached_property
    def _augmentation(self) -> RandAugment | None:
        return RandAugment() if self.augment else None

    # ------------------------------------------------------------------------------------------------------- data

    @cached_property
    def _lists(self) -> dict[str, ImageList]:
        return {}

    @cached_property
    def _sets(self) -> dict[str, ImageSet]:
        return {}

    def image_list(self, split: str) -> ImageList:
        """Files and labels of one split; never opens the test list for another.

        Raises:
            ValueError: there is no such split.
            DataProblems: the list is missing, empty or malformed.
        """
        if split not in self._lists:
            self._lists[split] = self._read_list(split)
        return self._lists[split]

    def _read_list(self, split: str) -> ImageList:
        if split.startswith("shift:"):
            return self._shift_list(split.removeprefix("shift:"))
        if split not in SPLITS:
            raise ValueError(
                f"split must be one of {', '.join(SPLITS)}, test:<corruption>:<severity> or shift:<name>; got {split!r}"
            )
        images = self._own_list(split)
        if split == "test" and self.test_limit is not None and self.test_limit < len(images):
            images = images.take(np.linspace(0, len(images) - 1, self.test_limit).round().astype(int).tolist())
        return images

    def _own_list(self, split: str) -> ImageList:
        """The list of one of `SPLITS`, by the layout."""
        if self.shots is not None and split == "train+validation":
            # Few-shot training has no more images than its shots; validation served only to choose.
            images = self.image_list("train")
        elif self.layout == "folders":
            images = self._union() if split == "train+validation" else self._class_folders(split)
        elif self.layout == "few_shot":
            assert self.shots is not None
            part = _FEW_SHOT_FILES[split]
            images = few_shot(self.folder, self.shots, self.list_seed, [part], self.classes)[part]
        else:
            part = _VTAB_FILES[split]
            images = vtab(self.folder, [part], self.classes)[part]
            if self.shots is not None and split == "train":
                images = draw_few_shot(images, self.shots, self.list_seed)
        return images

    @cached_property
    def _class_numbers(self) -> dict[str, int] | None:
        """Number of each class by its name, for folders of classes: one numbering for all splits and shifts, because
        a split may lack a class. None where the names are not known."""
        names = folder_names(Path(self.folder) / "train") if self.layout == "folders" else class_names(self.folder)
        return None if names is None else {name: number for number, name in enumerate(names)}

    @property
    def has_test(self) -> bool:
        """Whether there is a test split; folders of classes may do without, and then there is no final figure."""
        return self.layout != "folders" or (Path(self.folder) / _FOLDERS["test"]).is_dir()

    def _class_folders(self, split: str) -> ImageList:
        missing = [f"{part}/" for part in _FOLDERS.values() if not (Path(self.folder) / part).is_dir()]
        if f"{_FOLDERS[split]}/" in missing:
            raise DataProblems(
                str(self.folder),
                [f"{_FOLDERS[split]}/ is missing (of train/, val/ and test/, each with one folder of images a class)"],
            )
        return class_folders(Path(self.folder) / _FOLDERS[split], self._class_numbers, complete=True)

    def _union(self) -> ImageList:
        train, validation = self.image_list("train"), self.image_list("validation")
        root = Path(self.folder)
        paths = [str((part.root / path).relative_to(root)) for part in (train, validation) for path in part.paths]
        return ImageList(f"{root.name}/train+validation", root, tuple(paths), train.labels + validation.labels)

    def _shift_list(self, name: str) -> ImageList:
        if name not in self.shifts:
            raise ValueError(f"no shift is called {name!r}; the task has {', '.join(self.shifts) or 'none'}")
        return shift_list(self.shifts[name], self._class_numbers, self.class_number)

    def images(self, split: str) -> ImageSet:
        """The images of a split, read and resized when first asked for.

        Raises:
            ValueError, DataProblems: see `image_list` and `images.ImageSet`.
        """
        name, _, corruption = split.partition(":")
        if name == "test" and corruption:
            if split not in self._sets:
                self._sets[split] = self._corrupted(corruption)
        elif split not in self._sets:
            self._sets[split] = self._image_set(self.image_list(split))
        return self._sets[split]

    def _image_set(self, images: ImageList) -> ImageSet:
        return ImageSet(images, self.transform)

    def _corrupted(self, corruption: str) -> ImageSet:
        kind, _, level = corruption.partition(":")
        if kind not in CORRUPTIONS or level not in {"1", "2", "3", "4", "5"}:
            raise ValueError(
                f"split 'test:{corruption}' must be test:<corruption>:<severity> with a corruption out of "
                f"{', '.join(CORRUPTIONS)} and a severity from 1 to 5"
            )
        clean = self.images("test")
        pixels = clean.pixels(range(len(clean))).numpy()
        return clean.replaced(torch.from_numpy(corrupt_all(pixels, kind, severity=int(level), seed=0)))

    # ------------------------------------------------------------------------------------------------ the protocol

    def check(self) -> None:
        """Read every list and every image of it, those of the shifts included.

        Raises:
            DataProblems: see `check_splits`.
        """
        splits = [split for split in SPLITS if split != "test" or self.has_test]
        self.check_splits([*splits, *(f"shift:{name}" for name in self.shifts)])

    def check_splits(self, splits: Sequence[str]) -> None:
        """Read these splits and no others.

        Raises:
            DataProblems: lists or images are missing or damaged, a label has no class, or splits share images; all of
                it in one message.
        """
        problems: list[str] = []
        for split in splits:
            try:
                images = self.images(split)
                high = [label for label in images.images.labels if label >= self.class_number]
                if high:
                    problems.append(f"{images.images.name}: labels up to {max(high)}, but classes={self.class_number}")
            except DataProblems as error:
                shift = f"{split}: {error.what}: " if split.startswith("shift:") else ""
                problems += [shift + problem for problem in error.problems]
        lists = {split: self._lists[split] for split in splits if split in self._lists}
        problems += self._between_lists(lists)
        if problems:
            raise DataProblems(str(self.folder), list(dict.fromkeys(problems)))
        notes = oddities(lists)
        if notes:
            said = "\n".join(f"  {note}" for note in notes)
            warnings.warn(f"{str(self.folder)!r}: look at the data before you train:\n{said}", stacklevel=3)

    def _between_lists(self, lists: Mapping[str, ImageList]) -> list[str]:
        """What is wrong between lists that may each be right; looks at paths and labels alone."""
        problems = overlaps(lists, _APART) + contradictions(lists) + labels_that_teach_nothing(lists)
        problems += [] if self.outside else leaving(lists)
        if self.layout == "vtab" and self.shots is None and {*_VTAB_FILES} - {"test"} <= lists.keys():
            problems += differs_from_union(lists["train+validation"], [lists["train"], lists["validation"]])
        return problems

    def build_model(self, seed: int) -> nn.Module:
        """The pretrained model with a new head; see `models.load_classifier` for the errors."""
        from glora.tasks.vision.models import load_classifier

        generator = torch.Generator().manual_seed(seed)
        return load_classifier(
            self.model,
            self.class_number,
            side=self.side,
            generator=generator,
            drop_path=self.drop_path,
            revision=self.revision,
        )

    def served(self) -> dict[str, Any]:
        """What predicting needs beside the adapter; see `glora.tasks.served`."""
        names = self._class_numbers or map(str, range(self.class_number))
        return {
            "kind": "pictures",
            "model": self.model,
            "revision": self.revision,
            "side": self.side,
            "resize": self.resize,
            "normalisation": self.normalisation,
            "most_pixels": self.most_pixels,
            "classes": list(names),
        }

    def size(self, split: str) -> int:
        """Number of images of a split."""
        return len(self.images(split))

    def batch(self, split: str, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """``pixel_values`` (n, 3, side, side) and ``labels`` (n,); see `Task.batch`."""
        augment, rng = None, None
        if generator is not None and self._augmentation is not None and split.startswith("train"):
            augment = self._augmentation
            rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        inputs, labels = self.images(split).batch(indices, augment, rng)
        return {"pixel_values": inputs, "labels": labels}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(model(batch["pixel_values"]).float(), batch["labels"])

    def weight(self, batch: Batch) -> float:
        """Number of images."""
        return float(len(batch["labels"]))

    def correct(self, model: nn.Module, batch: Batch) -> Tensor:
        """Which images of a batch the model classifies correctly: bool (n,) (what a search counts)."""
        return model(batch["pixel_values"]).argmax(-1) == batch["labels"]

    @torch.no_grad()
    def metrics(self, model: nn.Module, split: str, *, batch_size: int = 64) -> dict[str, float]:
        """``accuracy`` in percent and mean cross-entropy ``loss`` on a split."""
        was_training, device, images = model.training, device_of(model), self.images(split)
        model.eval()
        correct = total = 0.0
        try:
            for inputs, labels in images.batches(batch_size):
                batch = to_device({"pixel_values": inputs, "labels": labels}, device)
                logits = model(batch["pixel_values"]).float()
                correct += float((logits.argmax(-1) == batch["labels"]).sum())
                total += float(F.cross_entropy(logits, batch["labels"], reduction="sum"))
        finally:
            model.train(was_training)
        return {"accuracy": 100 * correct / len(images), "loss": total / len(images)}

    def few(self, shots: int, list_seed: int) -> Vtab:
        """The same data with so many training images a class."""
        return dataclasses.replace(self, shots=shots, list_seed=list_seed)
