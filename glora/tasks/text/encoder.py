"""Text models with a classification head: transformers' own, or mean pooling with a linear head."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

#: A part of a pretrained model that many checkpoints lack, because their training did not need it.
POOLER = "pooler"

#: A tokenizer with fewer tokens, special ones not counted, has lost its vocabulary.
FEWEST_TOKENS = 10

#: Names that transformers gives to tables of positions.
POSITIONS = ("position_embeddings", "wpe", "embed_positions")


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without progress bars and without its list of newly made heads, as the caller expects those."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Where transformers reads a file: what is missing or damaged becomes a ValueError about `what`."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = repr(error) if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{what} cannot be loaded: {reason}") from None


class MeanPooledClassifier(nn.Module):
    """A linear head on the mean of an encoder's last hidden states, for sentence-embedding models.

    Args:
        encoder: a transformers encoder without a head.
        labels: number of outputs.
    """

    def __init__(self, encoder: Any, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        self.classifier = nn.Linear(self.config.hidden_size, labels)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # its output is not used, so nothing in it could learn

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> Any:
        """Logits (batch, labels) as ``.logits``, as transformers' classifiers give them."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        # shape: hidden (batch, tokens, width), mask (batch, tokens, 1)
        hidden = self.encoder(attention_mask=attention_mask, **inputs).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)
        return SequenceClassifierOutput(logits=self.classifier(mean))


def build_classifier(name: str, labels: int, pooling: str, seed: int) -> nn.Module:
    """A pretrained text model with a new head, in float32.

    Args:
        name: hub name or folder.
        labels: number of outputs.
        pooling: "mean", or "model" for the pooling of transformers' sequence classifiers.
        seed: of the head's weights.

    Raises:
        ValueError: there is no such model.
    """
    import transformers

    auto = transformers.AutoModel if pooling == "mean" else transformers.AutoModelForSequenceClassification
    options = {} if pooling == "mean" else {"num_labels": labels, "ignore_mismatched_sizes": True}
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with loading(f"task.model={name!r}"):
            model, info = auto.from_pretrained(name, dtype=torch.float32, output_loading_info=True, **options)
        _require_shapes(name, info["mismatched_keys"])
        if pooling == "mean":
            _require_pretrained(name, info["missing_keys"])
            return MeanPooledClassifier(model, labels)
    if model.config.pad_token_id is None:  # decoders find the last token of a row by its padding
        model.config.pad_token_id = load_tokenizer(name).pad_token_id
    return model


def head_names(name: str, labels: int, pooling: str) -> tuple[str, ...]:
    """Names of the modules that are new in a model of `build_classifier`, and of those that stand above its base.

    What transformers puts above the base model is the head, one module (BERT's classifier) or several (DistilBERT's
    pre_classifier and classifier); it trains in full even if the checkpoint has one. A pooler inside the base model
    belongs to it where the checkpoint has none, and would stay as it was drawn otherwise.

    Args:
        name, labels, pooling: as for `build_classifier`.

    Raises:
        ValueError: there is no such model, it has no head that can be told from its base, or the checkpoint lacks
            weights of the base.
    """
    if pooling == "mean":
        return ("classifier",)
    import transformers

    with quiet(), loading(f"task.model={name!r}"):  # on the meta device, the names are read and no weight is
        sketch, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            name, num_labels=labels, device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True
        )
    _require_shapes(name, info["mismatched_keys"])
    base = sketch.base_model
    heads = [
        key for key, child in sketch.named_children() if child is not base and any(True for _ in child.parameters())
    ]
    if base is sketch or not heads:
        raise ValueError(
            f"task.model={name!r}: {type(sketch).__name__} has no head above a base model; use task.pooling='mean'"
        )
    missing = [key for key in info["missing_keys"] if key.split(".")[0] not in heads]
    return (*heads, *_require_pretrained(name, missing))


def _require_shapes(name: str, mismatched: Iterable[tuple[str, Any, Any]]) -> None:
    """Raise ValueError if weights of a checkpoint have other shapes than the model, as a head for other labels has."""
    for key, there, wanted in sorted(mismatched):
        raise ValueError(
            f"task.model={name!r}: {key} has shape {tuple(there)} in the checkpoint, and the task needs "
            f"{tuple(wanted)}; give a checkpoint without a head, or one for as many labels"
        )


def _require_pretrained(name: str, missing: Iterable[str]) -> tuple[str, ...]:
    """The poolers among parameters that a checkpoint lacks.

    Raises:
        ValueError: it lacks others too; they would be random and frozen.
    """
    poolers: dict[str, None] = {}
    others = []
    for key in sorted(missing):
        parts = key.split(".")
        if POOLER in parts:
            poolers[".".join(parts[: parts.index(POOLER) + 1])] = None
        else:
            others.append(key)
    if others:
        shown = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        raise ValueError(
            f"task.model={name!r} lacks {len(others)} weights of the pretrained model ({shown}); "
            "give a complete checkpoint of the architecture that its config.json names"
        )
    return tuple(poolers)


def check_inputs(name: str, tokenizer: Any, max_length: int) -> None:
    """Raise ValueError if a text model cannot take what its tokenizer makes of texts, cut to `max_length` tokens.

    Tokens must be in its table of embeddings, and positions in its table of positions, if it has one: a model that
    computes positions (rotary, relative) has no such limit.

    Args:
        name: hub name or folder of the model.
        tokenizer: from `load_tokenizer`.
        max_length: the task's.
    """
    sketch = _sketch(name)
    words = sketch.get_input_embeddings()
    if isinstance(words, nn.Embedding) and len(tokenizer) > words.num_embeddings:
        raise ValueError(
            f"task.model={name!r} has embeddings of {words.num_embeddings} tokens, but its tokenizer has "
            f"{len(tokenizer)}; give the tokenizer that the model was trained with"
        )
    limits = [
        table.num_embeddings - _first_position(table)
        for key, table in sketch.named_modules()
        if isinstance(table, nn.Embedding) and key.rpartition(".")[2] in POSITIONS
    ]
    if limits and max_length > min(limits):
        raise ValueError(
            f"task.max_length={max_length} is more than the {min(limits)} positions of task.model={name!r}; lower it"
        )


def _first_position(table: nn.Embedding) -> int:
    """Where the first token stands: RoBERTa's relatives count on from their padding, BART's from an offset."""
    return int(getattr(table, "offset", 0 if table.padding_idx is None else table.padding_idx + 1))


def _sketch(name: str) -> Any:
    """The model without weights."""
    import transformers

    with loading(f"task.model={name!r}"):
        config = transformers.AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            return transformers.AutoModel.from_config(config)


def gguf_options(gguf_file: str | None) -> dict[str, str]:
    """What ``from_pretrained`` is told about weights in a GGUF file, if they are in one.

    Raises:
        ValueError: the package that reads such files is not installed.
    """
    if gguf_file is None:
        return {}
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(f"task.gguf_file={gguf_file!r} needs the package gguf; pip install 'rescale-and-adapt[gguf]'")
    return {"gguf_file": gguf_file}


def load_tokenizer(name: str, gguf_file: str | None = None) -> Any:
    """The tokenizer of a model; one without a padding token pads with the end-of-text token.

    Raises:
        ValueError: there is none (transformers makes one of special tokens out of nothing), or the reader of its file
            is not installed.
    """
    import transformers

    extra = gguf_options(gguf_file)
    with loading(f"the tokenizer of task.model={name!r}"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **extra)
    known = len(tokenizer) - len(set(tokenizer.all_special_ids))
    if known < FEWEST_TOKENS:
        raise ValueError(
            f"the tokenizer of task.model={name!r} knows {known} tokens beside special ones; put the tokenizer's files "
            "(tokenizer.json or a vocabulary) beside the model's"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
