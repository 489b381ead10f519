"""Few-shot fine-tuning of a pretrained encoder's upper layers: data, model and a plain training loop.

The lower layers are frozen in every run, so their outputs are computed once; adapters go on query and value of the
upper third. The head is a source head (ridge, ±1 targets, fitted to another task) plus a dense adapter that starts at
zero: score f = source(x) + delta(x), loss log(1 + exp(−2yf)).
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import glora
from glora.config import LayerConfig
from paper_checks.core import LOCAL, Context, NotAvailable

Array = NDArray[Any]

HEAD = "head.source"
TOKENS = 48  # a sentence; two a pair
SIDE = 56
SOURCE_GAMMA = 1.0
ALPHA_RATE = 5e-3  # the official code's learning rate of α


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs of `Upper`, each with n rows, and labels (n,) of ±1."""

    inputs: tuple[Tensor, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Array | Tensor) -> Examples:
        """Some of the rows."""
        rows = torch.as_tensor(rows)
        return Examples(tuple(tensor[rows] for tensor in self.inputs), self.labels[rows])

    def batches(self, size: int) -> Iterator[Examples]:
        """Consecutive batches."""
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))


class Head(nn.Module):
    """source(x) + delta(x), one score."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.source, self.delta = nn.Linear(width, 1), nn.Linear(width, 1)
        nn.init.zeros_(self.delta.weight)
        nn.init.zeros_(self.delta.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width) → (n, 1)."""
        return self.source(x) + self.delta(x)


class Upper(nn.Module):
    """The upper layers of an encoder on the hidden states below them, and the head.

    Inputs are (hidden (n, T, d), mask (n, T)) of one text or image, features its first token; or two such pairs,
    features |u − v| of their mean tokens. Features are standardised by the source task's mean and overall spread.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, layers: nn.ModuleList, norm: nn.Module, width: int) -> None:
        super().__init__()
        self.layers, self.norm, self.head = layers, norm, Head(width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(()))

    def encode(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states (n, T, d)."""
        length = int(mask.sum(dim=1).max())
        hidden, mask = hidden[:, :length], mask[:, :length]
        blocked = (1.0 - mask)[:, None, None, :] * -1e9
        for layer in self.layers:
            output = layer(hidden, attention_mask=None if bool(mask.all()) else blocked)
            hidden = output[0] if isinstance(output, tuple) else output
        return self.norm(hidden)

    def features(self, *inputs: Tensor) -> Tensor:
        """(n, d)."""
        if len(inputs) == 2:
            raw = self.encode(*inputs)[:, 0]
        else:
            raw = (self._mean_token(*inputs[:2]) - self._mean_token(*inputs[2:])).abs()
        return (raw - self.mean) / self.spread

    def _mean_token(self, hidden: Tensor, mask: Tensor) -> Tensor:
        last = self.encode(hidden, mask)
        mask = mask[:, : last.shape[1], None]
        return (last * mask).sum(dim=1) / mask.sum(dim=1)

    def forward(self, *inputs: Tensor) -> Tensor:
        """(n, 1) scores."""
        return self.head(self.features(*inputs))

    @property
    def attention_layers(self) -> list[str]:
        """Names of the query and value layers."""
        return [name for name, _ in self.named_modules() if re.search(r"(query|value|q_proj|v_proj)$", name)]


@dataclass(frozen=True, eq=False)
class Task:
    """A model whose head was fitted to the source task, and the target task's examples."""

    model: Upper
    source: Examples
    train: Examples
    validation: Examples
    test: Examples


@dataclass(frozen=True)
class Sizes:
    """Examples drawn, half of each class (of the test set at most)."""

    source: int
    train: int
    validation: int
    test: int


@torch.no_grad()
def all_features(model: Upper, examples: Examples) -> Tensor:
    """(n, d) features."""
    return torch.cat([model.features(*batch.inputs) for batch in examples.batches(32)])


@torch.no_grad()
def fit_source(model: Upper, source: Examples) -> None:
    """Standardise by the source's features and give the head the ridge fit to its labels, intercept unpenalised."""
    raw = all_features(model, source)
    model.mean.copy_(raw.mean(dim=0))
    model.spread.copy_(raw.std(dim=0).mean())
    x, y = ((raw - model.mean) / model.spread).double(), source.labels.double()
    weights = torch.linalg.solve(
        x.T @ x / len(y) + SOURCE_GAMMA * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (y - y.mean()) / len(y)
    )
    model.head.source.weight.copy_(weights[None])
    model.head.source.bias.copy_(y.mean()[None])


@torch.no_grad()
def scores(model: nn.Module, examples: Examples) -> Tensor:
    """(n,) signed scores y·f in eval mode."""
    model.eval()
    return torch.cat([batch.labels * model(*batch.inputs)[:, 0] for batch in examples.batches(64)])


def balanced_accuracy(signed: Tensor, labels: Tensor) -> float:
    """Mean of the two classes' accuracies, in percent."""
    right = (signed > 0).double()
    return 50.0 * float(right[labels > 0].mean() + right[labels < 0].mean())


def loss_of(signed: Tensor) -> Tensor:
    """Mean logistic loss of the logits ±f."""
    return nn.functional.softplus(-2.0 * signed).mean()


def adapted(task: Task, alphas: dict[str, float], *, train_alpha: bool, rank: int, seed: int) -> Upper:
    """A copy of the model with α-LoRA on query and value (α by row), α on the head and its dense adapter trained."""
    model = copy.deepcopy(task.model)
    layers = model.attention_layers
    head = LayerConfig(A="scalar", D="scalar", tie_a_d=True, train_alpha=train_alpha)
    config = glora.presets.alpha_lora(
        rank=rank,
        target=[*layers, HEAD],
        train_alpha=train_alpha,
        overrides={re.escape(HEAD): head},
        modules_to_save=["head.delta"],
    )
    glora.attach(model, config, generator=torch.Generator().manual_seed(seed))
    for name, alpha in alphas.items():
        model.get_submodule(name).alpha = alpha  # type: ignore[assignment]
    return model


def fit(model: Upper, examples: Examples, *, epochs: int, rate: float, batch: int, seed: int) -> None:
    """Adam with a linear schedule; α, where it is trained, at its own rate and in the same steps."""
    generator = torch.Generator().manual_seed(seed)
    scales = [p for name, p in model.named_parameters() if p.requires_grad and name.endswith("A.value")]
    known = {id(p) for p in scales}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": others, "lr": rate}]
    if scales:
        groups.append({"params": scales, "lr": ALPHA_RATE})
    optimizer = torch.optim.Adam(groups)
    steps = epochs * math.ceil(len(examples) / batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / steps)
    model.eval()  # no dropout: the examples are few and every run sees the same function
    for _ in range(epochs):
        order = torch.randperm(len(examples), generator=generator)
        for part in examples.take(order).batches(batch):
            optimizer.zero_grad()
            loss_of(part.labels * model(*part.inputs)[:, 0]).backward()
            optimizer.step()
            schedule.step()


def ridge_scores(task: Task, gamma: float, scales: Sequence[float]) -> Array:
    """Balanced test accuracies of head ridge fine-tuning in closed form, encoder frozen, intercept unpenalised."""
    train, test = (all_features(task.model, one).double().numpy() for one in (task.train, task.test))
    y = task.train.labels.double().numpy()
    w = task.model.head.source.weight[0].detach().double().numpy()
    x = train - train.mean(axis=0)
    gram = x.T @ x / len(y) + gamma * np.eye(x.shape[1])
    found = []
    for alpha in scales:
        target = y - alpha * train @ w
        fitted = alpha * w + np.linalg.solve(gram, x.T @ (target - target.mean()) / len(y))
        bias = y.mean() - train.mean(axis=0) @ fitted
        signed = task.test.labels * torch.as_tensor(test @ fitted + bias)
        found.append(balanced_accuracy(signed, task.test.labels))
    return np.array(found)


def text_task(context: Context, sizes: Sizes, seed: int) -> Task:
    """Entailment or not (MNLI) → paraphrase or not (MRPC) with MiniLM, upper 2 of 6 layers."""
    transformers = _transformers()
    folder = context.folder("models", "minilm-l6")
    glue = {name: context.folder("data", "glue", name) for name in ("mnli", "mrpc")}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, **LOCAL).eval()
    layers, depth = model.encoder.layer, len(model.encoder.layer) - 2
    model.encoder.layer = layers[:depth]

    def below(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        coded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
        parts = []
        with torch.no_grad():
            for start in range(0, len(texts), 32):
                part = {key: value[start : start + 32] for key, value in coded.items()}
                length = int(part["attention_mask"].sum(dim=1).max())
                short = model(**{key: value[:, :length] for key, value in part.items()}).last_hidden_state
                parts.append(nn.functional.pad(short, (0, 0, 0, TOKENS - length)))
        return torch.cat(parts), coded["attention_mask"].float()

    def examples(rows: Sequence[tuple[str, str, float]]) -> Examples:
        first, second, labels = zip(*rows, strict=True)
        return Examples((*below(first), *below(second)), torch.tensor(labels))

    def read(name: str, split: str, keys: tuple[str, str], positive: int) -> list[tuple[str, str, float]]:
        with open(glue[name] / f"{split}.jsonl", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return [(row[keys[0]], row[keys[1]], 1.0 if row["label"] == positive else -1.0) for row in rows]

    rng = np.random.default_rng(seed)
    pairs = ("sentence1", "sentence2")
    source = read("mnli", "train", ("premise", "hypothesis"), 0)
    train, test = read("mrpc", "train", pairs, 1), read("mrpc", "validation", pairs, 1)
    few, held = disjoint(rng, [row[2] for row in train], sizes.train, sizes.validation)
    chosen = [
        [source[i] for i in disjoint(rng, [row[2] for row in source], sizes.source)[0]],
        [train[i] for i in few],
        [train[i] for i in held],
        [test[i] for i in disjoint(np.random.default_rng(0), [row[2] for row in test], sizes.test)[0]],
    ]
    width = model.config.hidden_size
    return _task(Upper(layers[depth:], nn.Identity(), width), [examples(rows) for rows in chosen])


def image_task(context: Context, sizes: Sizes, seed: int) -> Task:
    """Ship or deer → airplane or bird (CIFAR-10) with ViT-S/14 at 56 pixels, upper 4 of 12 layers."""
    transformers = _transformers()
    from PIL import Image

    folder, root = context.folder("models", "vit-s14"), context.folder("data", "vtab", "cifar10")
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, **LOCAL).eval()
    layers, depth, norm = model.encoder.layer, len(model.encoder.layer) - 4, model.layernorm
    model.encoder.layer, model.layernorm = layers[:depth], nn.Identity()
    classes = (root / "classes.txt").read_text(encoding="utf-8").split()

    def read(split: str, positive: str, negative: str) -> list[tuple[str, float]]:
        sign = {classes.index(positive): 1.0, classes.index(negative): -1.0}
        lines = (root / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        rows = [(path, int(label)) for path, label in (line.split() for line in lines)]
        return [(path, sign[label]) for path, label in rows if label in sign]

    def examples(rows: Sequence[tuple[str, float]]) -> Examples:
        images = np.stack(
            [
                np.asarray(Image.open(root / path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
                for path, _ in rows
            ]
        )
        mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        pixels = torch.tensor((images / 255.0 - mean) / spread, dtype=torch.float32).permute(0, 3, 1, 2)
        with torch.no_grad():
            parts = [model(pixel_values=pixels[i : i + 32]).last_hidden_state for i in range(0, len(rows), 32)]
        hidden = torch.cat(parts)
        return Examples((hidden, torch.ones(hidden.shape[:2])), torch.tensor([sign for _, sign in rows]))

    rng = np.random.default_rng(seed)
    source = read("train800", "ship", "deer")
    train, test = (read(split, "airplane", "bird") for split in ("train800", "test"))
    few, held = disjoint(rng, [row[1] for row in train], sizes.train, sizes.validation)
    chosen = [
        [source[i] for i in disjoint(rng, [row[1] for row in source], sizes.source)[0]],
        [train[i] for i in few],
        [train[i] for i in held],
        [test[i] for i in disjoint(np.random.default_rng(0), [row[1] for row in test], sizes.test)[0]],
    ]
    return _task(Upper(layers[depth:], norm, model.config.hidden_size), [examples(rows) for rows in chosen])


def toy_task(sizes: Sizes, seed: int) -> Task:
    """A random two-layer encoder on noise with a mean that the two tasks partly share; needs no data."""
    transformers = _transformers()
    from transformers.models.bert.modeling_bert import BertLayer

    torch.manual_seed(seed)
    width = 16
    config = transformers.BertConfig(hidden_size=width, num_attention_heads=2, intermediate_size=24)
    config._attn_implementation = "eager"
    layers = nn.ModuleList([BertLayer(config), BertLayer(config)]).eval()
    generator = torch.Generator().manual_seed(seed)
    shared, own = torch.randn(2, width, generator=generator) * 0.5

    def draw(n: int, mean: Tensor) -> Examples:
        labels = torch.tensor([1.0, -1.0]).repeat(n // 2)
        hidden = labels[:, None, None] * mean + torch.randn(n, 4, width, generator=generator)
        return Examples((hidden, torch.ones(n, 4)), labels)

    means = [shared, *[0.7 * shared + 0.7 * own] * 3]
    counts = [sizes.source, sizes.train, sizes.validation, sizes.test]
    return _task(Upper(layers, nn.Identity(), width), [draw(n, mean) for n, mean in zip(counts, means, strict=True)])


TASKS: dict[str, Callable[[Context, Sizes, int], Task]] = {
    "mrpc": text_task,
    "cifar10": image_task,
    "toy": lambda context, sizes, seed: toy_task(sizes, seed),
}


def disjoint(rng: np.random.Generator, labels: Sequence[float], *counts: int) -> list[Array]:
    """Disjoint random rows, ``count`` of them (fewer if there are not as many), half of each class."""
    signs = np.asarray(labels)
    pools = [rng.permutation(np.flatnonzero(signs == sign)) for sign in (1.0, -1.0)]
    found, start = [], 0
    for count in counts:
        each = min(count // 2, *(len(pool) - start for pool in pools))
        found.append(np.concatenate([pool[start : start + each] for pool in pools]))
        start += each
    return found


def _task(model: Upper, parts: Sequence[Examples]) -> Task:
    model.requires_grad_(False)
    model.eval()
    fit_source(model, parts[0])
    return Task(model, *parts)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise NotAvailable("needs transformers; pip install 'rescale-and-adapt[hf]'") from None
    transformers.utils.logging.disable_progress_bar()
    return transformers
