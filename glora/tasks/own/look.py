"""A look at a user's data: what it is, what is odd about it, and a run file to begin with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glora.tasks.own import columns as found
from glora.tasks.own.images import PATHS, Images, part_folders
from glora.tasks.own.sources import files_of
from glora.tasks.own.text import Text
from glora.tasks.rows import SUFFIXES, Row, stream_rows
from glora.tasks.text.loading import load_tokenizer, most_tokens
from glora.tasks.vision.lists import IMAGE_SUFFIXES

#: Models that are taken where none is given, small ones that the hub has.
MODELS = {"text": "sentence-transformers/all-MiniLM-L6-v2", "images": "facebook/dinov2-small"}
#: Lengths that inputs may be cut to, and the share of texts that may be cut.
LENGTHS, CUT = (32, 64, 128, 256, 512), 0.01
#: Imbalance between classes, and rows a class, that are said aloud.
IMBALANCE, FEW = 10, 5
#: Texts whose tokens are counted, evenly spread over the training rows.
COUNTED = 2000


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        task: the ``[task]`` section, name and options.
        training: the ``[training]`` section.
        seen: facts by name, for people.
        warnings: what is surely not meant, a sentence each.
    """

    task: Mapping[str, Any]
    training: Mapping[str, Any]
    seen: Mapping[str, str]
    warnings: tuple[str, ...] = field(default=())


def look(data: str | Path, model: str | None = None, *, text: Sequence[str] = (), label: str | None = None) -> Look:
    """Look at rows or pictures and at the model.

    Args:
        data: a table; a folder of tables or of pictures; a data set of the library ``datasets`` (a folder or a name).
        model: hub name or folder; None takes one of `MODELS`.
        text, label: columns, where their names do not tell.

    Raises:
        ValueError: nothing that could be a task is there, or it cannot be used as it is.
    """
    options: dict[str, Any] = {"text": text[0] if len(text) == 1 else list(text)} if text else {}
    options |= {"label": label} if label else {}
    kind, source = _kind_of(Path(data))
    if kind == "images":
        options.pop("text", None)
    task = {"name": kind, **source, "model": model or MODELS[kind], **options}
    return _texts(task) if kind == "text" else _pictures(task)


def _kind_of(data: Path) -> tuple[str, dict[str, Any]]:
    """The task for some data, and the options that name it."""
    if data.is_file():
        if data.suffix not in SUFFIXES:
            raise ValueError(f"{str(data)!r} is no table ({', '.join(SUFFIXES)}) and no folder")
        if _holds_paths(data):
            return "images", {"layout": "csv", "file": str(data)}
        return "text", {"file": str(data)}
    if not data.is_dir():
        if data.suffix or data.is_absolute() or str(data).count("/") > 1:
            raise ValueError(f"data {str(data)!r} does not exist; check the path")
        return _dataset_kind(str(data))
    if any((data / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return _dataset_kind(str(data))
    if "train" in files_of(data):
        return "text", {"folder": str(data)}
    if (data / "train800.txt").is_file():
        raise ValueError(f"{str(data)!r} has VTAB's lists; write task.name = 'vtab' with task.folder in a run file")
    if part_folders(data) or any(
        path.suffix.lower() in IMAGE_SUFFIXES for part in data.iterdir() if part.is_dir() for path in part.iterdir()
    ):
        return "images", {"layout": "folders", "folder": str(data)}
    there = ", ".join(sorted(path.name for path in data.iterdir())[:5]) or "nothing"
    raise ValueError(
        f"{str(data)!r} holds neither train.csv (or another table) nor folders of pictures, one a class; it holds "
        f"{there}"
    )


def _holds_paths(file: Path) -> bool:
    row: Row = next(stream_rows(file), {})
    return any(
        str(name).lower() in PATHS and Path(str(value)).suffix.lower() in IMAGE_SUFFIXES for name, value in row.items()
    )


def _dataset_kind(name: str) -> tuple[str, dict[str, Any]]:
    from glora.tasks.own.sources import load, parts_of

    features = parts_of(name, load(name, None, None))["train"].features
    if any(type(kind).__name__ == "Image" for kind in features.values()):
        return "images", {"layout": "dataset", "folder": name}
    return "text", {"dataset": name}


# ---------------------------------------------------------------------------------------------------------------- text


def _texts(task: dict[str, Any]) -> Look:
    options = {key: value for key, value in task.items() if key != "name"}
    plain = Text(**options)
    rows = plain.source.rows["train"]
    values = [row[plain.label_name] for row in rows if row.get(plain.label_name) is not None]
    numbers = [found.as_number(value) for value in values]
    if plain.source.names.get(plain.label_name) is None and _are_numbers(numbers):
        options["regression"] = True
    pooled = _pooling(options["model"])
    options |= {"pooling": pooled} if pooled is not None else {}
    lengths, exact = _lengths(Text(**options))
    wanted = next((n for n in LENGTHS if np.mean(lengths > n) <= CUT), LENGTHS[-1])
    options["max_length"] = min(wanted, (most_tokens(plain._model_path) if exact else None) or wanted)
    own = Text(**options)
    sizes = {split: own.size(split) for split in ("train", "validation", "test") if split != "test" or own.has_test}
    seen = {
        "texts": f"{plain.where}: column {' and '.join(own.columns)}",
        "labels": f"column {own.label_name}, " + (_numbers(own) if own.regression else _classes(own)),
        "rows": _sizes(sizes),
        "length": f"{np.median(lengths):.0f} tokens at the median, {lengths.max()} at most"
        + ("" if exact else " (estimated from words: the model is not on this machine)"),
        "copies": _copies(own, sizes),
    }
    warnings = [] if own.regression else _odd(_counts(own), len(own.class_names))
    cut = float(np.mean(lengths > options["max_length"]))
    if cut > 0:
        warnings.append(
            f"{100 * cut:.1f} % of the texts are longer than max_length = {options['max_length']} and are cut"
        )
    options = {"label": own.label_name, **options, "text": _plain(own.columns)}
    if own.class_names and own.classes is None:
        options["classes"] = list(own.class_names)
    return Look({"name": "text", **options}, _training(sizes["train"]), seen, tuple(warnings))


def _plain(columns: tuple[str, ...]) -> Any:
    return columns[0] if len(columns) == 1 else list(columns)


def _are_numbers(numbers: Sequence[float | None]) -> bool:
    """Whether labels are measured rather than counted."""
    known = [number for number in numbers if number is not None]
    return len(known) == len(numbers) > 0 and any(not number.is_integer() for number in known)


def _pooling(model: str) -> str | None:
    """The pooling "mean" for a checkpoint that has no head, None where it cannot be seen."""
    try:
        kinds = json.loads(Path(model, "config.json").read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError):
        return "mean" if model == MODELS["text"] else None
    return "mean" if kinds and all(kind.endswith("Model") for kind in kinds) else "model"


def _lengths(task: Text) -> tuple[Any, bool]:
    """Number of tokens of some texts, and whether the model's own tokenizer counted them."""
    size = task.size("train+validation")
    rows = [task.rows("train+validation")[i] for i in np.linspace(0, size - 1, min(size, COUNTED)).astype(int)]
    texts = [[row[column] for row in rows] for column in task.columns]
    try:
        tokens = load_tokenizer(task._model_path)(*texts, truncation=False)["input_ids"]
        return np.array([len(ids) for ids in tokens]), True
    except ValueError:
        words = [sum(len(part.split()) for part in parts) for parts in zip(*texts, strict=True)]
        return np.array([round(1.5 * count) + 2 for count in words]), False


def _numbers(task: Text) -> str:
    labels = np.array(task.labels("train+validation"))
    return f"numbers from {labels.min():g} to {labels.max():g}"


def _counts(task: Text) -> dict[str, int]:
    counts = Counter(task.labels("train+validation"))
    return {name: counts[number] for number, name in enumerate(task.class_names)}


def _classes(task: Text) -> str:
    return _shown(_counts(task))


def _copies(task: Text, sizes: Mapping[str, int]) -> str:
    keys = {split: {tuple(row[c] for c in task.columns) for row in task.rows(split)} for split in sizes}
    inside = sum(sizes[split] - len(keys[split]) for split in sizes)
    across = [f"{len(keys['train'] & keys[split])} in train and {split}" for split in sizes if split != "train"]
    return f"{inside} rows repeat one of their part; {', '.join(across)}"


# ------------------------------------------------------------------------------------------------------------ pictures


def _pictures(task: dict[str, Any]) -> Look:
    options = {key: value for key, value in task.items() if key != "name"}
    patch = _patch(options["model"])
    options["side"] = 16 * patch
    own = Images(**options)
    parts = ("train", "validation", "test") if own.has_test else ("train", "validation")
    sizes = {split: len(own.image_list(split)) for split in parts}
    labels = Counter(own.image_list("train+validation").labels)
    counts = {name: labels[number] for number, name in enumerate(own.class_names)}
    keys = {split: set(own.keys(own.image_list(split))) for split in sizes}
    across = [f"{len(keys['train'] & keys[split])} in train and {split}" for split in sizes if split != "train"]
    seen = {
        "pictures": f"{own.file or own.folder} ({own.layout})",
        "classes": _shown(counts),
        "parts": _sizes(sizes),
        "side": f"{options['side']} pixels, {16 * 16} patches of {patch}",
        "copies": ", ".join(across) or "none",
    }
    return Look({"name": "images", **options}, _training(sizes["train"]), seen, tuple(_odd(counts, len(counts))))


def _patch(model: str) -> int:
    try:
        size = json.loads(Path(model, "config.json").read_text(encoding="utf-8")).get("patch_size")
    except (OSError, ValueError):
        size = 14 if model == MODELS["images"] else 16
    return size if isinstance(size, int) else 16


# ---------------------------------------------------------------------------------------------------------------- both


def _shown(counts: Mapping[str, int], most: int = 8) -> str:
    shown = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:most])
    return f"{len(counts)} classes: {shown}" + (" …" if len(counts) > most else "")


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in sizes.items()) + ("" if "test" in sizes else ", no test")


def _odd(counts: Mapping[str, int], classes: int) -> list[str]:
    warnings = []
    few = [name for name, count in counts.items() if count < FEW]
    if few:
        warnings.append(f"{len(few)} of {classes} classes have fewer than {FEW} rows: {', '.join(few[:5])}")
    least, most = min(counts.values()), max(counts.values())
    if most > IMBALANCE * max(1, least):
        warnings.append(
            f"the classes are unequal ({most} to {least} rows), so accuracy says little; compare by balanced_accuracy "
            "or f1_macro"
        )
    return warnings


def _training(rows: int) -> dict[str, Any]:
    """Length and rate for so many rows: some 1,000 steps, but no fewer than 3 passes and no more than 20."""
    batch = 16 if rows < 1000 else 32
    steps = max(1, rows // batch)
    return {
        "epochs": int(np.clip(round(1000 / steps), 3, 20)),
        "batch_size": batch,
        "lr": 1e-3,
        "warmup": 0.1,
        "evaluate_every": steps,
        "patience": 3,
    }


#: What stands behind a line of the file.
_NOTES = {
    "pooling": 'mean of the tokens, and a new linear head; "model" takes the head of transformers',
    "classes": "in the order of the model's outputs",
    "side": "a multiple of the patch; smaller is faster",
    "lr": "LoRA's usual rate; steps are balanced, so it serves every structure",
    "patience": "evaluations without a better figure before it stops",
    "evaluate_every": "steps: once a pass",
    "max_length": "tokens",
}


def toml(seen: Look, out: str) -> str:
    """The run file, with comments."""
    lines = [
        "# Written by glora init; every value can be changed. Next: glora tune THIS_FILE",
        *(f"# {name}: {fact}" for name, fact in seen.seen.items()),
        *(f"# NOTE: {warning}" for warning in seen.warnings),
        f"out = {json.dumps(out)}",
        "",
        "[task]",
        *_lines(seen.task),
    ]
    if "split" not in seen.task and "folder" not in seen.task:
        lines.append("split = { validation = 0.2, test = 0.2, seed = 0 }  # of the whole; every class in every part")
    lines += [
        "",
        "[method]  # every linear layer of the model; lora, alpha_lora, ssf, bitfit and linear_probe are others",
        'name = "glora"',
        "rank = 4",
        'steps = "balanced"  # one rate for all tensors, measured on the first batch',
        "",
        "[training]",
        *_lines(seen.training),
    ]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}" + (f"  # {_NOTES[key]}" if key in _NOTES else "")
        for key, value in values.items()
    ]
