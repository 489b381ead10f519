"""Own texts: found columns, cut parts, labels by name, and what is wrong with rows, named before work."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from glora.tasks import make_task
from glora.tasks.base import Task
from glora.tasks.own.text import Text
from paper_checks.demo.tiny_text import BAD, GOOD, save_model

CLASSES = ("anger", "joy", "wow")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("bert"))


def rows(count: int = 30, first: int = 0) -> list[tuple[str, str]]:
    words = (*GOOD, *BAD)
    return [(f"the film {words[i % 8]} {i}; one", CLASSES[i % 3]) for i in range(first, first + count)]


def write(path: Path, pairs: list[tuple[str, str]], start: str = "") -> Path:
    lines = ["text;label_name", *(f'"{text}";{label}' for text, label in pairs)]
    path.write_text(start + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def task(model: Path, **options: Any) -> Text:
    found = make_task("text", {"model": str(model), "pooling": "mean", "max_length": 32, **options})
    assert isinstance(found, Text)
    return found


def test_a_table_with_semicolons_and_a_byte_order_mark(bert: Path, tmp_path: Path) -> None:
    own = task(bert, file=str(write(tmp_path / "e.csv", rows(), "\ufeff")))
    assert isinstance(own, Task)
    own.check()
    assert (own.columns, own.label_name, own.class_names) == (("text",), "label_name", CLASSES)
    assert {split: own.size(split) for split in ("train", "validation", "train+validation", "test")} == {
        "train": 18, "validation": 6, "train+validation": 24, "test": 6,
    }  # fmt: skip
    assert sorted(own.labels("validation")) == [0, 0, 1, 1, 2, 2]
    model: Any = own.build_model(0)
    assert model.config.id2label == dict(enumerate(CLASSES))
    figures = own.metrics(model, "test")
    assert set(figures) == {"accuracy", "f1_macro", "loss"}


def test_the_formats_say_the_same(bert: Path, tmp_path: Path) -> None:
    pairs = rows()
    csv = task(bert, file=str(write(tmp_path / "e.csv", pairs)))
    (tmp_path / "e.jsonl").write_text("".join(json.dumps({"text": t, "label_name": c}) + "\n" for t, c in pairs))
    (tmp_path / "e.tsv").write_text("text\tlabel_name\n" + "".join(f"{t}\t{c}\n" for t, c in pairs))
    for name in ("e.jsonl", "e.tsv"):
        assert task(bert, file=str(tmp_path / name))._splits == csv._splits


def test_a_folder_keeps_its_parts_and_lacks_what_it_lacks(bert: Path, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows(30))
    own = task(bert, folder=str(tmp_path))
    assert (own.has_test, own.size("validation")) == (False, 6)
    with pytest.raises(ValueError, match="has no test rows"):
        own.size("test")
    assert task(bert, folder=str(tmp_path), split={"test": 0.1}).size("test") == 3
    write(tmp_path / "dev.csv", rows(9, 100))
    write(tmp_path / "test.csv", rows(12, 200))
    own = task(bert, folder=str(tmp_path))
    assert [own.size(split) for split in ("train", "validation", "train+validation", "test")] == [30, 9, 39, 12]
    write(tmp_path / "val.csv", rows(9, 100))
    with pytest.raises(ValueError, match=r"holds val.csv and dev.csv, which are both validation; keep one"):
        task(bert, folder=str(tmp_path)).check()


def test_numbers_are_met_by_a_regression(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("text,score\n" + "".join(f"the film {i},{i / 7:.3f}\n" for i in range(30)))
    own = task(bert, file=str(tmp_path / "e.csv"), regression=True)
    own.check()
    assert (own.outputs, own.class_names) == (1, ())
    assert set(own.metrics(own.build_model(0), "test")) == {"spearman", "neg_root_mean_squared_error", "loss"}


def test_metrics_are_scikit_learns(bert: Path, tmp_path: Path) -> None:
    from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

    names = ["balanced_accuracy", "matthews_corrcoef", "precision_macro", "cohen_kappa"]
    own = task(bert, file=str(write(tmp_path / "e.csv", rows())), scores=names)
    assert own.main_metric == "balanced_accuracy"
    model = own.build_model(0)
    labels, predictions = own.labels("test"), own.logits(model, "test").argmax(1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures = own.metrics(model, "test")
        assert figures["balanced_accuracy"] == 100 * balanced_accuracy_score(labels, predictions)
        assert figures["matthews_corrcoef"] == 100 * matthews_corrcoef(labels, predictions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "body"}, r"no column 'body' \(task.text\)"),
        ({"label": "mood"}, r"no column 'mood' \(task.label\)"),
        (
            {"classes": ["joy", "wow"]},
            r"10 rows have another label, for instance 'anger' in row 1; expected one of joy",
        ),
        ({"classes": ["joy", "joy"]}, "two or more different names"),
        ({"classes": [*CLASSES, "sad"], "regression": True}, "exclude each other"),
        ({"regression": True}, r"30 rows have another label, for instance 'anger' in row 1; expected a number"),
        ({"scores": ["f2"]}, "task.scores must be one of accuracy"),
        ({"scores": "f1"}, "task.scores must be a list"),
        ({"split": {"validation": 0.0}}, "all choices are made by it"),
        ({"train_size": 300}, "task.train_size=300, but .* has 24 training rows"),
        ({"folder": "x"}, "exactly one of task.file, task.folder and task.dataset; got file and folder"),
        ({"config": "main"}, "belongs to task.dataset"),
        ({"data_revision": "main"}, "is a version on the hub"),
        ({"pooling": "max"}, "task.pooling must be one of model, mean"),
    ],
)
def test_what_does_not_fit_is_named(bert: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(bert, file=str(write(tmp_path / "e.csv", rows())), **change).check()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty|has no rows|is the text cannot be told"),
        ("text,label\na b,x\n,y\n", "1 rows have an empty 'text', the first is row 2"),
        ("text,label\na b\n", "another number of cells than the header"),
        ("text,label\na, b,x\n", r"line 2 has another number of cells than the header \(2\); put cells"),
        ("text,label\na b,x\nc d,x\n", "every row has the label 'x'; give two classes or more"),
    ],
)
def test_bad_rows_are_named(bert: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "e.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        task(bert, file=str(tmp_path / "e.csv")).check()


def test_a_list_where_a_text_should_be(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"text": ["a"], "label": 0}\n{"text": "b", "label": 1}\n')
    with pytest.raises(ValueError, match="1 rows have no text as 'text', the first is row 1"):
        task(bert, file=str(tmp_path / "e.jsonl")).check()


def test_parts_that_teach_or_judge_nothing(bert: Path, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows(30))
    write(tmp_path / "test.csv", rows(30))
    with pytest.raises(ValueError, match="30 of 30 test rows stand in train too"):
        task(bert, folder=str(tmp_path)).check()
    write(tmp_path / "test.csv", [*rows(2), *rows(6, 50)])
    with pytest.warns(UserWarning, match="test: 2 of 8 rows stand in train too, the first is row 1"):
        task(bert, folder=str(tmp_path)).check()
    write(tmp_path / "train.csv", [row for row in rows(30) if row[1] != "wow"])
    with pytest.raises(ValueError, match="rows have another label, for instance 'wow'"):
        task(bert, folder=str(tmp_path)).check()
    with pytest.warns(UserWarning, match="test: no training example is of class 'wow'"):
        task(bert, folder=str(tmp_path), classes=list(CLASSES)).check()
    write(tmp_path / "e.csv", [*rows(30), (rows(1)[0][0], "wow")])
    with pytest.warns(UserWarning, match="repeat another row's text, 1 of them with another label"):
        task(bert, file=str(tmp_path / "e.csv"), split={"seed": 1}).check()


def test_data_sets_need_their_library(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs the package datasets; pip install 'rescale-and-adapt\[hub\]'"):
        task(bert, dataset="someone/something").check()


def test_data_sets_on_disk(bert: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = {"text": [text for text, _ in rows()], "label": [CLASSES.index(label) for _, label in rows()]}
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=[*CLASSES])})
    datasets.Dataset.from_dict(table, features=features).save_to_disk(str(tmp_path / "d"))
    own = task(bert, dataset=str(tmp_path / "d"))
    own.check()
    assert (own.class_names, own.size("test")) == (CLASSES, 6)
