"""Pretrained vision transformers with a new classification head.

The backbone comes from transformers (``"google/vit-base-patch16-224-in21k"`` or a local folder) or, by the
prefix ``timm:``, from timm.  The head is one linear layer on the class token of the last hidden state or, where the
model has none (Swin, I-JEPA, SigLIP), on the mean over all tokens; poolers are often random in a checkpoint and not
used.  The same two names, ``backbone`` and ``head``, stand in every configuration.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glora.tasks.hub import check_revision, from_hub
from glora.tasks.vision.stochastic_depth import add_stochastic_depth

#: Last parts of the names of class tokens in transformers' models.
CLASS_TOKENS = ("cls_token", "class_embedding")
#: Model types that hide parts of the image at random even when they are evaluated.
MASKING = ("vit_mae",)

#: What `modules_to_save` names: the part that is new and trains in full.
HEAD = "head"


class ImageClassifier(nn.Module):
    """``head(class token of backbone(images))``, or the mean over tokens where there is no class token.

    Args:
        backbone: a transformers vision model (its ``last_hidden_state`` is read), or a module that returns
            features (n, width).
        width: number of features.
        classes: number of classes.
        generator: source of the head's random weights; torch's global generator if None.

    Attributes:
        backbone: as given.
        head: ``nn.Linear(width, classes)``; weights normal with standard deviation .02, bias 0.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = new_head(width, classes, generator)
        self._class_token = any(name.rpartition(".")[2] in CLASS_TOKENS for name, _ in backbone.named_parameters())
        accepts = inspect.signature(backbone.forward).parameters
        # transformers' ViT refuses other image sizes unless asked; Dinov2 always interpolates.
        self._options: dict[str, Any] = {}
        if "interpolate_pos_encoding" in accepts:
            self._options["interpolate_pos_encoding"] = True

    def features(self, pixel_values: Tensor) -> Tensor:
        """Images (n, 3, side, side) → what the head reads (n, width)."""
        output = self.backbone(pixel_values, **self._options)
        hidden = getattr(output, "last_hidden_state", output)
        if hidden.dim() == 4:  # a map (n, width, height, width of the map)
            return hidden.mean((2, 3))
        if hidden.dim() == 3:
            return hidden[:, 0] if self._class_token else hidden.mean(1)
        return hidden

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Images (n, 3, side, side) → logits (n, classes)."""
        return self.head(self.features(pixel_values))


def new_head(width: int, classes: int, generator: torch.Generator | None = None) -> nn.Linear:
    """A classification head: normal weights with standard deviation .02, zero bias.

    Raises:
        ValueError: fewer than two classes.
    """
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    # nn.Linear would draw its own first values from the global generator.
    head = nn.utils.skip_init(nn.Linear, width, classes)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.02, generator=generator)
        head.bias.zero_()
    return head


def load_classifier(
    name: str,
    classes: int,
    *,
    side: int,
    generator: torch.Generator | None = None,
    drop_path: float = 0.0,
    revision: str | None = None,
) -> ImageClassifier:
    """A pretrained vision transformer in float32 with a new head.

    Args:
        name: a model of the hub, a local folder in its layout, or ``timm:<model name>``.
        classes: number of classes.
        side: image side; must be divisible by the patch size.
        generator: source of the head's random weights.
        drop_path: stochastic depth in training: the last block's probability of leaving a branch out; those of the
            blocks before rise to it evenly from 0.
        revision: commit, tag or branch of a model of the hub; None takes the newest.

    Raises:
        ValueError: `name` cannot be loaded, is no vision transformer, does not accept `side`, or has no place for
            stochastic depth.
    """
    local = Path(name).expanduser()
    check_revision("revision", revision, str(local))
    if name.startswith("timm:"):
        return _load_timm(name.removeprefix("timm:"), classes, side, generator, drop_path)
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        # float16 checkpoints are widened: adapters are trained on float32 bases here.
        with quiet():
            backbone = AutoModel.from_pretrained(
                str(local) if local.is_dir() else name, dtype=torch.float32, **from_hub(revision)
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"model {name!r} cannot be loaded: {str(error).splitlines()[0]} … give a folder that holds "
            "config.json and model.safetensors, or the name of a model of the hub (and unset HF_HUB_OFFLINE)"
        ) from error
    add_stochastic_depth(backbone, drop_path, name)
    return wrap(backbone, classes, side=side, generator=generator, name=name)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar, and no report about heads and poolers that are replaced anyway."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def wrap(
    backbone: nn.Module,
    classes: int,
    *,
    side: int,
    generator: torch.Generator | None = None,
    name: str = "backbone",
) -> ImageClassifier:
    """Put a new head on a transformers vision model, after checking that it takes images of this side.

    Raises:
        ValueError: the model is no vision transformer, hides parts of the image at random, or `side` is not divisible
            by its patch size.
    """
    config: Any = getattr(backbone, "config", None)
    width, patch = getattr(config, "hidden_size", None), getattr(config, "patch_size", None)
    if not isinstance(width, int) or not isinstance(patch, int):
        raise ValueError(
            f"model {name!r} is no vision transformer: its config has no whole numbers hidden_size and patch_size"
        )
    if getattr(config, "model_type", None) in MASKING:
        raise ValueError(
            f"model {name!r} ({config.model_type}) hides a part of every image at random, in evaluation too; "
            "take another vision transformer"
        )
    _check_side(side, patch, name)
    if getattr(backbone, "pooler", None) is not None:
        # Often not in the checkpoint, hence random; the head reads the class token itself.
        backbone.pooler = None  # type: ignore[assignment]
    return ImageClassifier(backbone, width, classes, generator)


def _load_timm(
    name: str, classes: int, side: int, generator: torch.Generator | None, drop_path: float
) -> ImageClassifier:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError(f"model 'timm:{name}' needs timm and torchvision: pip install timm ({error})") from error
    # Whatever goes wrong, timm says it in its own way: an unknown name, no weights, no connection.
    failures = (RuntimeError, ValueError, AssertionError, LookupError, OSError, TypeError)
    options: dict[str, Any] = {"pretrained": True, "num_classes": 0}
    if drop_path:  # not every model takes it
        options["drop_path_rate"] = drop_path
    try:
        try:
            backbone = timm.create_model(name, img_size=side, **options)
        except TypeError:  # convolutions take any side, and no img_size
            backbone = timm.create_model(name, **options)
    except failures as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"model 'timm:{name}' cannot be loaded with side={side}: {reason}") from error
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", 1)
    _check_side(side, patch if isinstance(patch, int) else max(patch), f"timm:{name}")
    return ImageClassifier(backbone, backbone.num_features, classes, generator)


def _check_side(side: int, patch: int, name: str) -> None:
    if side % patch:
        nearest = patch * max(1, round(side / patch))
        raise ValueError(f"side={side} is not divisible by the patch size {patch} of {name!r}; {nearest} is")
