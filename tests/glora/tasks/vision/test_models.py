"""Vision models with a new head: which features it reads, sides, and what timm is asked for."""

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


class TestModels:
    @pytest.fixture(scope="class")
    @staticmethod
    def vit(tmp_path_factory):
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
        folder = tmp_path_factory.mktemp("vit")
        transformers.ViTModel(transformers.ViTConfig(**sizes, intermediate_size=32)).half().save_pretrained(folder)
        return folder

    @pytest.mark.parametrize("side", [8, 16])  # the size it was built for, and interpolated positions
    def test_any_side_that_patches_divide(self, vit, side):
        from glora.tasks.vision.models import load_classifier

        model = load_classifier(str(vit), 5, side=side, generator=torch.Generator().manual_seed(0)).eval()
        assert model(torch.randn(2, 3, side, side)).shape == (2, 5)
        assert model.head.weight.dtype == next(model.backbone.parameters()).dtype == torch.float32
        assert not any("pooler" in name for name, _ in model.named_parameters())

    def test_dinov2(self):
        transformers = pytest.importorskip("transformers")
        from glora.tasks.vision.models import wrap

        config = transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
        )
        model = wrap(transformers.Dinov2Model(config), 3, side=42)
        assert model(torch.randn(2, 3, 42, 42)).shape == (2, 3)

    def test_errors_name_the_remedy(self, vit, tmp_path):
        from glora.tasks.vision.models import load_classifier, new_head, wrap

        with pytest.raises(ValueError, match=r"side=9 is not divisible by the patch size 4.*8 is"):
            load_classifier(str(vit), 5, side=9)
        with pytest.raises(ValueError, match="cannot be loaded"):
            load_classifier(str(tmp_path), 5, side=8)
        with pytest.raises(ValueError, match="no vision transformer"):
            wrap(torch.nn.Linear(2, 2), 3, side=8)
        with pytest.raises(ValueError, match="at least 2"):
            new_head(4, 1)

    def test_timm_is_optional(self):
        from glora.tasks.vision.models import load_classifier

        try:
            import timm  # noqa: F401
        except ImportError:
            with pytest.raises(ValueError, match="pip install timm"):
                load_classifier("timm:vit_tiny_patch16_224", 3, side=224)
