"""The hand-over to lm-evaluation-harness, against a stand-in for it; the real one where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import glora
from glora.integrations.lm_eval import evaluate, main
from glora.runs.config import RunConfig, read
from glora.runs.folder import Run
from glora.runs.settings import TrainingSettings
from glora.tasks.text.loading import load_tokenizer
from glora.tuning.restore import restore
from glora.tuning.tune import tune
from paper_checks.demo.tiny_text import save_model, save_reviews, write_jsonl

ROOT = Path(glora.__file__).parent.parent
TRAINING = TrainingSettings(steps=4, batch_size=8, lr=5e-2, device="cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=128)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.bos_token, tokenizer.eos_token = "[CLS]", "[SEP]"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shipped file for LLaMA-7B, with a tiny model and few examples."""
    folder = tmp_path_factory.mktemp("run")
    answers = (("good", "yes"), ("bad", "no"))
    rows = [{"instruction": f"was the film {word} ?", "output": answer} for word, answer in answers] * 60
    file = write_jsonl(folder / "instruct.jsonl", rows)
    changes = {"task.model": f'"{llama}"', "task.file": f'"{file}"', "out": f'"{folder / "run"}"', "test": "false",
               "training.device": '"cpu"', "training.batch_size": 32, "training.lr": 3e-2}  # fmt: skip
    config = read(ROOT / "configs" / "llama_alpaca.toml", [f"{key}={value}" for key, value in changes.items()])
    result = tune(config)
    assert result["parameters"] == 2 * (7 * (32 + 32) + 32 + 32 + 7 * (32 + 16) + 16 + 16)
    return config.out


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A stand-in for the harness that asks the model one thing and notes how it was called."""
    seen: list[dict[str, Any]] = []

    class HFLM:
        def __init__(self, pretrained: Any, **options: Any) -> None:
            self.model, self.options = pretrained, options

    class TaskManager:
        def __init__(self, include_path: str | None = None) -> None:
            self.include_path = include_path

        def match_tasks(self, names: list[str]) -> list[str]:
            known = ["arc_easy", "mmlu_a", "mmlu_b"]
            return [k for k in known for n in names if k == n or (n.endswith("*") and k.startswith(n[:-1]))]

    def simple_evaluate(model: HFLM, **options: Any) -> dict[str, Any]:
        assert not model.model.training
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([[2, 6, 7]])).logits
        seen.append({"lm": model, "logits": logits, **options})
        return {
            "results": {name: {"alias": name, "acc,none": 0.25, "acc_stderr,none": 0.1} for name in options["tasks"]}
        }

    modules = {
        "lm_eval": SimpleNamespace(simple_evaluate=simple_evaluate),
        "lm_eval.models": ModuleType("lm_eval.models"),
        "lm_eval.models.huggingface": SimpleNamespace(HFLM=HFLM),
        "lm_eval.tasks": SimpleNamespace(TaskManager=TaskManager),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def logits_of(run: str, *, base: bool) -> torch.Tensor:
    model, _ = restore(Run.open(run))
    if base:
        glora.detach(model)
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[2, 6, 7]])).logits


def test_the_harness_gets_the_tuned_model_merged(run: str, calls: list[dict[str, Any]]) -> None:
    results = evaluate(run, ["mmlu_*"], limit=3, few_shot=2, batch_size=5, device="cpu", include_path="there")
    assert list(results) == ["mmlu_a", "mmlu_b"]
    (call,) = calls
    assert (call["num_fewshot"], call["limit"], call["lm"].options["batch_size"]) == (2, 3, 5)
    assert call["task_manager"].include_path == "there"
    assert call["lm"].options["tokenizer"].eos_token == "[SEP]"
    torch.testing.assert_close(call["logits"], logits_of(run, base=False), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(call["logits"], logits_of(run, base=True), rtol=1e-2)


def test_the_model_before_tuning(run: str, calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    words = [run, "--tasks", "arc_easy", "--base", "--device", "cpu"]
    assert main(words) == 0
    assert capsys.readouterr().out == "arc_easy: acc,none 0.25, acc_stderr,none 0.1\n"
    assert main([*words, "--json", "--precision", "bfloat16"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["base"] is True
    assert answer["results"]["arc_easy"]["acc,none"] == 0.25
    assert [call["lm"].options["mixed_precision_dtype"] for call in calls] == [None, "bfloat16"]
    torch.testing.assert_close(calls[0]["logits"], logits_of(run, base=True))


def test_bad_input_is_a_sentence(run: str, calls: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reviews = {
        "name": "glue",
        "dataset": "sst2",
        "model": str(save_model(tmp_path / "bert")),
        "folder": str(save_reviews(tmp_path / "data")),
        "max_length": 64,
    }
    tune(
        RunConfig(
            task=reviews,
            method={"name": "lora", "rank": 2, "target": "query"},
            training=TRAINING,
            test=False,
            out=str(tmp_path / "glue"),
        )
    )
    for words, message in [
        ([run, "--tasks", "arc_hard"], "no task arc_hard; `lm-eval ls tasks`"),
        ([str(tmp_path / "glue"), "--tasks", "arc_easy"], "of task Glue; the harness takes language models"),
        ([str(tmp_path), "--tasks", "arc_easy"], "not the folder of a run"),
        ([run, "--tasks", "arc_easy", "--limit", "0"], "limit must be a whole number ≥ 1, got 0"),
        ([run, "--tasks", "arc_easy", "--few-shot", "-1"], "few_shot must be a whole number ≥ 0, got -1"),
    ]:
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert calls == []


def test_without_the_harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert main(["anything", "--tasks", "arc_easy"]) == 2
    assert "pip install 'rescale-and-adapt[lm]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge", "truthfulqa_mc1"])
def test_shipped_task_files(name: str) -> None:
    yaml = pytest.importorskip("yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined,misc]
        pass

    Loader.add_constructor("!function", lambda loader, node: node.value)
    text = (ROOT / "configs" / "lm_eval" / f"{name}_local.yaml").read_text()
    task = yaml.load(text, Loader)
    assert task["task"] == f"{name}_local"
    assert task["custom_dataset"] == "local.questions"
    assert task["dataset_kwargs"]["file"].endswith(f"/{name}.jsonl")


def test_local_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(Dataset=SimpleNamespace(from_list=list)))
    spec = importlib.util.spec_from_file_location("local", ROOT / "configs" / "lm_eval" / "local.py")
    assert spec is not None
    assert spec.loader is not None
    local = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(local)
    rows = [{"question": "a", "choices": ["x", "y"], "answer": 1}]
    monkeypatch.setenv("QUESTIONS", str(tmp_path))
    write_jsonl(tmp_path / "q.jsonl", rows)
    assert local.questions("$QUESTIONS/q.jsonl", version=1.0) == {"test": rows}
    with pytest.raises(ValueError, match="has no column 'choices'"):
        local.questions(str(write_jsonl(tmp_path / "bad.jsonl", [{"question": "a"}])))
