"""What tasks for causal language models share: prompts, token sequences with masked prompts, likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from glora.tasks.base import Batch
from glora.tasks.hub import check_revision, from_hub
from glora.tasks.rows import expand
from glora.tasks.text.loading import check_inputs, gguf_options, load_tokenizer, loading, quiet

#: Label of a token that no loss is taken of.
IGNORED = -100

ALPACA = (
    "Below is an instruction that describes a task{paired}. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{instruction}{input}\n\n### Response:\n"
)


@dataclass(frozen=True)
class Example:
    """Tokens of one example.

    Attributes:
        tokens: prompt and target.
        prompt: number of tokens of the prompt, which no loss is taken of.
    """

    tokens: list[int]
    prompt: int


def alpaca_prompt(instruction: str, context: str = "") -> str:
    """The prompt of Stanford Alpaca, with or without an input."""
    paired = ", paired with an input that provides further context" if context else ""
    given = f"\n\n### Input:\n{context}" if context else ""
    return ALPACA.format(paired=paired, instruction=instruction, input=given)


def chat_prompt(tokenizer: Any, instruction: str, context: str = "") -> str:
    """The prompt by the tokenizer's own chat template.

    Raises:
        ValueError: the tokenizer has none.
    """
    if tokenizer.chat_template is None:
        raise ValueError("task.template='chat', but the tokenizer has no chat template; use template='alpaca'")
    text = f"{instruction}\n\n{context}" if context else instruction
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
    )


def encode(tokenizer: Any, prompt: str, target: str, *, special: bool, end: bool) -> Example:
    """Prompt and target as tokens, put together after tokenizing each, so that the border is where it is said.

    Args:
        tokenizer: of transformers.
        prompt, target: texts.
        special: whether the token that the tokenizer itself begins a text with, if it does, is put before the prompt
            (a chat template brings its own).
        end: whether the end-of-text token follows the target.
    """
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if special and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:
        before = [tokenizer.bos_token_id, *before]
    after = tokenizer(target, add_special_tokens=False)["input_ids"]
    if end and tokenizer.eos_token_id is not None:
        after = [*after, tokenizer.eos_token_id]
    return Example([*before, *after], len(before))


def pad(sequences: Sequence[Example], padding: int) -> Batch:
    """Sequences as one batch padded on the right, with the labels of prompts and padding ignored."""
    # shape: all (sequences, longest)
    longest = max(len(sequence.tokens) for sequence in sequences)
    tokens = torch.full((len(sequences), longest), padding)
    labels = torch.full((len(sequences), longest), IGNORED)
    mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        length = len(sequence.tokens)
        tokens[row, :length] = torch.tensor(sequence.tokens)
        labels[row, sequence.prompt : length] = tokens[row, sequence.prompt : length]
        mask[row, :length] = 1
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def attention(examples: Tensor, shared: Tensor | None = None) -> Tensor:
    """The additive mask by which a token sees its own example up to itself: block-diagonal and causal.

    Args:
        examples: number of each token's example, shape (rows, tokens).
        shared: true where a token is seen by all later ones of its row, whatever their example; the same shape.

    Returns:
        0 where token i may look at token j and the most negative float32 elsewhere, shape (rows, 1, i, j).
    """
    tokens = examples.shape[1]
    earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=examples.device).tril()
    seen = examples[:, :, None] == examples[:, None, :]
    if shared is not None:
        seen = seen | shared[:, None, :]
    seen = seen & earlier
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape, device=examples.device).masked_fill_(~seen, lowest)[:, None]


def token_losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of every target token, and where targets are; both (rows, tokens − 1).

    Args:
        model: a causal language model.
        batch: from `pad`, or from `glora.tasks.text.packing`.
    """
    if "examples" in batch:
        mask = attention(batch["examples"], batch.get("shared"))
        seen = {"attention_mask": mask, "position_ids": batch["position_ids"]}
    else:
        seen = {"attention_mask": batch["attention_mask"]}
    logits = model(input_ids=batch["input_ids"], **seen).logits[:, :-1].float()
    labels = batch["labels"][:, 1:]
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return losses, labels != IGNORED


@dataclass(frozen=True, kw_only=True)
class CausalTask:
    """What is the same in every task for causal language models: the model, and a likelihood as the loss.

    Args:
        model: hub name or folder of a causal language model; ``$VARIABLES`` are replaced.
        gguf_file: name of a GGUF file in the model's folder, where the weights are in one (extra ``gguf``).
        revision: commit, tag or branch of the model on the hub; None takes the newest.
    """

    model: str
    gguf_file: str | None = None
    revision: str | None = None

    heads = ()

    @cached_property
    def _model_path(self) -> str:
        found = expand("task.model", self.model)
        check_revision("task.revision", self.revision, found)
        return found

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self._model_path, self.gguf_file, self.revision)

    def build_model(self, seed: int) -> nn.Module:
        """The pretrained model in float32; there is no new head, so `seed` draws nothing.

        Raises:
            ValueError: there is no such model, or the reader of its file is not installed.
        """
        import transformers

        extra: dict[str, Any] = {**from_hub(self.revision), **gguf_options(self.gguf_file)}
        with quiet(), loading(f"task.model={self.model!r}"):
            return transformers.AutoModelForCausalLM.from_pretrained(self._model_path, dtype=torch.float32, **extra)

    def check_model(self, max_length: int) -> None:
        """Raise ValueError if the model cannot take so many tokens, or not those of its tokenizer.

        The shapes of a model in a GGUF file are not known before it is read in full, so it is not looked at.
        """
        if self.gguf_file is None:
            check_inputs(self._model_path, self.tokenizer, max_length, self.revision)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Negative log-likelihood, a mean over target tokens."""
        losses, wanted = token_losses(model, batch)
        return losses.sum() / wanted.sum()

    def costs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Negative log-likelihood of each example's target tokens, their sum in nats: float64 (examples,)."""
        losses, wanted = token_losses(model, batch)
        if "examples" not in batch:
            return losses.double().sum(1)
        owners = batch["examples"]
        sums = torch.zeros(int(owners.max()) + 1, dtype=torch.float64, device=losses.device)
        return sums.index_add_(0, owners[:, 1:][wanted], losses[wanted].double())

    def weight(self, batch: Batch) -> float:
        """Number of target tokens."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())
