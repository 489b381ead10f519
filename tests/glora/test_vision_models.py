"""Which features of a backbone the head reads, and what timm is asked for."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from glora.tasks.vision.models import load_classifier, wrap

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


class TestFeatures:
    @pytest.fixture
    @staticmethod
    def transformers() -> Any:
        return pytest.importorskip("transformers")

    @pytest.mark.parametrize("kind", ["ViT", "Dinov2", "CLIPVision"])
    def test_the_class_token_where_there_is_one(self, transformers: Any, kind: str) -> None:
        made = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**SIZES))
        model, x = wrap(made, 3, side=32).eval(), torch.randn(2, 3, 32, 32)
        assert torch.equal(model.features(x), made(x).last_hidden_state[:, 0])

    @pytest.mark.parametrize("kind", ["IJepa", "SiglipVision", "Swin"])
    def test_the_mean_where_there_is_none(self, transformers: Any, kind: str) -> None:
        swin = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
                "window_size": 4}  # fmt: skip
        made = getattr(transformers, f"{kind}Model")(
            getattr(transformers, f"{kind}Config")(**(swin if kind == "Swin" else SIZES))
        )
        model, x = wrap(made, 3, side=32).eval(), torch.randn(2, 3, 32, 32)
        other = x.clone()
        other[:, :, 24:, 24:] += 1  # far from the first token
        assert (model(x) - model(other)).abs().max() > 1e-4
        assert torch.equal(model.features(x), made(x).last_hidden_state.mean(1))

    def test_a_map_is_averaged(self) -> None:
        from glora.tasks.vision.models import ImageClassifier

        x = torch.randn(2, 3, 4, 4)
        assert torch.equal(ImageClassifier(nn.Identity(), 3, 2).features(x), x.mean((2, 3)))

    def test_random_masks_are_refused(self, transformers: Any) -> None:
        with pytest.raises(ValueError, match="hides a part of every image at random"):
            wrap(transformers.ViTMAEModel(transformers.ViTMAEConfig(**SIZES)), 3, side=32)
        with pytest.raises(ValueError, match="no vision transformer"):  # its patches are pairs of numbers
            wrap(SimpleNamespace(config=transformers.HieraConfig()), 3, side=32)


class TestTimm:
    """A stub in timm's place: what `timm.create_model` is asked for, and how its failures are told."""

    @pytest.fixture
    @staticmethod
    def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        class Features(nn.Module):
            num_features = 3

            def __init__(self, patch: int) -> None:
                super().__init__()
                self.patch_embed = nn.Identity()
                self.patch_embed.patch_size = (patch, patch)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.mean((2, 3))

        def create_model(name: str, **options: Any) -> nn.Module:
            asked.append({"name": name, **options})
            if name == "nonsense":
                raise RuntimeError("Unknown model (nonsense)")
            if name == "resnet18" and "img_size" in options:
                raise TypeError("got an unexpected keyword argument 'img_size'")
            return Features(1 if name == "resnet18" else 16)

        monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
        return asked

    @pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "beit_base_patch16_224",
                                      "eva02_tiny_patch14_224"])  # fmt: skip
    def test_every_transformer_gets_the_side(self, asked: list[dict[str, Any]], name: str) -> None:
        model = load_classifier(f"timm:{name}", 5, side=32)
        assert asked == [{"name": name, "pretrained": True, "num_classes": 0, "img_size": 32}]
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5)

    def test_stochastic_depth_is_timms_own(self, asked: list[dict[str, Any]]) -> None:
        load_classifier("timm:vit_tiny_patch16_224", 5, side=32, drop_path=0.1)
        assert asked[0]["drop_path_rate"] == 0.1

    def test_convolutions_take_no_side(self, asked: list[dict[str, Any]]) -> None:
        load_classifier("timm:resnet18", 5, side=33)
        assert [set(options) - {"name", "pretrained", "num_classes"} for options in asked] == [{"img_size"}, set()]

    def test_failures_are_sentences(self, asked: list[dict[str, Any]]) -> None:
        with pytest.raises(ValueError, match=r"'timm:nonsense' cannot be loaded with side=32: Unknown model"):
            load_classifier("timm:nonsense", 5, side=32)
        with pytest.raises(ValueError, match=r"side=33 is not divisible by the patch size 16 .*; 32 is"):
            load_classifier("timm:vit_tiny_patch16_224", 5, side=33)
