"""Small models for the tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TimmLikeBlock(nn.Module):
    """A transformer block with the layer names of timm's ViT: one fused qkv."""

    def __init__(self, dim: int, heads: int = 2, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or 4 * dim
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.attn.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.attn.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


class TimmLikeViT(nn.Module):
    """A ViT with timm's names: patch_embed.proj, blocks.N.attn.qkv …, head."""

    def __init__(self, dim: int = 16, depth: int = 2, classes: int = 3, patch: int = 4, tokens: int = 4) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, dim, patch, stride=patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        self.blocks = nn.Sequential(*(TimmLikeBlock(dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        return self.head(self.norm(self.blocks(x)).mean(1))


def tiny_vit(seed: int = 0, **sizes: int) -> TimmLikeViT:
    """A ViT on 8×8 images with weights drawn from `seed`."""
    torch.default_generator.manual_seed(seed)
    return TimmLikeViT(**sizes)


def images(number: int = 5, seed: int = 1) -> Tensor:
    """Images for `tiny_vit`, (number, 3, 8, 8)."""
    return torch.randn(number, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def perturb(model: nn.Module, seed: int = 2, size: float = 0.1) -> None:
    """Move every trainable parameter, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn(parameter.shape, generator=generator).to(parameter)
