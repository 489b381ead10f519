"""Every shipped file for text runs from beginning to end on a tiny model and tiny data in place of its own.

The files for images run in `test_searching`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glora.runs.config import RunConfig, read
from glora.runs.folder import Run
from glora.searching import SearchRun
from glora.tasks import make_task
from glora.tasks.text.loading import load_tokenizer
from glora.tuning.restore import require_same_model, restore
from glora.tuning.tune import tune
from paper_checks.demo.tiny_text import save_model, save_reviews, write_jsonl

CONFIGS = Path(__file__).parents[3] / "configs"
CHAT = "{% for m in messages %}question {{ m['content'] }} answer {% endfor %}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, reviews, instructions and questions."""
    folder = tmp_path_factory.mktemp("tiny")
    for kind in ("bert", "roberta", "llama"):
        save_model(folder / kind, kind, max_position_embeddings=512)
    tokenizer = load_tokenizer(str(folder / "llama"))
    tokenizer.chat_template, tokenizer.eos_token = CHAT, "[SEP]"
    tokenizer.save_pretrained(folder / "llama")
    save_reviews(folder / "reviews")
    words = ("good", "bad", "fine", "poor")
    rows = [{"instruction": f"was the film {words[i % 4]} ?", "output": "yes" if i % 2 else "no"} for i in range(60)]
    write_jsonl(folder / "instruct.jsonl", rows)
    asked = [{"question": f"was the film {word} ?", "choices": ["yes", "no"], "answer": 0} for word in words]
    write_jsonl(folder / "choice.jsonl", asked)
    return folder


def shrunk(name: str, tiny: Path, out: Path) -> RunConfig:
    """A shipped run with its model and data replaced by tiny ones."""
    config = read(CONFIGS / f"{name}.toml")
    task: dict[str, Any] = {key: value for key, value in config.task.items() if key not in ("gguf_file", "train_size")}
    if task["name"] == "glue":
        kind = "roberta" if "roberta" in task["model"] else "bert"
        task |= {"dataset": "sst2", "folder": str(tiny / "reviews"), "model": str(tiny / kind)}
        task |= {"max_length": min(task.get("max_length", 128), 500)}
    else:
        file = "choice" if task["name"] == "multiple_choice" else "instruct"
        task |= {"file": str(tiny / f"{file}.jsonl"), "model": str(tiny / "llama")}
    training = replace(config.training, epochs=2.0, batch_size=4, micro_batch_size=2, evaluate_every=0, device="cpu")
    training = replace(training, alpha=replace(training.alpha, every=2))
    return replace(config, task=task, training=training, out=str(out))


@pytest.mark.parametrize("name", ["glue_mrpc", "glue_roberta_mnli", "smollm_alpaca", "llama_alpaca"])
def test_runs(name: str, tiny: Path, tmp_path: Path) -> None:
    config = shrunk(name, tiny, tmp_path / name)
    result = tune(config)
    assert "test" in result
    if config.task["name"] == "instruct":  # its model is asked questions as the file's own words say
        asked = shrunk("arc_easy", tiny, tmp_path)
        model, task = restore(Run.open(tmp_path / name))
        other: Any = make_task(asked.task["name"], asked.task_options)
        require_same_model(task, other)
        assert 0 <= other.metrics(model, "test")["accuracy"] <= 100


def test_a_search(tiny: Path, tmp_path: Path) -> None:
    config = shrunk("smollm_search", tiny, tmp_path / "search")
    options = {"parameters": 500, "rank": 2, "engine": {**config.method["engine"], "generations": 1}}
    result = SearchRun(replace(config, method={**config.method, **options})).all()
    assert "loss" in result["retrained"]
