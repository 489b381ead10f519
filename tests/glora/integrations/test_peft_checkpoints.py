"""PEFT's checkpoints become ours, and ours PEFT's where the structure allows."""

from __future__ import annotations

import pytest
import torch

import glora
from glora import GLoRAConfig, LayerConfig, presets
from glora.integrations import peft_checkpoints
from tests.glora.models import images, perturb, tiny_vit

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


@pytest.mark.parametrize(
    "fields",
    [
        {"r": 4, "lora_alpha": 8},
        {"r": 4, "lora_alpha": 8, "use_rslora": True},
        {"r": 4, "rank_pattern": {"qkv": 2}, "alpha_pattern": {r"blocks\.0\.attn\.qkv": 3}},
        {"r": 2, "modules_to_save": ["head"]},
        {"r": 2, "target_modules": ["proj"]},
    ],
)
def test_peft_lora_checkpoints_become_ours(fields, tmp_path):
    theirs = peft.get_peft_model(tiny_vit(), peft.LoraConfig(**{"target_modules": ["qkv", "fc1"], **fields})).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path)
    ours = tiny_vit()
    peft_checkpoints.load(ours, tmp_path)
    torch.testing.assert_close(ours(images()), theirs(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("structure", ["lora", "vector", "constant", "none"])
def test_peft_glora_checkpoints_become_ours(structure, tmp_path):
    config = peft.GloraConfig(
        r=2, target_modules=["qkv", "fc1"], config_A_B=structure, config_C="lora", config_D_E="vector"
    )
    theirs = peft.get_peft_model(tiny_vit(), config).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path)
    ours = tiny_vit()
    report = peft_checkpoints.load(ours, tmp_path)
    torch.testing.assert_close(ours(images()), theirs(images()), rtol=1e-4, atol=1e-5)
    assert report.trainable == sum(p.numel() for p in theirs.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_dora": True}, "use_dora=True of adapter_config.json has no counterpart"),
        ({"bias": "lora_only"}, "bias='lora_only' of adapter_config.json has no counterpart"),
        ({"init_lora_weights": "pissa"}, "may change the base weights"),
    ],
)
def test_lora_variants_without_a_counterpart_are_refused(fields, message, tmp_path):
    theirs = peft.get_peft_model(tiny_vit(), peft.LoraConfig(r=2, target_modules=["qkv"], **fields))
    theirs.save_pretrained(tmp_path)
    model = tiny_vit()
    with pytest.raises(ValueError, match=message):
        peft_checkpoints.load(model, tmp_path)
    assert str(model) == str(tiny_vit())


def test_a_peft_checkpoint_of_another_model_is_refused(tmp_path):
    theirs = peft.get_peft_model(tiny_vit(), peft.LoraConfig(r=2, target_modules=["qkv"]))
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"layer 'blocks.0.attn.qkv' has another shape"):
        peft_checkpoints.load(tiny_vit(dim=32), tmp_path)
    with pytest.raises(ValueError, match=r"the model has no layer 'blocks.1.attn.qkv'"):
        peft_checkpoints.load(tiny_vit(depth=1), tmp_path)
    with pytest.raises(FileNotFoundError, match="no adapter_config.json"):
        peft_checkpoints.load(tiny_vit(), tmp_path / "elsewhere")


def test_ours_become_peft_lora(tmp_path):
    model = tiny_vit()
    config = GLoRAConfig(
        target=["qkv", "fc1", "patch_embed.proj"], B="lora", rank=2, lora_scale=0.5, modules_to_save=["head"],
        overrides={r"blocks\.1\.attn": LayerConfig(B="lora", rank=3, lora_scale=2.0)},
    )  # fmt: skip
    glora.attach(model, config)
    perturb(model)
    peft_checkpoints.save_as_peft_lora(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny_vit(), tmp_path).eval()
    torch.testing.assert_close(theirs(images()), model(images()), rtol=1e-4, atol=1e-5)
    again = tiny_vit()
    peft_checkpoints.load(again, tmp_path)
    assert torch.equal(again(images()), model(images()))


def test_ours_with_more_than_b_are_refused(tmp_path):
    model = tiny_vit()
    glora.attach(model, presets.alpha_lora(2))
    with pytest.raises(ValueError, match=r"layer 'blocks.0.attn.qkv' has A=vector B=lora\(2\) D=vector tied; only"):
        peft_checkpoints.save_as_peft_lora(model, tmp_path)
