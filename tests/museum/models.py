"""Tiny models of the museum: plain ones, and real architectures of transformers with random weights."""

from __future__ import annotations

import torch
from torch import nn

import glora
from glora import presets
from tests.glora.models import perturb


def seeded() -> None:
    torch.default_generator.manual_seed(0)


def plain() -> nn.Sequential:
    seeded()
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).eval()


def points(rows: int = 5, width: int = 6) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1))


def trained(model: nn.Module, target="all-linear", **fields) -> nn.Module:
    """The model with a LoRA adapter as if trained."""
    glora.attach(model, presets.lora(2, target=target, **fields), generator=torch.Generator().manual_seed(2))
    perturb(model)
    return model.eval()


def ids(rows: int = 2, length: int = 7, vocabulary: int = 40) -> torch.Tensor:
    return torch.randint(3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(3))


def t5() -> nn.Module:
    from transformers import T5Config, T5EncoderModel

    seeded()
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def bloom(slow: bool = True) -> nn.Module:
    from transformers import BloomConfig, BloomModel

    seeded()
    config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2, pretraining_tp=2, slow_but_exact=slow)
    return BloomModel(config).eval()


def mamba() -> nn.Module:
    from transformers import MambaConfig, MambaModel

    seeded()
    config = MambaConfig(vocab_size=40, hidden_size=16, state_size=4, num_hidden_layers=1, time_step_rank=4)
    return MambaModel(config).eval()


def falcon_mamba() -> nn.Module:
    from transformers import FalconMambaConfig, FalconMambaModel

    seeded()
    config = FalconMambaConfig(vocab_size=40, hidden_size=16, state_size=4, num_hidden_layers=1, time_step_rank=4)
    return FalconMambaModel(config).eval()


def wavlm() -> nn.Module:
    from transformers import WavLMConfig, WavLMModel

    seeded()
    config = WavLMConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8),
        conv_kernel=(8, 4),
        conv_stride=(4, 2),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
        apply_spec_augment=False,
    )
    return WavLMModel(config).eval()


def wave() -> torch.Tensor:
    return torch.randn(1, 240, generator=torch.Generator().manual_seed(4))


def dinov2() -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    seeded()
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
    return Dinov2Model(config).eval()


def images(side: int = 8) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(5))


def resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    seeded()
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    return ResNetModel(config).eval()


def qwen2() -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    seeded()
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval()


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    seeded()
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16)).eval()


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    seeded()
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, num_labels=3
    )
    return BertForSequenceClassification(config).eval()


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    seeded()
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaForCausalLM(config).eval()


def encoder() -> nn.Module:
    seeded()
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
