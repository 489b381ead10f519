"""Tiny text models and data with their own vocabulary, made on the spot: for the demo and for tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from glora.tasks.text.loading import quiet

GOOD = ("good", "fine", "great", "lovely")
BAD = ("bad", "poor", "awful", "dull")
NEUTRAL = ("the", "film", "was", "and", "plot", "a", "very", "one")
NEGATION = "not"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_tokenizer(folder: Path) -> int:
    """A word tokenizer in `folder`; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *GOOD, *BAD, *NEUTRAL, *"?.:0123456789ABCD", NEGATION, "yes", "no", "answer", "question"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **names).save_pretrained(folder)
    return len(vocabulary)


def save_model(folder: Path, kind: str = "bert", **changes: Any) -> Path:
    """A tiny random model of a kind (bert, roberta, llama) with its tokenizer in `folder`."""
    size = save_tokenizer(folder)
    sizes: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "initializer_range": 0.3,
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _build(kind, sizes)
    with quiet():
        model.save_pretrained(folder)
    return folder


def _build(kind: str, sizes: dict[str, Any]) -> Any:
    import transformers

    if kind == "llama":
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**sizes, num_key_value_heads=1, bos_token_id=2, eos_token_id=3)
        )
    if kind == "roberta":
        return transformers.RobertaModel(transformers.RobertaConfig(**sizes))
    return transformers.BertModel(transformers.BertConfig(**sizes))


def reviews(number: int, seed: int, *, negated: float = 0.0) -> list[dict[str, Any]]:
    """Sentences whose label is that of their only opinion, turned over by a "not" in a part of them."""
    draw = random.Random(seed)
    rows = []
    for i in range(number):
        label, turned = draw.randrange(2), draw.random() < negated
        words = [draw.choice(NEUTRAL) for _ in range(draw.randrange(2, 7))]
        opinion = draw.choice(GOOD if label != turned else BAD)
        place = draw.randrange(len(words))
        words[place:place] = [NEGATION, opinion] if turned else [opinion]
        rows.append({"sentence": " ".join(words), "label": label, "idx": i})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def save_reviews(folder: Path, train: int = 80, test: int = 40, *, negated: float = 0.0) -> Path:
    """A tiny SST-2 in `folder`."""
    write_jsonl(folder / "train.jsonl", reviews(train, 0, negated=negated))
    write_jsonl(folder / "validation.jsonl", reviews(test, 1, negated=negated))
    return folder
