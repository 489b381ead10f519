"""From a user's file to labels for new rows: init, tune, predict, and what each says of bad input."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import glora
from glora import presets
from glora.cli.commands import main
from glora.model import checkpoint
from glora.tasks import make_task, served
from glora.tasks.own.look import look, toml
from glora.tasks.vision.models import load_classifier
from glora.tuning.predict import Predictor
from paper_checks.demo.tiny_text import save_model
from tests.glora.pictures import picture
from tests.glora.tasks.own.test_images import fill
from tests.glora.tasks.own.test_text import CLASSES, rows, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, a model, the run file that init writes and the run that tune does."""
    folder = tmp_path_factory.mktemp("own")
    write(folder / "films.csv", rows(60))
    save_model(folder / "bert")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "films.csv", "--model", "bert"]) == 0
        changes = (
            "training.epochs=1",
            "training.evaluate_every=0",
            "training.patience=0",
            "method.name=lora",
            "method.steps=raw",
        )
        assert main(["tune", "films.toml", *(part for change in changes for part in ("--set", change))]) == 0
    return folder


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_init_says_what_it_saw_and_does_not_write_over(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (inside / "films.toml").read_text()
    assert 'classes = ["anger", "joy", "wow"]' in text
    assert "max_length = 32" in text
    assert "# labels: column label_name, 3 classes: anger 16, joy 16, wow 16" in text
    assert main(["init", "films.csv", "--model", "bert"]) == 2
    assert "--force to write over it" in capsys.readouterr().err


def test_the_adapters_folder_labels_new_rows_alone(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((inside / "runs/films/result.json").read_text())
    assert result["classes"] == [*CLASSES]
    write(inside / "new.csv", [(text, "") for text, _ in rows(5, 70)])
    (inside / "lines.txt").write_text("the film was good\n\na dull plot\n")
    capsys.readouterr()
    assert main(["predict", "runs/films/adapter", "new.csv", "lines.txt", "--csv"]) == 0
    printed = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["source"] for row in printed] == [*(f"new.csv:{i}" for i in range(1, 6)), "lines.txt:1", "lines.txt:3"]
    for row in printed:
        assert row["label"] == max(CLASSES, key=lambda name: float(row[name]))
        assert sum(float(row[name]) for name in CLASSES) == pytest.approx(1.0, abs=1e-4)


def test_predictions_are_the_runs_own(inside: Path) -> None:
    from glora.runs.folder import Run
    from glora.tuning.restore import restore

    model, task = restore(Run.open("runs/films"))
    logits = task.logits(model, "test")  # type: ignore[attr-defined]
    texts = [row["text"] for row in task.rows("test")]  # type: ignore[attr-defined]
    answers = list(Predictor("runs/films").texts(texts, batch_size=5))
    for answer, row in zip(answers, logits.softmax(-1).tolist(), strict=True):
        assert [*answer.probabilities.values()] == pytest.approx(row, abs=1e-5)


def test_what_cannot_be_read_is_marked_and_the_rest_goes_on(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inside / "other.csv").write_text("body\nsome words\n")
    (inside / "good.txt").write_text("the film was good\n")
    assert main(["predict", "runs/films", "nowhere.csv", "other.csv", "good.txt", "--json"]) == 3
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["label"] is None for answer in answers] == [True, True, False]
    assert "does not exist" in answers[0]["error"]
    assert answers[1]["error"] == "no column text"
    assert "1 labelled, 2 unreadable" in err


def test_damaged_and_foreign_folders_are_named(inside: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no task.json"):
        Predictor(tmp_path)
    path = inside / "runs/films/adapter/task.json"
    text = path.read_text()
    try:
        path.write_text(text.replace('"anger"', '"angst"'))
        with pytest.raises(ValueError, match=r"task.json"):
            Predictor("runs/films")
    finally:
        path.write_text(text)
    save_model(tmp_path / "other", initializer_range=0.2)
    with pytest.raises(ValueError, match="another base model"):
        Predictor("runs/films", model=str(tmp_path / "other"))


def tiny_vit(folder: Path) -> Path:
    import torch
    import transformers

    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.ViTConfig(**sizes, intermediate_size=32, image_size=16, patch_size=4)
        transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def test_pictures_from_folders_to_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, vit = fill(tmp_path / "flowers", 30), tiny_vit(tmp_path / "vit")
    seen = look(data, str(vit))
    assert seen.seen["classes"] == "3 classes: lily 8, rose 8, tulip 8"
    assert "side = 64" in toml(seen, "runs/flowers")
    task = make_task("images", {"folder": str(data), "model": str(vit), "side": 16})
    model = task.build_model(0)
    glora.attach(model, presets.lora(2, modules_to_save=("head",)))
    checkpoint.save(model, tmp_path / "adapter")
    assert served.write(tmp_path / "adapter", task)
    Image.fromarray(picture(500)).save(tmp_path / "new.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    capsys.readouterr()
    assert main(["predict", *map(str, (tmp_path / "adapter", tmp_path / "new.png", tmp_path / "bad.png"))]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[1] in ("lily", "rose", "tulip")
    assert "unreadable" in lines[1]
    assert load_classifier(str(vit), 3, side=16) is not None


def test_odd_data_is_said_aloud(tmp_path: Path) -> None:
    save_model(tmp_path / "bert")
    pairs = [*((f"the film {i} " + "good " * (80 if i < 5 else 3), "joy") for i in range(40)),
             *((f"one plot {i}", "wow") for i in range(3))]  # fmt: skip
    seen = look(write(tmp_path / "e.csv", pairs), str(tmp_path / "bert"))
    said = " ".join(seen.warnings)
    assert "1 of 2 classes have fewer than 5 rows: wow" in said
    assert "the classes are unequal" in said
    assert "are longer than max_length" in said
    for data, message in (
        (tmp_path / "nowhere.csv", "does not exist; check the path"),
        (tmp_path / "bert", "holds neither train.csv"),
        (tmp_path / "bert" / "config.json", "is no table"),
    ):
        with pytest.raises(ValueError, match=message):
            look(data, "bert")
