"""Parameter counts: the papers' numbers, and that counting agrees with attaching."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import glora
from glora import presets
from glora.config import TENSORS, all_layer_configs
from tests.glora.models import TimmLikeBlock, tiny_vit


class Sketch(nn.Module):
    """The 48 linear layers of timm's ViT-B/16, without their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(TimmLikeBlock(768, heads=12) for _ in range(12)))
        self.head = nn.Linear(768, 100)


@pytest.fixture(scope="module")
def vit_b16() -> nn.Module:
    with torch.device("meta"):
        return Sketch()


@pytest.mark.parametrize(("rank", "millions"), [(2, 0.885), (4, 1.604), (8, 3.042), (16, 5.917)])
def test_gloras_supernet_on_vit_b16(vit_b16, rank, millions):
    report = glora.count_parameters(presets.glora(rank), vit_b16)
    assert len(report.layers) == 48
    assert round(report.adapter_parameters / 1e6, 3) == millions
    assert sum(report.by_type.values()) == sum(report.by_tensor.values()) == report.adapter_parameters
    assert set(report.by_type) == {"qkv", "proj", "fc1", "fc2"}


@pytest.mark.parametrize(("rank", "millions"), [(2, 0.309), (4, 0.499), (8, 0.880)])
def test_expected_size_of_a_uniform_random_subnet(vit_b16, rank, millions):
    """The mean over the 432 structures is the expectation of a uniform draw, layer by layer."""
    report = glora.count_parameters(presets.lora(1), vit_b16)
    configs = list(all_layer_configs(rank=rank))
    total = sum(
        sum(sum(config.count(layer.out_features, layer.in_features).values()) for config in configs)
        for layer in report.layers
    )
    assert round(total / 432 / 1e6, 3) == millions


def test_alpha_lora_on_roberta_base_adds_18432():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(
            vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, num_labels=2
        ))  # fmt: skip
    target = r"(query|value)$"
    lora = glora.count_parameters(presets.lora(8, target, modules_to_save=["classifier"]), model)
    alpha = glora.count_parameters(presets.alpha_lora(8, target, modules_to_save=["classifier"]), model)
    assert lora.trainable == 887_042
    assert alpha.trainable == 905_474
    assert alpha.trainable - lora.trainable == 24 * 768 == 18_432


def test_counting_a_configuration_equals_attaching_it():
    for seed, config in enumerate((presets.glora(3), presets.alpha_lora(2), presets.ssf(), presets.bitfit())):
        counted = glora.count_parameters(config, tiny_vit())
        model = tiny_vit(seed=seed)
        attached = glora.attach(model, config)
        assert counted == attached == glora.count_parameters(model) or counted.layers == attached.layers
        assert counted.adapter_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert set(counted.by_tensor) == set(TENSORS)


def test_a_configuration_needs_a_model():
    with pytest.raises(ValueError, match=r"count_parameters\(config, model\)"):
        glora.count_parameters(presets.lora())
    with pytest.raises(ValueError, match="no adapter is attached"):
        glora.count_parameters(tiny_vit())
