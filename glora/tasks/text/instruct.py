"""Instruction tuning of a causal language model on Alpaca-style JSONL; the loss is taken of responses only."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from glora._checks import is_number, whole
from glora.tasks.base import Batch, chunks, device_of, to_device
from glora.tasks.rows import column_problems, expand, read_rows, text_problems
from glora.tasks.text.causal import CausalTask, Example, alpaca_prompt, chat_prompt, encode, pad, token_losses
from glora.tasks.text.packing import check_packable, pack


@dataclass(frozen=True, kw_only=True)
class Instruct(CausalTask):
    """Instruction tuning; the fields are the keys of ``[task]`` with ``name = "instruct"``. See
    `glora.tasks.base.Task`, and `glora.tasks.text.causal.CausalTask` for ``model`` and ``gguf_file``.

    Args:
        file: JSONL with the columns instruction, output and (optional) input.
        template: "alpaca", or "chat" for the tokenizer's chat template.
        max_length: longest example in tokens; longer responses are cut.
        packing: put the examples of a batch one after another into rows of up to `max_length` tokens, none of which
            sees another, instead of one a row with padding. The loss is the same. Examples of like length go
            together anyway, so it pays only where many go through the model at once.
        drop_long: leave examples out whose prompt alone is too long (else they are an error).
        validation_fraction, test_fraction: parts of the file that these splits get.
        limit: examples used, drawn by `subset_seed`; None takes all.
        subset_seed: of the splits.
    """

    file: str
    template: str = "alpaca"
    max_length: int = 512
    packing: bool = False
    drop_long: bool = False
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    limit: int | None = None
    subset_seed: int = 0

    main_metric = "loss"
    greater_is_better = False

    def __post_init__(self) -> None:
        if self.template not in ("alpaca", "chat"):
            raise ValueError(f"task.template must be alpaca or chat, got {self.template!r}")
        for name in ("max_length", "limit"):
            if getattr(self, name) is not None:
                whole(f"task.{name}", getattr(self, name), 2)
        whole("task.subset_seed", self.subset_seed, 0)
        parts = (self.validation_fraction, self.test_fraction)
        if not all(is_number(part) and part > 0.0 for part in parts) or sum(parts) >= 1.0:
            raise ValueError(
                f"task.validation_fraction={parts[0]} and test_fraction={parts[1]} must be positive and leave a part "
                "for training"
            )

    def check(self) -> None:
        """Read and tokenize the file, and see that the model takes texts of such a length."""
        _ = self._splits
        self.check_model(self.max_length)

    @cached_property
    def _splits(self) -> dict[str, list[Example]]:
        path = expand("task.file", self.file)
        rows = read_rows(path)
        problems = column_problems(rows, ("instruction", "output"), path)
        problems = problems or text_problems(rows, ("instruction", "input", "output"), path)
        if problems:
            raise ValueError("; ".join(problems))
        empty = [i for i, row in enumerate(rows) if not str(row["output"]).strip()]
        if empty:
            warnings.warn(
                f"{path}: {len(empty)} of {len(rows)} outputs are empty, the first in row {empty[0] + 1}; "
                "the model learns to say nothing there",
                stacklevel=2,
            )
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.subset_seed)).tolist()
        examples = [self._encode(rows[i]) for i in order[: self.limit]]
        long = [example for example in examples if example.prompt >= self.max_length]
        if long and not self.drop_long:
            raise ValueError(
                f"{path}: {len(long)} prompts have {self.max_length} tokens or more, which leaves no room for a "
                "response; raise task.max_length or set task.drop_long = true"
            )
        examples = [
            Example(example.tokens[: self.max_length], example.prompt)
            for example in examples
            if example.prompt < self.max_length
        ]
        tested, held = (round(part * len(examples)) for part in (self.test_fraction, self.validation_fraction))
        if not (tested and held and len(examples) > tested + held):
            raise ValueError(f"{path}: {len(examples)} examples are too few for three splits")
        return {
            "test": examples[:tested],
            "validation": examples[tested : tested + held],
            "train": examples[tested + held :],
            "train+validation": examples[tested:],
        }

    def _encode(self, row: dict[str, Any]) -> Example:
        texts = str(row["instruction"]), str(row.get("input") or "")
        chat = self.template == "chat"
        prompt = chat_prompt(self.tokenizer, *texts) if chat else alpaca_prompt(*texts)
        return encode(self.tokenizer, prompt, str(row["output"]), special=not chat, end=True)

    def _examples(self, split: str) -> list[Example]:
        if split not in self._splits:
            raise ValueError(f"split must be one of {', '.join(self._splits)}; got {split!r}")
        return self._splits[split]

    def size(self, split: str) -> int:
        """Number of examples of a split."""
        return len(self._examples(split))

    def length(self, split: str, index: int) -> int:
        """Number of tokens of an example."""
        return len(self._examples(split)[index].tokens)

    def batch(self, split: str, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """Tokens padded to the longest of these examples (or packed), and labels that ignore prompts and padding."""
        chosen = [self._examples(split)[i] for i in indices]
        if self.packing:
            return pack(chosen, self.tokenizer.pad_token_id, self.max_length)
        return pad(chosen, self.tokenizer.pad_token_id)

    def build_model(self, seed: int) -> nn.Module:
        """See `CausalTask.build_model`; with packing, a model that cannot keep examples apart is a ValueError too."""
        model = super().build_model(seed)
        if self.packing:
            check_packable(model)
        return model

    @torch.no_grad()
    def metrics(self, model: nn.Module, split: str, *, batch_size: int = 16) -> dict[str, float]:
        """Mean loss over all target tokens of a split, and the perplexity."""
        training, device = model.training, device_of(model)
        order = sorted(range(self.size(split)), key=lambda i: self.length(split, i))
        model.eval()
        total = count = 0.0
        for part in chunks(order, batch_size):
            losses, wanted = token_losses(model, to_device(self.batch(split, part), device))
            total += float(losses.sum())
            count += float(wanted.sum())
        model.train(training)
        return {"loss": total / count, "perplexity": math.exp(min(total / count, 700.0))}
