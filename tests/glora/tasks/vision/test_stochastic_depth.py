"""Stochastic depth: which blocks get which rate, what is left out, and that evaluation knows nothing of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from glora.tasks.vision.stochastic_depth import DropPath, add_stochastic_depth

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip


def model(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES, **options)
    return getattr(transformers, f"{kind}Model")(config)


def rates(backbone: Any) -> list[float]:
    return [module.rate for module in backbone.modules() if isinstance(module, DropPath)]


class TestDropPath:
    def test_branches_are_kept_whole_or_left_out_at_the_rate(self):
        torch.manual_seed(0)
        out = DropPath(0.25)(torch.ones(4000, 3, 2))
        assert (out == out[:, :1, :1]).all()  # an image's branch as a whole
        kept = (out[:, 0, 0] > 0).double().mean()
        assert abs(kept - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5
        assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])

    def test_identity_without_a_rate_and_in_evaluation(self):
        x = torch.randn(3, 2)
        assert DropPath(0.0)(x) is x
        assert DropPath(0.9).eval()(x) is x


class TestBackbones:
    @pytest.mark.parametrize("kind", ["ViT", "DeiT", "Dinov2", "Beit", "IJepa", "Data2VecVision"])
    def test_rates_rise_evenly_from_zero(self, kind):
        backbone = model(kind)
        names = list(backbone.state_dict())
        add_stochastic_depth(backbone, 0.1)
        assert rates(backbone) == pytest.approx([0.0, 0.05, 0.1])
        assert list(backbone.state_dict()) == names

    @pytest.mark.parametrize("kind", ["ViT", "Dinov2"])
    def test_evaluation_is_unchanged_and_training_is_not(self, kind):
        plain, x = model(kind).eval(), torch.randn(8, 3, 16, 16)
        before = plain(x).last_hidden_state
        add_stochastic_depth(plain, 0.5)
        assert torch.equal(plain.eval()(x).last_hidden_state, before)
        drawn = [plain.train()(x).last_hidden_state for _ in range(2)]
        assert not torch.equal(*drawn)

    @pytest.mark.parametrize("kind", ["ViT", "Dinov2"])
    def test_a_block_without_its_branches_is_the_identity(self, kind):
        backbone = model(kind)
        add_stochastic_depth(backbone, 1 - 1e-7)
        blocks = (backbone.encoder.layer if kind == "Dinov2" else backbone.layers).train()
        x = torch.randn(4, 5, 16)
        torch.manual_seed(1)
        assert torch.equal(blocks[-1](x), x)

    def test_zero_changes_nothing_and_other_blocks_are_refused(self):
        backbone = model("SiglipVision")
        add_stochastic_depth(backbone, 0.0)
        with pytest.raises(ValueError, match=r"drop_path=0.1: the blocks of model 'siglip' have no place"):
            add_stochastic_depth(backbone, 0.1, "siglip")


class TestTask:
    def test_the_task_hands_it_on(self, tmp_path):
        pytest.importorskip("PIL")
        from glora.tasks.vision.image_folder import Vtab

        model("ViT").save_pretrained(tmp_path / "vit")
        task = Vtab(folder=str(tmp_path), model=str(tmp_path / "vit"), side=16, classes=3, drop_path=0.2)
        assert rates(task.build_model(0)) == pytest.approx([0.0, 0.1, 0.2])

    @pytest.mark.parametrize("value", [-0.1, 1.0, "much", float("nan"), True])
    def test_impossible_rates(self, value):
        pytest.importorskip("PIL")
        from glora.tasks.vision.image_folder import Vtab

        with pytest.raises(ValueError, match="drop_path"):
            Vtab(folder="none", model="none", drop_path=value)
