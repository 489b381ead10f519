"""GLoRA on images in half a minute: a tiny ViT that knows the digits 0–4 learns 5–9.

Everything of the method at toy size: pretraining, supernet, search within a budget, retraining, merging,
reloading. scikit-learn's digits are the data, so nothing is downloaded.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from paper_checks.report import page
from paper_checks.report.page import Section, number

SIDE = 16
BUDGET = 3_000


def write_digits(folder: Path, *, classes: range, seed: int = 0, validation: int = 100) -> Path:
    """scikit-learn's digits of some classes as a data folder in the VTAB-1K layout.

    Args:
        folder: where; must not exist.
        classes: digits to take; they become classes 0, 1, ….
        seed: of the split into 400 training images and 300 for test.
        validation: how many of the training images make the validation list.
    """
    from sklearn.datasets import load_digits

    from glora.tasks.vision.lists import write_vtab

    images, digits = load_digits(return_X_y=True)
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(np.isin(digits, list(classes))))
    pairs = [((images[i].reshape(8, 8) * 15.9).astype(np.uint8), int(digits[i]) - classes.start) for i in chosen]
    return write_vtab(
        folder, pairs[:400], pairs[400:700], validation=validation, class_names=[str(digit) for digit in classes]
    )


def pretrain(folder: Path, data: Path, *, seed: int = 0, epochs: int = 20) -> float:
    """Train a tiny ViT on a data folder and write its backbone as a transformers model.

    Returns:
        Its test accuracy in percent.
    """
    import torch
    from transformers import ViTConfig, ViTModel

    from glora.runs.settings import TrainingSettings
    from glora.tasks.vision.image_folder import Vtab
    from glora.tasks.vision.models import quiet, wrap
    from glora.training.loop import train

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = ViTModel(
            ViTConfig(
                hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=SIDE,
                patch_size=4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            ),
            add_pooling_layer=False,
        )  # fmt: skip
    task = Vtab(folder=str(data), model=str(folder), side=SIDE, normalisation="half")
    model = wrap(backbone, task.class_number, side=SIDE, generator=torch.Generator().manual_seed(seed))
    settings = TrainingSettings(
        epochs=epochs,
        batch_size=50,
        lr=3e-3,
        warmup=0.1,
        split="train+validation",
        keep="last",
        device="cpu",
        seed=seed,
    )
    train(model, task, settings)
    with quiet():
        backbone.save_pretrained(folder)
    return task.metrics(model, "test")["accuracy"]


def digits_config(folder: Path, data: Path, model: Path, *, epochs: int = 15) -> Any:
    """The search as a run: what ``glora search`` reads from a file."""
    from glora.runs.config import RunConfig
    from glora.runs.settings import TrainingSettings

    return RunConfig(
        task={"name": "vtab", "folder": str(data), "model": str(model), "side": SIDE, "normalisation": "half"},
        method={
            "name": "supernet",
            "steps": "raw",
            "rank": 4,
            "parameters": BUDGET,
            "engine": {
                "name": "evolution", "generations": 4, "population": 12, "parents": 4, "mutations": 6, "crossovers": 6,
            },
            "retrain": {"epochs": 15},
        },
        training=TrainingSettings(epochs=epochs, batch_size=50, lr=1e-2, warmup=0.1, save_every=20, device="cpu"),
        out=str(folder),
    )  # fmt: skip


def digits_story(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Pretrain, search, retrain, merge and reload below `folder`; returns the figures.

    Keys: ``source`` (test accuracy on 0–4), ``linear probe``, ``inherited``, ``retrained``, ``reloaded``, ``merged``
    (test accuracies on 5–9, percent), ``search`` (see `Found.summary`), ``report`` (what was found).
    """
    import glora
    from glora.searching import SearchRun
    from glora.training.loop import train

    source = write_digits(folder / "0-4", classes=range(5))
    target = write_digits(folder / "5-9", classes=range(5, 10))
    figures: dict[str, Any] = {"source": pretrain(folder / "vit", source, seed=seed)}
    config = digits_config(folder / "run", target, folder / "vit")
    search_run = SearchRun(config)
    result = search_run.all()
    figures |= {"search": result["search"], **{name: result[name]["accuracy"] for name in ("inherited", "retrained")}}
    task = search_run.task

    probe = task.build_model(seed)
    glora.attach(probe, glora.presets.linear_probe(task.heads))
    train(probe, task, replace(search_run.retraining, lr=2e-2))
    figures["linear probe"] = task.metrics(probe, "test")["accuracy"]

    model = task.build_model(search_run.retraining.seed)
    figures["report"] = glora.load(model, folder / "run" / "retrained" / "adapter")
    figures["reloaded"] = task.metrics(model, "test")["accuracy"]
    figures["merged"] = task.metrics(glora.merged_copy(model), "test")["accuracy"]
    return figures


def section() -> Section:
    """The story as a section of the demo page."""
    import tempfile

    from glora.plot import structures

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        figures = digits_story(Path(scratch))
    seconds, search = time.perf_counter() - start, figures["search"]
    rows = [[name, number(figures[name])] for name in ("linear probe", "inherited", "retrained", "merged", "reloaded")]
    body = (
        f"<p>A tiny vision transformer is pretrained on the digits 0–4 ({figures['source']:.1f} % on test) and adapted "
        f"to 5–9: a supernet with all 432 structures a layer, a search of {search['candidates']} subnets within "
        f"{BUDGET:,} parameters on validation images alone, the found subnet trained afresh, merged and reloaded. "
        f"{search['stopped']} candidates were stopped early, when they could no longer be selected; "
        f"{search['images']:,} of {search['images_of_plain_evaluation']:,} images had to be asked. The support tensors "
        "share a learning rate as they are, as in the paper; without steps = raw each has a measured factor, its step, "
        "so that a rate moves every structure alike. "
        f"{seconds:.0f} s in all.</p>"
        + page.image(structures(figures["report"]), "structure of each support tensor and parameters by layer type")
        + page.table(["on the digits 5–9", "test accuracy (%)"], rows, numbers=(1,))
    )
    return Section("vision", "GLoRA on images, in small", body)
