"""Pretrained text models and tokenizers that do not fit each other are refused in a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glora.tasks.text.glue import Glue
from glora.tasks.text.loading import quiet
from paper_checks.demo.tiny_text import save_model, save_tokenizer
from tests.glora.tasks.text.test_encoder import POOLINGS, save_tiny


@pytest.mark.parametrize(("kind", "limit"), [("bert", 64), ("roberta", 63), ("llama", None), ("deberta", 64)])
def test_no_input_is_longer_than_the_models_positions(data: Path, tmp_path: Path, kind: str, limit: int | None) -> None:
    save = save_tiny if kind == "deberta" else save_model
    folder = save(tmp_path / "model", kind)
    if limit is None:  # positions are computed
        Glue(dataset="sst2", model=str(folder), folder=str(data), max_length=10_000).check()
        return
    task = Glue(dataset="sst2", model=str(folder), folder=str(data), max_length=limit)
    task.check()
    longest = {"input_ids": torch.full((1, limit), 7), "attention_mask": torch.ones(1, limit, dtype=torch.long)}
    assert task.build_model(0)(**longest).logits.shape == (1, 2)
    with pytest.raises(ValueError, match=f"task.max_length={limit + 1} is more than the {limit} positions of task.mod"):
        replace(task, max_length=limit + 1).check()


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "deberta", "xlnet", "t5"])
def test_a_folder_without_its_tokenizer(data: Path, tmp_path: Path, kind: str) -> None:
    """transformers makes a tokenizer of special tokens then, for which every word is unknown."""
    folder = (save_model if kind in ("bert", "roberta") else save_tiny)(tmp_path, kind)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"the tokenizer of task.model=.* knows \d tokens beside special ones; put the"
    ):
        Glue(dataset="sst2", model=str(folder), folder=str(data), max_length=32).check()


def test_a_tokenizer_of_another_model(data: Path, tmp_path: Path) -> None:
    words = save_tokenizer(tmp_path)
    save_model(tmp_path, vocab_size=words - 3)
    with pytest.raises(ValueError, match=rf"has embeddings of {words - 3} tokens, but its tokenizer has {words};"):
        Glue(dataset="sst2", model=str(tmp_path), folder=str(data), max_length=32).check()


def test_damaged_models_are_named(data: Path, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    folder = save_model(tmp_path)
    tasks = [Glue(dataset="sst2", model=str(folder), folder=str(data), max_length=32, pooling=p) for p in POOLINGS]
    with quiet():
        BertForSequenceClassification.from_pretrained(folder, num_labels=3).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"classifier.bias has shape \(3,\) in the checkpoint, .* needs \(2,\); give"):
        tasks[0].check()
    tasks[1].check()  # which does not use that head
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    for task in tasks:
        with pytest.raises(ValueError, match=r"task.model='.*' cannot be loaded: "):
            task.build_model(0)
    for content in ("{broken", "{}"):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(ValueError, match=r"the tokenizer of task.model='.*' cannot be loaded: "):
            replace(tasks[1]).check()


def test_a_tokenizer_with_nothing_to_pad_with(data: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace('"pad_token"', '"no_token"'))
    with pytest.raises(ValueError, match="has neither a padding nor an end-of-text token.*pad_token"):
        Glue(dataset="sst2", model=str(folder), folder=str(data), max_length=64).check()
