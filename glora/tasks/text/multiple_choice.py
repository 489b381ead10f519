"""Multiple choice by likelihood: the answer is the choice that the model finds likeliest for its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from glora._checks import choice, fraction, whole
from glora.tasks.base import Batch, chunks, device_of, to_device
from glora.tasks.intervals import bootstrap_interval
from glora.tasks.rows import column_problems, expand, is_text, read_rows
from glora.tasks.text.causal import CausalTask, Example, chat_prompt, encode, pad
from glora.tasks.text.packing import share_prompts, why_not_packable

TEMPLATES = ("question", "chat")


@dataclass(frozen=True)
class Question:
    """A question: one sequence a choice, all with the same prompt, the length of each choice in bytes, and which is
    right."""

    choices: tuple[Example, ...]
    lengths: tuple[int, ...]
    answer: int


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(CausalTask):
    """Multiple choice; the fields are the keys of ``[task]`` with ``name = "multiple_choice"``. See
    `glora.tasks.base.Task`, and `glora.tasks.text.causal.CausalTask` for ``model`` and ``gguf_file``.

    Training, where there is a training file, raises the likelihood of right answers; a search compares subnets by it.

    Args:
        file: JSONL with the columns question, choices (a list of texts) and answer (an index); the test split.
        train_file: the same for training; without it there is a test split only.
        template: "question" (``Question: …\\nAnswer:``), or "chat" for the tokenizer's chat template.
        limit: questions used of `file`, drawn by `subset_seed`; None takes all.
        validation_fraction: part of the training file that "validation" gets.
        max_length: longest prompt with choice in tokens; the beginning of a question is cut off, for all its choices
            alike, until its longest choice fits.
        subset_seed: of the draw, of the shuffles of choices and of the bootstrap.
    """

    file: str
    train_file: str | None = None
    template: str = "question"
    limit: int | None = None
    validation_fraction: float = 0.2
    max_length: int = 1024
    subset_seed: int = 0

    main_metric = "accuracy"
    greater_is_better = True

    def __post_init__(self) -> None:
        choice("task.template", self.template, TEMPLATES)
        for name, low in (("limit", 1), ("max_length", 2)):
            if getattr(self, name) is not None:
                whole(f"task.{name}", getattr(self, name), low)
        whole("task.subset_seed", self.subset_seed, 0)
        fraction("task.validation_fraction", self.validation_fraction)

    def check(self) -> None:
        """Read and tokenize the files; see that the model takes what comes out."""
        questions = [question for split in self._splits.values() for question in split]
        self.check_model(max(len(example.tokens) for question in questions for example in question.choices))

    @cached_property
    def _splits(self) -> dict[str, list[Question]]:
        tested = self._read(expand("task.file", self.file))[: self.limit]
        if self.train_file is None:
            return {"test": tested}
        pool = self._read(expand("task.train_file", self.train_file))
        if {_key(question) for question in pool} >= {_key(question) for question in tested}:
            raise ValueError(
                f"task.train_file={self.train_file!r} holds every question of task.file={self.file!r}, so the figures "
                "of the test split would say nothing"
            )
        cut = round(self.validation_fraction * len(pool))
        if not 0 < cut < len(pool):
            raise ValueError(f"task.train_file={self.train_file!r} has {len(pool)} questions, too few for two splits")
        return {"test": tested, "validation": pool[:cut], "train": pool[cut:], "train+validation": pool}

    def _read(self, path: str) -> list[Question]:
        """The questions of a file in random order, each with its choices in random order."""
        rows = read_rows(path)
        problems = column_problems(rows, ("question", "choices", "answer"), path) or [
            f"{path}: row {i + 1} has answer {row['answer']!r} and choices {row['choices']!r}"
            for i, row in enumerate(rows)
            if not _is_question(row)
        ]
        if problems:
            raise ValueError("the questions cannot be used:\n" + "\n".join(f"  {line}" for line in problems[:8]))
        generator = torch.Generator().manual_seed(self.subset_seed)
        return [self._question(rows[i], generator) for i in torch.randperm(len(rows), generator=generator).tolist()]

    def _question(self, row: dict[str, Any], generator: torch.Generator) -> Question:
        order = torch.randperm(len(row["choices"]), generator=generator).tolist()
        chat = self.template == "chat"
        prompt = chat_prompt(self.tokenizer, row["question"]) if chat else f"Question: {row['question']}\nAnswer:"
        texts = [("" if chat else " ") + str(row["choices"][i]) for i in order]
        examples = [encode(self.tokenizer, prompt, text, special=not chat, end=False) for text in texts]
        return Question(
            self._cut(examples),
            tuple(max(1, len(text.encode())) for text in texts),
            order.index(row["answer"]),
        )

    def _cut(self, choices: Sequence[Example]) -> tuple[Example, ...]:
        """The choices with as much of their common prompt as fits beside the longest, a token at least."""
        beyond = max(0, max(len(example.tokens) for example in choices) - self.max_length)
        found = []
        for example in choices:
            prompt = example.tokens[min(beyond, example.prompt - 1) : example.prompt]
            target = example.tokens[example.prompt :][len(prompt) - self.max_length :]
            found.append(Example([*prompt, *target], len(prompt)))
        return tuple(found)

    def _questions(self, split: str) -> list[Question]:
        if split not in self._splits:
            hint = "; give task.train_file" if self.train_file is None else ""
            raise ValueError(f"split must be one of {', '.join(self._splits)}; got {split!r}{hint}")
        return self._splits[split]

    def size(self, split: str) -> int:
        """Number of questions of a split."""
        return len(self._questions(split))

    def length(self, split: str, index: int) -> int:
        """Number of tokens of the longest choice with its prompt."""
        return max(len(example.tokens) for example in self._questions(split)[index].choices)

    def batch(self, split: str, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """The right answers of these questions, for training."""
        questions = [self._questions(split)[i] for i in indices]
        return pad([question.choices[question.answer] for question in questions], self.tokenizer.pad_token_id)

    @torch.no_grad()
    def likelihoods(self, model: nn.Module, split: str, *, batch_size: int = 32) -> list[Tensor]:
        """Log-likelihood of every choice of every question, not normalised.

        The choices of a question share its prompt in one row, where the model can keep them apart (see
        `glora.tasks.text.packing`); else each has a row of its own.

        Args:
            model: a causal language model.
            split: whose questions.
            batch_size: choices that go through the model at once, or those of one question if they are more.

        Returns:
            A tensor a question, shape (choices,).
        """
        questions, training, device = self._questions(split), model.training, device_of(model)
        padding, together = self.tokenizer.pad_token_id, not why_not_packable(model)
        order = sorted(range(len(questions)), key=lambda i: self.length(split, i))
        most = max(len(question.choices) for question in questions)
        found: dict[int, Tensor] = {}
        model.eval()
        for part in chunks(order, max(1, batch_size // most)):
            groups = [questions[i].choices for i in part]
            batch = share_prompts(groups, padding) if together else pad([e for group in groups for e in group], padding)
            values = -self.costs(model, to_device(batch, device)).cpu()
            found.update(zip(part, values.split([len(group) for group in groups]), strict=True))
        model.train(training)
        return [found[i] for i in range(len(questions))]

    def correct(self, model: nn.Module, split: str, *, per_byte: bool = True, batch_size: int = 32) -> list[bool]:
        """Which questions are answered rightly, by likelihood per byte or by plain likelihood."""
        return self._right(split, self.likelihoods(model, split, batch_size=batch_size), per_byte)

    def _right(self, split: str, likelihoods: Sequence[Tensor], per_byte: bool) -> list[bool]:
        return [
            int((values / torch.tensor(question.lengths) if per_byte else values).argmax()) == question.answer
            for question, values in zip(self._questions(split), likelihoods, strict=True)
        ]

    def metrics(self, model: nn.Module, split: str, *, batch_size: int = 32) -> dict[str, float]:
        """Accuracy in percent, by likelihood per byte and by plain likelihood, the first with its bootstrap 95 %
        interval, and that of guessing."""
        questions = self._questions(split)
        likelihoods = self.likelihoods(model, split, batch_size=batch_size)
        per_byte, plain = (self._right(split, likelihoods, way) for way in (True, False))
        low, high = bootstrap_interval(per_byte, self.subset_seed)
        return {
            "accuracy": 100.0 * sum(per_byte) / len(questions),
            "low": low,
            "high": high,
            "accuracy_plain": 100.0 * sum(plain) / len(questions),
            "chance": 100.0 * sum(1 / len(question.choices) for question in questions) / len(questions),
        }


def _key(question: Question) -> tuple[tuple[int, ...], ...]:
    """The same for two questions that are the same, whatever the order of their choices."""
    return tuple(sorted(tuple(example.tokens) for example in question.choices))


def _is_question(row: dict[str, Any]) -> bool:
    choices, answer = row["choices"], row["answer"]
    if not isinstance(choices, list) or not isinstance(answer, int) or isinstance(answer, bool):
        return False
    texts = all(is_text(choice) and str(choice).strip() for choice in choices) and is_text(row["question"])
    return texts and len(choices) > 1 and answer in range(len(choices))
