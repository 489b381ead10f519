"""Pretrained text models and their tokenizers: what is wrong with them is said in a sentence."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from glora.tasks.hub import from_hub

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


def check_inputs(name: str, tokenizer: Any, max_length: int, revision: str | None = None) -> None:
    """Raise ValueError if a text model cannot take what its tokenizer makes of texts, cut to `max_length` tokens.

    Tokens must be in its table of embeddings, and positions in its table of positions, if it has one: a model that
    computes positions (rotary, relative) has no such limit.

    Args:
        name: hub name or folder of the model.
        tokenizer: from `load_tokenizer`.
        max_length: the task's.
        revision: of the model on the hub.
    """
    sketch = _sketch(name, revision)
    words = sketch.get_input_embeddings()
    if isinstance(words, nn.Embedding) and len(tokenizer) > words.num_embeddings:
        raise ValueError(
            f"task.model={name!r} has embeddings of {words.num_embeddings} tokens, but its tokenizer has "
            f"{len(tokenizer)}; give the tokenizer that the model was trained with"
        )
    limit = _positions(sketch)
    if limit is not None and max_length > limit:
        raise ValueError(
            f"task.max_length={max_length} is more than the {limit} positions of task.model={name!r}; lower it"
        )


def most_tokens(name: str, revision: str | None = None) -> int | None:
    """Number of tokens that a text model has positions for; None where it has no such limit.

    Raises:
        ValueError: there is no such model.
    """
    return _positions(_sketch(name, revision))


def _positions(sketch: Any) -> int | None:
    limits = [
        table.num_embeddings - _first_position(table)
        for key, table in sketch.named_modules()
        if isinstance(table, nn.Embedding) and key.rpartition(".")[2] in POSITIONS
    ]
    return min(limits, default=None)


def _first_position(table: nn.Embedding) -> int:
    """Where the first token stands: RoBERTa's relatives count on from their padding, BART's from an offset."""
    return int(getattr(table, "offset", 0 if table.padding_idx is None else table.padding_idx + 1))


def _sketch(name: str, revision: str | None) -> Any:
    """The model without weights."""
    import transformers

    with loading(f"task.model={name!r}"):
        config = transformers.AutoConfig.from_pretrained(name, **from_hub(revision))
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


def load_tokenizer(name: str, gguf_file: str | None = None, revision: str | None = None) -> Any:
    """The tokenizer of a model; one without a padding token pads with the end-of-text token.

    Raises:
        ValueError: there is none (transformers makes one of special tokens out of nothing), it has nothing to pad
            with, or the reader of its file is not installed.
    """
    import transformers

    extra = {**from_hub(revision), **gguf_options(gguf_file)}
    with loading(f"the tokenizer of task.model={name!r}"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **extra)
    known = len(tokenizer) - len(set(tokenizer.all_special_ids))
    if known < FEWEST_TOKENS:
        raise ValueError(
            f"the tokenizer of task.model={name!r} knows {known} tokens beside special ones; put the tokenizer's files "
            "(tokenizer.json or a vocabulary) beside the model's"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(
                f"the tokenizer of task.model={name!r} has neither a padding nor an end-of-text token, so texts of "
                "unlike length cannot be put into a batch; name one in its tokenizer_config.json (pad_token)"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
