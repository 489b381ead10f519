"""Several examples in one row of tokens, none of which sees another: less padding where lengths differ.

Each token carries the number of its example. Positions start anew with every example, and a token attends to the tokens
of its own example up to itself (`glora.tasks.text.causal.attention`). The losses are those of one example a row, up to
rounding. Examples that begin with the same prompt, such as the choices of a question, can share it as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import nn

from glora.tasks.base import Batch
from glora.tasks.text.causal import IGNORED, Example

#: Attention that takes an additive mask of four dimensions.
ATTENTION = ("eager", "sdpa")


def rows_of(lengths: Sequence[int], longest: int) -> list[list[int]]:
    """Which examples share a row of at most `longest` tokens: the longest first, each into the first row with room.

    Args:
        lengths: of the examples, none beyond `longest`.
        longest: tokens a row has at most.

    Returns:
        The examples of each row; all together each example once.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for example in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((i for i, left in enumerate(room) if left >= lengths[example]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(longest)
        rows[row].append(example)
        room[row] -= lengths[example]
    return rows


def pack(sequences: Sequence[Example], padding: int, longest: int) -> Batch:
    """Examples as a batch of shared rows.

    Args:
        sequences: the examples, none with more than `longest` tokens.
        padding: token that fills rows up.
        longest: tokens a row has at most.

    Returns:
        ``input_ids``, ``labels``, ``position_ids`` and ``examples`` (number of the example in `sequences`, −1 for
        padding), each (rows, tokens of the longest row). No loss is taken of prompts, of padding and of the first
        token of an example, which the token before it knows nothing of.
    """
    rows = rows_of([len(sequence.tokens) for sequence in sequences], longest)
    width = max(sum(len(sequences[i].tokens) for i in row) for row in rows)
    # shape: all (rows, width)
    fills = {"input_ids": padding, "labels": IGNORED, "position_ids": 0, "examples": -1}
    batch = {name: torch.full((len(rows), width), fill) for name, fill in fills.items()}
    for number, row in enumerate(rows):
        start = 0
        for i in row:
            tokens = torch.tensor(sequences[i].tokens)
            place = (number, slice(start, start + len(tokens)))
            batch["input_ids"][place] = tokens
            batch["position_ids"][place] = torch.arange(len(tokens))
            batch["examples"][place] = i
            silent = max(1, sequences[i].prompt)
            batch["labels"][number, start + silent : start + len(tokens)] = tokens[silent:]
            start += len(tokens)
    return batch


def share_prompts(groups: Sequence[Sequence[Example]], padding: int) -> Batch:
    """A row a group of examples that have the same prompt, which stands in the row once.

    The last token of the prompt foretells the first of the target, so every example after the first repeats it:
    ``prompt target₁ last target₂ last target₃ …``. Positions are those of each example alone.

    Args:
        groups: examples with one prompt of at least one token each.
        padding: token that fills rows up.

    Returns:
        As `pack`, examples numbered through all groups, and ``shared``: true for the prompt without its last token.
    """
    width = max(len(group[0].tokens) + sum(len(e.tokens) - e.prompt + 1 for e in group[1:]) for group in groups)
    # shape: all (groups, width)
    fills = {"input_ids": padding, "labels": IGNORED, "position_ids": 0, "examples": -1}
    batch = {name: torch.full((len(groups), width), fill) for name, fill in fills.items()}
    batch["shared"] = torch.zeros((len(groups), width), dtype=torch.bool)
    number = 0
    for row, group in enumerate(groups):
        batch["shared"][row, : group[0].prompt - 1] = True
        start = 0
        for example in group:
            first = 0 if start == 0 else example.prompt - 1
            tokens = torch.tensor(example.tokens[first:])
            place = (row, slice(start, start + len(tokens)))
            batch["input_ids"][place] = tokens
            batch["position_ids"][place] = torch.arange(first, len(example.tokens))
            batch["examples"][place] = number
            target = example.prompt - first
            batch["labels"][row, start + target : start + len(tokens)] = tokens[target:]
            start += len(tokens)
            number += 1
    return batch


def check_packable(model: nn.Module) -> None:
    """Raise ValueError unless the model takes positions, and a mask that says who sees whom in every layer."""
    reason = why_not_packable(model)
    if reason:
        raise ValueError(f"task.packing: {reason}; leave packing out")


def why_not_packable(model: nn.Module) -> str:
    """What the model lacks for examples that share rows; empty if it lacks nothing."""
    config = getattr(model, "config", None)
    kind = getattr(config, "_attn_implementation", None)
    if kind not in ATTENTION:
        return f"needs attention {' or '.join(ATTENTION)}, the model has {kind!r}"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{type(model).__name__} takes no position_ids"
    if (
        getattr(config, "sliding_window", None)
        or len(set(getattr(config, "layer_types", None) or ("full_attention",))) > 1
    ):
        return "needs full attention in every layer, the model's has windows"
    return ""
