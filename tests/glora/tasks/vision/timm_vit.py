"""A timm ViT, adapted, trained a step and merged; run as a script by ``test_timm.py``.

timm imports torchvision for transforms and detection operators that a ViT does not use. Where torchvision is missing, an
empty package of that name lets timm import; this process is thrown away, so nobody else meets it.
"""

from __future__ import annotations

import enum
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import types
from typing import Any

import torch


class _Empty(types.ModuleType):
    """A package in which every name is a class that does nothing."""

    __path__: list[str] = []  # noqa: RUF012 (what makes it a package)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "InterpolationMode":
            return enum.Enum(name, {mode.upper(): mode for mode in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")})  # fmt: skip
        return type(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return (
            importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "torchvision" else None
        )

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


def main() -> None:
    torch.set_num_threads(1)
    shimmed = importlib.util.find_spec("torchvision") is None
    if shimmed:
        sys.meta_path.append(_Finder())
    import timm

    import glora
    from glora.tasks.vision.models import load_classifier

    # No weights can be fetched in a test; everything else is as `load_classifier` asks for it.
    make = timm.create_model
    timm.create_model = lambda name, pretrained, **options: make(name, pretrained=False, depth=2, **options)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = load_classifier("timm:vit_tiny_patch16_224", 5, side=32, generator=generator, drop_path=0.1).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
    report = glora.attach(model, glora.presets.glora(rank=2, modules_to_save=["head"]))
    with torch.no_grad():
        identity = float((model(x) - before).abs().max())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        torch.nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2])).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        trained, merged = model(x), glora.merged_copy(model)(x)
        with glora.merged(model):
            in_place = model(x)
    print(
        json.dumps(
            {
                "shimmed": shimmed,
                "timm": timm.__version__,
                "layers": [layer.name for layer in report.layers],
                "shapes": [[layer.out_features, layer.in_features] for layer in report.layers],
                "drop_path": model.backbone.blocks[-1].drop_path2.drop_prob,
                "identity": identity,
                "moved": float((trained - before).abs().max()),
                "merged": float((merged - trained).abs().max()),
                "in_place": float((in_place - trained).abs().max()),
            }
        )
    )


if __name__ == "__main__":
    main()
