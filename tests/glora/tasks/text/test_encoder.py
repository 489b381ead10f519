"""Text models with new heads: what is new trains and is saved, whatever transformers calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import glora
from glora.tasks.text.glue import Glue
from glora.tasks.text.loading import quiet
from glora.tuning.methods import apply
from paper_checks.demo.tiny_text import save_model, save_tokenizer

POOLINGS = ("model", "mean")


def tiny(kind: str, words: int) -> Any:
    """A tiny model of transformers as its checkpoints come: the base, or with the head of its pretraining."""
    import transformers as t

    sizes: dict[str, Any] = {
        "vocab_size": words, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0,
    }  # fmt: skip
    if kind == "distilbert":
        return t.DistilBertModel(
            t.DistilBertConfig(vocab_size=words, dim=32, n_layers=1, n_heads=2, hidden_dim=32, pad_token_id=0)
        )
    if kind == "deberta":
        return t.DebertaV2Model(t.DebertaV2Config(**sizes))
    if kind == "modernbert":
        special = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
        return t.ModernBertForMaskedLM(t.ModernBertConfig(**sizes, **special))
    if kind == "xlnet":
        return t.XLNetModel(t.XLNetConfig(vocab_size=words, d_model=32, n_layer=1, n_head=2, d_inner=32))
    if kind == "t5":
        config = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
        return t.T5Model(t.T5Config(vocab_size=words, pad_token_id=0, eos_token_id=3, **config))
    return t.BertForMaskedLM(t.BertConfig(**sizes))


def save_tiny(folder: Path, kind: str) -> Path:
    words = save_tokenizer(folder)
    with quiet():
        tiny(kind, words).save_pretrained(folder)
    return folder


HEADS = {
    "distilbert": ("pre_classifier", "classifier"),
    "deberta": ("pooler", "classifier"),
    "modernbert": ("head", "classifier"),
    "xlnet": ("sequence_summary", "logits_proj"),
    "t5": ("classification_head",),
    "masked bert": ("classifier", "bert.pooler"),  # a masked-language checkpoint has no pooler
}


@pytest.mark.parametrize("kind", HEADS)
def test_all_that_is_new_trains_and_is_saved(data: Path, tmp_path: Path, kind: str) -> None:
    task = Glue(dataset="sst2", model=str(save_tiny(tmp_path / "model", kind)), folder=str(data))
    assert task.heads == HEADS[kind]
    model = task.build_model(0)
    new = {
        name
        for (name, one), (_, other) in zip(
            model.named_parameters(), task.build_model(1).named_parameters(), strict=True
        )
        if not torch.equal(one, other)
    }
    assert new  # drawn by the seed, hence not of the checkpoint
    apply(model, "lora", {"rank": 2}, task.heads)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for name in new:
        head = next(head for head in task.heads if name.startswith(f"{head}."))
        assert name.replace(head, f"{head}.adapters.default", 1) in trained
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter += 0.1
    glora.save(model, tmp_path / "adapter")
    again = task.build_model(2)  # with other heads, which the adapter's replace
    glora.load(again, tmp_path / "adapter")
    if kind == "t5":  # classifies the end-of-text token, which this tokenizer does not write
        return
    torch.testing.assert_close(task.logits(again, "test"), task.logits(model, "test"), rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "head"), [("bert", "classifier"), ("roberta", "classifier"), ("llama", "score")])
def test_one_head_stays_one(data: Path, tmp_path: Path, kind: str, head: str) -> None:
    assert Glue(dataset="sst2", model=str(save_model(tmp_path, kind)), folder=str(data)).heads == (head,)


def test_a_checkpoint_with_a_head_trains_it(data: Path, tmp_path: Path) -> None:
    task = Glue(dataset="sst2", model=str(save_tiny(tmp_path / "base", "distilbert")), folder=str(data))
    with quiet():
        task.build_model(3).save_pretrained(tmp_path / "base")
    with_head = Glue(dataset="sst2", model=str(tmp_path / "base"), folder=str(data))
    assert with_head.heads == HEADS["distilbert"]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_incomplete_checkpoint_is_refused(data: Path, tmp_path: Path, pooling: str) -> None:
    from safetensors.torch import load_file, save_file

    save_model(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {key: value for key, value in load_file(path).items() if "layer.1.output" not in key}
    save_file(tensors, path, metadata={"format": "pt"})
    task = Glue(dataset="sst2", model=str(tmp_path), folder=str(data), pooling=pooling)
    with pytest.raises(ValueError, match=r"lacks 4 weights of the pretrained model \(.*encoder\.layer\.1\.output"):
        _ = task.heads
        task.build_model(0)


def test_a_model_without_a_head_above_a_base(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertForSequenceClassification

    monkeypatch.setattr(BertForSequenceClassification, "base_model_prefix", "")
    task = Glue(dataset="sst2", model=str(save_model(tmp_path)), folder=str(data))
    with pytest.raises(ValueError, match=r"BertForSequenceClassification has no head above a base model"):
        _ = task.heads
