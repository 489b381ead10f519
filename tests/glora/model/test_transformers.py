"""Tiny models of transformers with random weights: identity, training, merging, files, export."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch

import glora
from glora import presets
from tests.glora.models import perturb

transformers = pytest.importorskip("transformers")

TEXT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}


def text() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(2, 50, (3, 7), generator=torch.Generator().manual_seed(0))}


def pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))}


def build(cls: str, config: str, **values) -> torch.nn.Module:
    torch.default_generator.manual_seed(0)
    model = getattr(transformers, cls)(getattr(transformers, config)(**values)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


MODELS = {
    "bert": (lambda: build("BertForSequenceClassification", "BertConfig", **TEXT), text, 13),
    "roberta": (lambda: build("RobertaForSequenceClassification", "RobertaConfig", **TEXT), text, 12),
    "vit": (lambda: build("ViTForImageClassification", "ViTConfig", intermediate_size=32, **VISION), pixels, 12),
    "dinov2": (lambda: build("Dinov2Model", "Dinov2Config", mlp_ratio=2, **VISION), pixels, 12),
    "gpt2": (
        lambda: build("GPT2LMHeadModel", "GPT2Config", vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16),
        text,
        8,
    ),
    "llama": (lambda: build("LlamaForCausalLM", "LlamaConfig", **TEXT), text, 14),
}  # fmt: skip


def output(model, values):
    result = model(**values)
    return result.logits if hasattr(result, "logits") else result.last_hidden_state


@pytest.fixture(params=MODELS, scope="module")
def model_of(request):
    return MODELS[request.param]


@pytest.mark.parametrize("preset", ["alpha_lora", "glora"])
def test_identity_training_merging_and_files(model_of, preset, tmp_path):
    make, values, layers = model_of
    model = make()
    before = output(model, values())
    with warnings.catch_warnings():
        # Llama's layers have no bias for D to scale.
        warnings.simplefilter("ignore", UserWarning)
        report = glora.attach(model, getattr(presets, preset)(rank=2))
    assert len(report.layers) == layers
    assert torch.equal(output(model, values()), before)
    output(model, values()).square().mean().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    # A zero left factor stops the gradient of the right one.
    assert sum(bool(p.grad.any()) for p in trained) >= len(trained) / 2
    perturb(model, size=0.05)
    after = output(model, values())
    assert not torch.equal(after, before)
    glora.save(model, tmp_path)
    fresh = make()
    glora.load(fresh, tmp_path)
    assert torch.equal(output(fresh, values()), after)
    with glora.merged(fresh):
        torch.testing.assert_close(output(fresh, values()), after, rtol=1e-4, atol=1e-4)
    glora.detach(fresh)
    assert torch.equal(output(fresh, values()), before)


def test_gradient_checkpointing_of_transformers():
    model = build(
        "BertForSequenceClassification", "BertConfig", hidden_dropout_prob=0, attention_probs_dropout_prob=0, **TEXT
    )
    glora.attach(model, presets.alpha_lora(2))
    perturb(model)
    wrt = [p for p in model.parameters() if p.requires_grad]
    model.train()
    plain = torch.autograd.grad(model(**text()).logits.square().sum(), wrt)
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = torch.autograd.grad(model(**text()).logits.square().sum(), wrt)
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b)


def test_generation_with_a_cache_uses_the_factored_form():
    model = build("LlamaForCausalLM", "LlamaConfig", **TEXT)
    glora.attach(model, glora.GLoRAConfig(A="lora", B="lora", C="lora", rank=2))
    perturb(model, size=0.3)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    tokens = model.generate(**text(), **options)
    with glora.merged(model):
        assert torch.equal(model.generate(**text(), **options), tokens)


def test_export_loads_with_from_pretrained(tmp_path):
    make, values, _ = MODELS["bert"]
    model = make()
    glora.attach(model, presets.glora(2, modules_to_save=["classifier"]))
    perturb(model, size=0.05)
    assert glora.export(model, tmp_path) == []
    plain = transformers.BertForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(output(plain, values()), output(model, values()), rtol=1e-4, atol=1e-4)
    assert "glora" not in (tmp_path / "config.json").read_text().lower()


def test_export_of_a_bias_the_architecture_lacks_is_announced(tmp_path):
    model = build("LlamaForCausalLM", "LlamaConfig", **TEXT)
    glora.attach(model, presets.bitfit(r"q_proj$"))
    perturb(model)
    with pytest.warns(UserWarning, match="2 layers have a bias in this checkpoint and had none"):
        added = glora.export(model, tmp_path)
    assert added == ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]


@pytest.mark.skipif("ADAPT_SHARED" not in os.environ, reason="needs ADAPT_SHARED, a folder with models/minilm-l6")
def test_real_weights():
    folder = Path(os.environ["ADAPT_SHARED"]) / "models" / "minilm-l6"
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    values = {"input_ids": torch.randint(1000, 20000, (2, 12))}
    before = model(**values).last_hidden_state
    glora.attach(model, presets.glora(4))
    assert torch.equal(model(**values).last_hidden_state, before)
    perturb(model, size=0.01)
    after = model(**values).last_hidden_state
    glora.merge(model)
    torch.testing.assert_close(model(**values).last_hidden_state, after, rtol=1e-3, atol=1e-4)
    glora.detach(model)
    assert torch.equal(model(**values).last_hidden_state, before)
