"""Instruction tuning and multiple choice: what is masked, what is normalised, and that both learn."""

from __future__ import annotations

import importlib.util
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import glora
from glora.runs.settings import TrainingSettings
from glora.tasks import make_task
from glora.tasks.base import Task
from glora.tasks.text.causal import IGNORED, alpaca_prompt, chat_prompt, encode, token_losses
from glora.tasks.text.instruct import Instruct
from glora.tasks.text.loading import load_tokenizer
from glora.tasks.text.multiple_choice import MultipleChoice
from glora.tasks.text.packing import check_packable, rows_of, share_prompts, why_not_packable
from glora.training.loop import train
from paper_checks.demo.tiny_text import save_model, save_tokenizer, write_jsonl

CHAT = "{% for m in messages %}question {{ m['content'] }} answer {% endfor %}"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=128)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = CHAT
    tokenizer.bos_token, tokenizer.eos_token = "[CLS]", "[SEP]"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"instruction": f"was the film {word} ?", "input": "", "output": answer}
            for word, answer in (("good", "yes"), ("bad", "no"), ("fine", "yes"), ("poor", "no"))] * 15  # fmt: skip
    return write_jsonl(tmp_path_factory.mktemp("data") / "instruct.jsonl", rows)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"question": f"was {word} {i % 10}", "choices": ["yes", "no no no"], "answer": answer}
            for i in range(10) for word, answer in (("good", 0), ("bad", 1))]  # fmt: skip
    return write_jsonl(tmp_path_factory.mktemp("data") / "choice.jsonl", rows)


def instruct(llama: Path, file: Path, **options: Any) -> Instruct:
    return Instruct(model=str(llama), file=str(file), **options)


@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_no_loss_is_taken_of_prompts_and_padding(llama: Path, instructions: Path, template: str) -> None:
    task = instruct(llama, instructions, template=template)
    assert isinstance(task, Task)
    batch = task.batch("train", range(4))
    tokenizer = load_tokenizer(str(llama))
    for tokens, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        answer = tokenizer.decode(tokens[labels != IGNORED])
        assert answer in ("yes [SEP]", "no [SEP]")
        assert (labels[mask == 0] == IGNORED).all()
    assert task.weight(batch) == 8  # four answers, each a word and the end


def test_the_loss_is_that_of_transformers(llama: Path, instructions: Path) -> None:
    task = instruct(llama, instructions)
    model = task.build_model(0).eval()
    batch = task.batch("train", range(5))
    torch.testing.assert_close(task.loss(model, batch), model(**batch).loss)
    assert task.metrics(model, "validation")["perplexity"] == pytest.approx(
        math.exp(task.metrics(model, "validation", batch_size=2)["loss"]), rel=1e-4
    )


def test_a_text_begins_as_the_tokenizer_begins_it(llama: Path) -> None:
    tokenizer = load_tokenizer(str(llama))
    start = tokenizer.bos_token_id
    assert tokenizer("")["input_ids"][:1] == [start]
    assert encode(tokenizer, "good film", "yes", special=True, end=False).tokens[0] == start

    def silent(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": tokenizer(text, add_special_tokens=False)["input_ids"]}

    # It knows a first token, as SmolLM2's does, and puts it before no text.
    silent.bos_token_id = start  # type: ignore[attr-defined]
    assert start not in encode(silent, "good film", "yes", special=True, end=False).tokens


def test_prompts() -> None:
    assert "### Input:" not in alpaca_prompt("Do it.")
    assert "### Instruction:\nDo it.\n\n### Input:\nthat\n\n### Response:\n" in alpaca_prompt("Do it.", "that")

    class Bare:
        chat_template = None

    with pytest.raises(ValueError, match="has no chat template; use template='alpaca'"):
        chat_prompt(Bare(), "Do it.")


@pytest.mark.parametrize(("method", "options"), [("lora", {}), ("alpha_lora", {}), ("glora", {"D": "none"})])
def test_instructions_are_learned(llama: Path, instructions: Path, method: str, options: dict[str, Any]) -> None:
    task = instruct(llama, instructions, template="chat")
    model = task.build_model(0)
    glora.attach(model, getattr(glora.presets, method)(rank=4, target="(q|v|o|up|down)_proj$", **options))
    before = task.metrics(model, "test")["loss"]
    result = train(model, task, TrainingSettings(epochs=6, batch_size=8, lr=1e-2, evaluate_every=10, device="cpu"))
    assert task.metrics(model, "test")["loss"] < 0.7 * before
    assert result.best is not None
    assert result.best == min(line["validation"]["loss"] for line in result.history if "validation" in line)


def test_long_prompts_are_an_error_or_left_out(llama: Path, tmp_path: Path) -> None:
    rows = [{"instruction": "good " * (40 if i == 0 else 2), "output": "yes " * 30} for i in range(20)]
    file = write_jsonl(tmp_path / "long.jsonl", rows)
    with pytest.raises(
        ValueError, match=r"1 prompts have 20 tokens or more.*raise task.max_length or set task.drop_long"
    ):
        instruct(llama, file, template="chat", max_length=20).check()
    task = instruct(llama, file, template="chat", max_length=20, drop_long=True)
    assert task.size("train") + task.size("validation") + task.size("test") == 19
    assert all(task.length("train", i) == 20 for i in range(task.size("train")))


def test_bad_instructions(llama: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "bad.jsonl", [{"instruction": "a"}])
    with pytest.raises(ValueError, match="has no column 'output'"):
        instruct(llama, file).check()
    with pytest.raises(ValueError, match="too few for three splits"):
        instruct(llama, write_jsonl(tmp_path / "few.jsonl", [{"instruction": "a", "output": "b"}])).check()
    with pytest.raises(ValueError, match="task.template must be"):
        instruct(llama, file, template="vicuna")
    with pytest.raises(ValueError, match="must be positive"):
        instruct(llama, file, test_fraction=0.95)


def test_gguf_files_need_their_reader(llama: Path, instructions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))
    task = instruct(llama, instructions, gguf_file="x.gguf")
    for call in (task.check, lambda: task.build_model(0)):
        with pytest.raises(ValueError, match=r"task.gguf_file='x.gguf' needs .* 'rescale-and-adapt\[gguf\]'"):
            call()


def choice(llama: Path, file: Path, **options: Any) -> MultipleChoice:
    return MultipleChoice(model=str(llama), file=str(file), **options)


@pytest.mark.parametrize(("kind", "window"), [("sdpa", None), ("eager", None), ("sdpa", 100)])
def test_likelihoods_are_those_of_one_choice_at_a_time(
    llama: Path, questions: Path, kind: str, window: int | None
) -> None:
    task = choice(llama, questions)
    model = task.build_model(0).eval()
    model.set_attn_implementation(kind)
    model.config.sliding_window = window  # which keeps choices from sharing a row, and is wider than any of them
    assert bool(why_not_packable(model)) == bool(window)
    found = task.likelihoods(model, "test", batch_size=7)
    for question, values in list(zip(task._questions("test"), found, strict=True))[:4]:
        for example, value in zip(question.choices, values, strict=True):
            tokens = torch.tensor([example.tokens])
            logs = model(input_ids=tokens).logits[0, :-1].log_softmax(-1)
            one_by_one = logs.gather(1, tokens[0, 1:, None])[example.prompt - 1 :].sum()
            torch.testing.assert_close(value, one_by_one.detach().double(), rtol=1e-4, atol=1e-4)


def test_choices_share_a_prompt_and_do_not_see_each_other(llama: Path, tmp_path: Path) -> None:
    row = {"question": "was the film good ?", "choices": ["yes", "no no", "fine film yes"], "answer": 0}
    task = choice(llama, write_jsonl(tmp_path / "one.jsonl", [row, {**row, "question": "bad ?"}]))
    model = task.build_model(0).eval()
    groups = [question.choices for question in task._questions("test")]
    batch = share_prompts(groups, 0)
    assert batch["input_ids"].numel() < sum(len(example.tokens) for group in groups for example in group)
    costs = task.costs(model, batch)
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][(batch["examples"] == 1) & (batch["labels"] != IGNORED)] = 7
    assert (task.costs(model, changed) != costs).tolist() == [False, True, False, False, False, False]


def test_the_choices_of_a_long_question_keep_the_same_end_of_it(llama: Path, tmp_path: Path) -> None:
    row = {"question": "good " * 30, "choices": ["yes", "no no no"], "answer": 0}
    task = choice(llama, write_jsonl(tmp_path / "long.jsonl", [row]), max_length=12)
    whole = choice(llama, write_jsonl(tmp_path / "long.jsonl", [row]))._questions("test")[0].choices
    cut = task._questions("test")[0].choices
    assert max(len(example.tokens) for example in cut) == 12
    assert len({tuple(example.tokens[: example.prompt]) for example in cut}) == 1
    assert all(one.tokens == other.tokens[-len(one.tokens) :] for one, other in zip(cut, whole, strict=True))
    longer = {**row, "choices": ["yes", "no " * 20]}
    cut = choice(llama, write_jsonl(tmp_path / "l.jsonl", [longer]), max_length=12)._questions("test")[0].choices
    assert sorted((example.prompt, len(example.tokens)) for example in cut) == [(1, 2), (1, 12)]
    with pytest.raises(ValueError, match=r"task\.max_length must be a whole number ≥ 2"):
        choice(llama, tmp_path / "l.jsonl", max_length=1)


def test_choices_are_shuffled_and_lengths_counted(llama: Path, questions: Path) -> None:
    task = choice(llama, questions)
    right = [question.answer for question in task._questions("test")]
    assert 0 < sum(right) < len(right)
    assert {length for question in task._questions("test") for length in question.lengths} == {4, 9}
    assert choice(llama, questions, limit=5).size("test") == 5


def test_right_answers_are_learned(llama: Path, questions: Path) -> None:
    with pytest.raises(ValueError, match="holds every question of task.file"):
        _ = choice(llama, questions, train_file=str(questions))._splits
    extra = '{"question": "was poor 1", "choices": ["yes", "no no no"], "answer": 1}\n'
    (tested := questions.with_name("test.jsonl")).write_text(questions.read_text() + extra)
    task = choice(llama, tested, train_file=str(questions))
    assert isinstance(task, Task)
    model = task.build_model(0)
    glora.attach(model, glora.presets.lora(rank=4))
    before = task.metrics(model, "test")
    assert before["low"] <= before["accuracy"] <= before["high"]
    assert before["chance"] == 50
    train(model, task, TrainingSettings(epochs=20, batch_size=8, lr=1e-2, device="cpu"))
    assert task.metrics(model, "test")["accuracy"] > 80


def test_without_a_training_file_there_is_a_test_only(llama: Path, questions: Path) -> None:
    task = choice(llama, questions)
    task.check()
    with pytest.raises(ValueError, match=r"split must be one of test; got 'train'; give task.train_file"):
        task.size("train")


def test_questions_longer_than_the_model_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    config = transformers.GPT2Config(vocab_size=save_tokenizer(folder), n_positions=32, n_embd=8, n_layer=1, n_head=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    row = {"question": "good " * 60, "choices": ["yes", "no"], "answer": 0}
    file = write_jsonl(tmp_path / "long.jsonl", [row])
    with pytest.raises(ValueError, match=r"task\.max_length=\d+ is more than the 32 positions"):
        choice(folder, file).check()
    choice(folder, file, max_length=32).check()


def test_a_damaged_model_is_named(llama: Path, questions: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"task\.model='.*' cannot be loaded"):
        choice(tmp_path / "model", questions).build_model(0)


def test_bad_questions(llama: Path, tmp_path: Path) -> None:
    rows = [{"question": "a", "choices": ["x", "y"], "answer": 2}, {"question": "a", "choices": ["x"], "answer": 0}]
    with pytest.raises(ValueError, match=r"row 1 has answer 2(.|\n)*row 2 has answer 0"):
        choice(llama, write_jsonl(tmp_path / "bad.jsonl", rows)).check()
    good = {"question": "a", "choices": ["x", "y"], "answer": 1}
    for bad in ({"choices": ["x", None]}, {"choices": ["x", ["y"]]}, {"choices": ["x", " "]}, {"question": ["a"]},
                {"answer": True}, {"choices": None}):  # fmt: skip
        with pytest.raises(ValueError, match=r"the questions cannot be used"):
            choice(llama, write_jsonl(tmp_path / "bad.jsonl", [good, good | bad])).check()
    with pytest.raises(ValueError, match="needs model, file"):
        make_task("multiple_choice", {})


def test_what_is_no_text_is_named(llama: Path, instructions: Path, tmp_path: Path) -> None:
    good = {"instruction": "a", "input": "", "output": "yes"}
    for key in ("instruction", "input", "output"):
        for bad in (["yes"], {"a": 1}, True):
            with pytest.raises(ValueError, match=rf"1 rows have no text as '{key}', the first is row 2"):
                instruct(llama, write_jsonl(tmp_path / "bad.jsonl", [good, {**good, key: bad}])).check()
    with pytest.warns(UserWarning, match=r"1 of 31 outputs are empty, the first in row 2"):
        instruct(llama, write_jsonl(tmp_path / "bad.jsonl", [good, {**good, "output": ""}, *[good] * 29])).check()
    with pytest.raises(ValueError, match=r"task.revision='main' is a version on the hub"):
        instruct(llama, instructions, revision="main").check()


def test_padding_is_invisible(llama: Path, instructions: Path) -> None:
    task = instruct(llama, instructions)
    model = task.build_model(0).eval()
    together, wanted = token_losses(model, task.batch("train", range(3)))
    for row in range(3):
        alone, mask = token_losses(model, task.batch("train", [row]))
        torch.testing.assert_close(together[row][wanted[row]], alone[0][mask[0]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_packed_losses_and_gradients_are_those_of_one_example_a_row(llama: Path, tmp_path: Path, kind: str) -> None:
    rows = [{"instruction": "good " * (i % 7 + 1), "output": "yes no film " * (i % 5 + 1)} for i in range(40)]
    file = write_jsonl(tmp_path / "mixed.jsonl", rows)
    plain, packed = (
        instruct(llama, file, template="chat", max_length=48, packing=packing) for packing in (False, True)
    )
    model = packed.build_model(0).eval()
    model.set_attn_implementation(kind)
    glora.attach(model, glora.presets.alpha_lora(rank=2), generator=torch.Generator().manual_seed(0))
    found = []
    for task in (plain, packed):
        batch = task.batch("train", range(12))
        loss = task.loss(model, batch)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        found.append((loss.detach(), torch.autograd.grad(loss, parameters), task.costs(model, batch), batch))
    (loss, gradients, costs, wide), (same, equal, each, dense) = found
    torch.testing.assert_close(same, loss, rtol=1e-5, atol=1e-6)
    for one, other in zip(equal, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(each, costs, rtol=1e-5, atol=1e-5)
    assert plain.weight(wide) == packed.weight(dense)
    assert dense["input_ids"].numel() < wide["input_ids"].numel()
    assert plain.metrics(model, "test")["loss"] == pytest.approx(packed.metrics(model, "test")["loss"], rel=1e-5)


def test_packed_examples_do_not_see_each_other(llama: Path, instructions: Path) -> None:
    task = instruct(llama, instructions, template="chat", packing=True)
    model = task.build_model(0).eval()
    batch = task.batch("train", range(6))
    assert len(batch["input_ids"]) == 1
    costs = task.costs(model, batch)
    batch["input_ids"][batch["examples"] == 2] = 7
    changed = task.costs(model, batch)
    assert (changed != costs).tolist() == [i == 2 for i in range(6)]


def test_rows_are_filled() -> None:
    lengths = [5, 9, 3, 7, 1, 10, 2]
    rows = rows_of(lengths, 10)
    assert sorted(i for row in rows for i in row) == list(range(7))
    assert [sum(lengths[i] for i in row) for row in rows] == [10, 10, 10, 7]


def test_packing_needs_a_model_that_keeps_examples_apart(llama: Path, instructions: Path) -> None:
    model = instruct(llama, instructions).build_model(0)
    check_packable(model)
    model.config.sliding_window = 8
    with pytest.raises(ValueError, match="needs full attention in every layer"):
        check_packable(model)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="needs attention eager or sdpa, the model has 'flash_attention_2'"):
        check_packable(model)


def test_a_packed_run_is_trained_like_any_other(llama: Path, instructions: Path) -> None:
    losses = []
    for packing in (False, True):
        task = instruct(llama, instructions, template="chat", packing=packing)
        model = task.build_model(0)
        glora.attach(model, glora.presets.lora(rank=2), generator=torch.Generator().manual_seed(0))
        train(model, task, TrainingSettings(steps=4, batch_size=8, lr=1e-2, device="cpu"))
        losses.append(task.metrics(model, "test")["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
