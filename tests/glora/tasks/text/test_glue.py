"""GLUE from folders: splits, labels, metrics, clear errors, and models with their heads."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import glora
from glora.runs.settings import TrainingSettings
from glora.tasks import make_task
from glora.tasks.base import Task, batches
from glora.tasks.rows import hub_split, read_rows
from glora.tasks.text.glue import DATASETS, Glue
from glora.tasks.text.sequences import score
from glora.training.loop import train
from paper_checks.demo.tiny_text import reviews, save_model, save_reviews, write_jsonl


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reviews(tmp_path_factory.mktemp("sst2"))


def sst2(model: Path, folder: Path, **options: Any) -> Glue:
    return Glue(dataset="sst2", model=str(model), folder=str(folder), pooling="mean", **options)


def test_splits_are_disjoint_and_the_test_is_the_official_development_set(bert: Path, data: Path) -> None:
    task = sst2(bert, data)
    assert isinstance(task, Task)
    sizes = {split: task.size(split) for split in ("train", "validation", "train+validation", "test")}
    assert sizes == {"train": 64, "validation": 16, "train+validation": 80, "test": 40}
    whole = sorted(map(str, task.rows("train+validation")))
    assert sorted(map(str, [*task.rows("train"), *task.rows("validation")])) == whole
    with pytest.raises(ValueError, match="split must be one of train, validation"):
        task.size("dev")


def test_few_shots_are_drawn_by_seed(bert: Path, data: Path) -> None:
    def examples(seed: int) -> list[str]:
        task = sst2(bert, data, shots=5, subset_seed=seed)
        assert sorted(task.labels("train+validation")) == [0] * 5 + [1] * 5
        return sorted(map(str, task.rows("train+validation")))

    assert examples(1) == examples(1)
    assert examples(1) != examples(2)
    assert sst2(bert, data, train_size=30).size("train+validation") == 30
    with pytest.raises(ValueError, match=r"task.shots=500, but class 'negative' has"):
        sst2(bert, data, shots=500).check()
    with pytest.raises(ValueError, match=r"task.train_size=500, but sst2 has 80"):
        sst2(bert, data, train_size=500).check()


def test_padding_is_to_the_longest_of_the_batch(bert: Path, data: Path) -> None:
    task = sst2(bert, data)
    lengths = [len(row["sentence"].split()) + 2 for row in task.rows("train")]
    for indices in ([0, 1], [2, 3, 4]):
        assert task.batch("train", indices)["input_ids"].shape == (len(indices), max(lengths[i] for i in indices))
    assert sst2(bert, data, max_length=4).batch("train", [0, 1])["input_ids"].shape[1] == 4
    assert sum(len(batch["labels"]) for batch in batches(task, "test", 7)) == 40


def test_logits_do_not_depend_on_order_or_padding(bert: Path, data: Path) -> None:
    task = sst2(bert, data)
    model = task.build_model(0).eval()
    one = torch.cat(
        [model(**{k: v for k, v in task.batch("test", [i]).items() if k != "labels"}).logits for i in range(40)]
    )
    torch.testing.assert_close(task.logits(model, "test", batch_size=7), one.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_other_file_types(bert: Path, tmp_path: Path, suffix: str) -> None:
    for split, seed in (("train", 0), ("validation", 1)):
        rows = reviews(20, seed)
        if suffix == "tsv":
            lines = ["sentence\tlabel", *(f'{row["sentence"]} "\t{row["label"]}' for row in rows)]
            (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n")
        else:
            import pandas as pd

            pd.DataFrame(rows).to_parquet(tmp_path / f"{split}.parquet")
    task = sst2(bert, tmp_path)
    assert task.labels("test") == [row["label"] for row in reviews(20, 1)]


EXAMPLES: dict[str, tuple[dict[str, Any], Any]] = {
    "mnli": ({"premise": "a film", "hypothesis": "the plot"}, 2),
    "qnli": ({"question": "was", "sentence": "good"}, "not_entailment"),
    "rte": ({"sentence1": "a", "sentence2": "b"}, 0),
    "mrpc": ({"sentence1": "a", "sentence2": "b"}, 1),
    "qqp": ({"question1": "a", "question2": "b"}, 1),
    "sst2": ({"sentence": "good"}, "positive"),
    "cola": ({"sentence": "good"}, 1),
    "wnli": ({"sentence1": "a", "sentence2": "b"}, 0),
    "stsb": ({"sentence1": "a", "sentence2": "b"}, 3.75),
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_task(bert: Path, tmp_path: Path, dataset: str) -> None:
    columns, label = EXAMPLES[dataset]
    names = {"train", *DATASETS[dataset].tests}
    for name in names:  # no split may hold another one's rows, and no file one label alone
        rows = [{key: f"{text} {name} {i}" for key, text in columns.items()} for i in range(6)]
        labels = [label if i > 1 else i % 2 for i in range(6)]
        write_jsonl(tmp_path / f"{name}.jsonl", [{**row, "label": x} for row, x in zip(rows, labels, strict=True)])
    task = Glue(dataset=dataset, model=str(bert), folder=str(tmp_path), max_length=64)
    task.check()
    model = task.build_model(0)
    loss = task.loss(model, task.batch("train", [0, 1]))
    assert torch.isfinite(loss)
    metrics = task.metrics(model, "test")
    assert set(metrics) == {*DATASETS[dataset].metrics, "loss"}
    assert task.main_metric in metrics


def test_all_problems_of_the_data_at_once(bert: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"text": "good", "label": 1}])
    write_jsonl(tmp_path / "validation.jsonl", [{"sentence": "good", "label": -1}, {"sentence": "bad", "label": "meh"}])
    with pytest.raises(ValueError) as error:
        sst2(bert, tmp_path).check()
    message = str(error.value)
    assert "sst2/train has no column 'sentence'; it has text, label" in message
    assert "sst2/validation has unknown labels '-1' (1×), 'meh' (1×); expected 0 to 1 or negative, positive" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "sst2/train is empty"), ('{"sentence": "a"\n', "line 1 is not JSON"), ("[1]\n", "not an object")],
)
def test_bad_files(bert: Path, tmp_path: Path, content: str, message: str) -> None:
    write_jsonl(tmp_path / "validation.jsonl", reviews(4, 0))
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        sst2(bert, tmp_path).check()


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("jsonl", '{"sentence": "\u00e9", "label": 1}'.encode("latin-1"), r"train.jsonl' is not text in UTF-8"),
        ("tsv", "sentence\tlabel\n\u00e9\t1\n".encode("latin-1"), r"train.tsv' is not text in UTF-8"),
        ("tsv", f"sentence\tlabel\na\t1\n{'a' * 140_000}\t1\n".encode(), r"train.tsv', line 3 cannot be read: field"),
        ("parquet", b"PAR1 and no more", r"train.parquet' is damaged"),
        ("jsonl", b'{"sentence": NaN, "label": 1}', r"sst2/train has no column 'sentence'"),
        (
            "jsonl",
            b'{"sentence": "a", "label": 1}\n{"sentence": NaN, "label": 1}',
            r"1 rows lack 'sentence', the first",
        ),
    ],
)
def test_damaged_files_are_named(bert: Path, tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    write_jsonl(tmp_path / "validation.jsonl", reviews(4, 0))
    (tmp_path / f"train.{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        sst2(bert, tmp_path).check()


def test_paths(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        sst2(bert, tmp_path / "nowhere").check()
    with pytest.raises(ValueError, match=r"has no train.jsonl, train.parquet, train.tsv or train.csv; it holds none"):
        sst2(bert, tmp_path).check()
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ValueError, match="the environment variable NOT_SET is not set"):
        sst2(bert, Path("$NOT_SET/glue")).check()
    with pytest.raises(ValueError, match=r"task.model='.*nowhere' cannot be loaded"):
        sst2(tmp_path / "nowhere", tmp_path).build_model(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "imdb"}, "task.dataset must be one of mnli"),
        ({"dataset": "sst2", "pooling": "max"}, "task.pooling must be"),
        ({"dataset": "sst2", "test": "validation_matched"}, "task.test must be one of validation"),
        ({"dataset": "sst2", "shots": 4, "train_size": 4}, "not both"),
        ({"dataset": "stsb", "shots": 4}, "give train_size"),
        ({"dataset": "sst2", "max_length": 0}, "task.max_length"),
        ({"dataset": "sst2", "validation_fraction": 1.0}, "task.validation_fraction"),
        ({"dataset": "sst2", "colour": 1}, "task 'glue' has no option 'colour'; it has dataset, model"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task("glue", {"model": "m", **options})


def test_unknown_tasks() -> None:
    with pytest.raises(ValueError, match=r"task.name must be one of glue, .*; got 'glu'"):
        make_task("glu", {})
    with pytest.raises(ValueError, match="task 'glue' needs dataset, model"):
        make_task("glue", {})


def test_scores_agree_with_their_definitions() -> None:
    labels, predictions = np.array([1, 1, 1, 0, 0, 1]), np.array([1, 0, 1, 1, 0, 1])
    found = score(("accuracy", "f1", "matthews"), labels, predictions)
    assert found["accuracy"] == pytest.approx(100 * 4 / 6)
    assert found["f1"] == pytest.approx(100 * 2 * 3 / (2 * 3 + 1 + 1))
    assert found["matthews"] == pytest.approx(100 * (3 * 1 - 1 * 1) / np.sqrt(4 * 4 * 2 * 2))
    x, y = np.array([0.0, 1.0, 3.0]), np.array([1.0, 2.0, 9.0])
    found = score(("pearson", "spearman"), x, y)
    assert found["pearson"] == pytest.approx(100 * np.corrcoef(x, y)[0, 1])
    assert found["spearman"] == pytest.approx(100)
    assert score(("pearson", "spearman"), x, np.ones(3)) == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize(
    ("kind", "head", "target"),
    [
        ("bert", "classifier", "(query|value)$"),
        ("roberta", "classifier", "(query|value)$"),
        ("llama", "score", "(q|v)_proj$"),
    ],
)
def test_models_with_the_heads_of_transformers(data: Path, tmp_path: Path, kind: str, head: str, target: str) -> None:
    task = Glue(dataset="sst2", model=str(save_model(tmp_path, kind)), folder=str(data))
    assert task.heads == (head,)
    model = task.build_model(0)
    glora.attach(model, glora.presets.alpha_lora(rank=2, target=target, modules_to_save=task.heads))
    result = train(model, task, TrainingSettings(steps=4, batch_size=8, device="cpu"))
    assert result.steps == 4
    assert {"accuracy", "loss"} == set(task.metrics(model, "test"))


def test_a_tiny_encoder_learns(tmp_path: Path) -> None:
    model_folder = save_model(tmp_path / "model", initializer_range=0.1)
    task = sst2(model_folder, save_reviews(tmp_path / "data", 320))
    model = task.build_model(0)
    glora.attach(model, glora.presets.alpha_lora(rank=4, modules_to_save=task.heads))
    train(model, task, TrainingSettings(epochs=8, batch_size=16, lr=1e-2, device="cpu"))
    accuracy = task.metrics(model, "test")["accuracy"]
    assert accuracy > 80
    with glora.merged(model):
        assert task.metrics(model, "test")["accuracy"] == accuracy


def test_heads_are_drawn_by_seed(bert: Path, data: Path) -> None:
    task = sst2(bert, data)
    one, same, other = (task.build_model(seed).classifier.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_minilm_starts_near_a_coin_and_learns(shared: Path) -> None:
    task = sst2(shared / "models" / "minilm-l6", shared / "data" / "glue" / "sst2", train_size=60)
    model = task.build_model(0)
    glora.attach(model, glora.presets.alpha_lora(target="(query|value)$", modules_to_save=task.heads))
    before = task.metrics(model, "validation")["loss"]
    assert before == pytest.approx(0.69, abs=0.1)
    result = train(model, task, TrainingSettings(steps=3, batch_size=8, lr=1e-3, device="cpu"))
    assert result.history[-1]["validation"]["loss"] != before


class Hub:
    """A stand-in for the package datasets: GLUE's SST-2 with three splits."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def load_dataset(self, path: str, name: str, *, split: str, revision: str | None = None) -> list[dict[str, Any]]:
        self.asked.append((path, name, split))
        if name != "sst2":
            raise FileNotFoundError(f"{path} has no {name}")
        return reviews(40, {"train": 0, "validation": 1}[split])


def test_without_a_folder_the_rows_come_from_the_hub(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setitem(sys.modules, "datasets", hub)  # type: ignore[arg-type]
    task = Glue(dataset="sst2", model=str(bert), pooling="mean")
    assert (task.size("train+validation"), task.size("test")) == (40, 40)
    assert hub.asked == [("nyu-mll/glue", "sst2", "train"), ("nyu-mll/glue", "sst2", "validation")]
    assert task.metrics(task.build_model(0), "test")["accuracy"] >= 0
    with pytest.raises(ValueError, match=r"nyu-mll/glue/rte \(train\) cannot be had from the hub: .*give task.folder"):
        Glue(dataset="rte", model=str(bert)).check()


def test_the_hub_needs_its_package(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"pip install 'rescale-and-adapt\[hub\]', or give task.folder"):
        Glue(dataset="sst2", model=str(bert)).check()


def test_a_folder_laid_out_like_a_hub_dataset(data: Path, tmp_path: Path) -> None:
    """The real package on local files: what it hands out are rows."""
    pytest.importorskip("datasets")
    lines = ["---", "configs:", "- config_name: sst2", "  data_files:"]
    for split in ("train", "validation"):
        lines += [f"  - split: {split}", f"    path: {split}.jsonl"]
        (tmp_path / f"{split}.jsonl").write_text((data / f"{split}.jsonl").read_text())
    (tmp_path / "README.md").write_text("\n".join([*lines, "---", ""]))
    assert hub_split(str(tmp_path), "sst2", "validation") == read_rows(data / "validation.jsonl")
    with pytest.raises(ValueError, match="cannot be had from the hub"):
        hub_split(str(tmp_path), "rte", "train")


def rows_of(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"sentence": text, "label": label} for text, label in pairs]


GOOD_ROWS = rows_of(*((f"text {i}", i % 2) for i in range(10)))


@pytest.mark.parametrize(
    ("train_rows", "test_rows", "words"),
    [
        (rows_of(*((f"text {i}", 0) for i in range(10))), None, ["every training example has the label 'negative'"]),
        (GOOD_ROWS + rows_of((["a", "list"], 1)), None, ["1 rows have no text as 'sentence'", "the first is row 11"]),
        (rows_of(*((f"text {i}", 1 + i % 2) for i in range(9))), None, ["'2'", "count from 1", "subtract 1"]),
        (GOOD_ROWS, GOOD_ROWS[:3] + rows_of(("new", 0)), ["holds 3 rows of 4 from the training file", "of its own"]),
    ],
    ids=["one class", "a list", "labels from 1", "test in train"],
)
def test_data_that_teach_nothing_are_refused(bert, tmp_path, train_rows, test_rows, words) -> None:
    write_jsonl(tmp_path / "train.jsonl", train_rows)
    write_jsonl(tmp_path / "validation.jsonl", test_rows or rows_of(("new", 0), ("newer", 1)))
    with pytest.raises(ValueError) as caught:
        sst2(bert, tmp_path).check()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_odd_data_are_named_before_training(bert: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", GOOD_ROWS + rows_of(("text 1", 1), ("text 2", 1)))
    write_jsonl(tmp_path / "validation.jsonl", rows_of(("new", 0), ("text 1", 1), ("newer", 0)))
    with pytest.warns(UserWarning, match="look at the data before you train") as caught:
        sst2(bert, tmp_path, max_length=64).check()
    text = str(caught[0].message)
    assert "train: 2 of 12 rows repeat another row's text, 1 of them with another label" in text
    assert "test: 1 of 3 rows stand in train too, the first is row 2" in text
    mnli = [{"premise": f"p {i}", "hypothesis": "h", "label": i % 2} for i in range(10)]
    write_jsonl(tmp_path / "train.jsonl", mnli)
    write_jsonl(tmp_path / "validation_mismatched.jsonl", [{"premise": "q", "hypothesis": "h", "label": 2}])
    with pytest.warns(UserWarning, match="test: no training example is of class 'contradiction'"):
        replace(sst2(bert, tmp_path, max_length=64), dataset="mnli").check()


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("sentence\tlabel\ngood\t1\n", encoding="utf-8-sig")
    (tmp_path / "rows.jsonl").write_text('{"sentence": "good", "label": "1"}\n', encoding="utf-8-sig")
    for name in ("rows.tsv", "rows.jsonl"):
        assert read_rows(tmp_path / name) == [{"sentence": "good", "label": "1"}]
