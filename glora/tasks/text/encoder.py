"""Text models with a classification head: transformers' own, or mean pooling with a linear head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from glora.tasks.hub import from_hub
from glora.tasks.text.loading import load_tokenizer, loading, quiet

#: A part of a pretrained model that many checkpoints lack, because their training did not need it.
POOLER = "pooler"


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


def build_classifier(name: str, labels: int, pooling: str, seed: int, revision: str | None = None) -> nn.Module:
    """A pretrained text model with a new head, in float32.

    Args:
        name: hub name or folder.
        labels: number of outputs.
        pooling: "mean", or "model" for the pooling of transformers' sequence classifiers.
        seed: of the head's weights.
        revision: of the model on the hub.

    Raises:
        ValueError: there is no such model.
    """
    import transformers

    auto = transformers.AutoModel if pooling == "mean" else transformers.AutoModelForSequenceClassification
    options = {} if pooling == "mean" else {"num_labels": labels, "ignore_mismatched_sizes": True}
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with loading(f"task.model={name!r}"):
            model, info = auto.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, **from_hub(revision), **options
            )
        _require_shapes(name, info["mismatched_keys"])
        if pooling == "mean":
            _require_pretrained(name, info["missing_keys"])
            return MeanPooledClassifier(model, labels)
    if model.config.pad_token_id is None:  # decoders find the last token of a row by its padding
        model.config.pad_token_id = load_tokenizer(name, revision=revision).pad_token_id
    return model


def head_names(name: str, labels: int, pooling: str, revision: str | None = None) -> tuple[str, ...]:
    """Names of the modules that are new in a model of `build_classifier`, and of those that stand above its base.

    What transformers puts above the base model is the head, one module (BERT's classifier) or several (DistilBERT's
    pre_classifier and classifier); it trains in full even if the checkpoint has one. A pooler inside the base model
    belongs to it where the checkpoint has none, and would stay as it was drawn otherwise.

    Args:
        name, labels, pooling, revision: as for `build_classifier`.

    Raises:
        ValueError: there is no such model, it has no head that can be told from its base, or the checkpoint lacks
            weights of the base.
    """
    if pooling == "mean":
        return ("classifier",)
    import transformers

    with quiet(), loading(f"task.model={name!r}"):  # on the meta device, the names are read and no weight is
        sketch, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            name,
            num_labels=labels,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **from_hub(revision),
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
