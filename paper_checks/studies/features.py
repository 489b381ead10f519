"""Features of real texts and images from small pretrained encoders, computed where they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paper_checks.core import LOCAL, Context, NotAvailable


def text_features(context: Context, texts: Sequence[str]) -> Any:
    """(rows, 384) mean-pooled MiniLM states; texts of about one length share a batch."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = context.folder("models", "minilm-l6")
    tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, **LOCAL).eval()
    order, features = np.argsort([len(text) for text in texts], kind="stable"), np.zeros((len(texts), 384))
    for start in range(0, len(texts), 64):
        some = order[start : start + 64]
        batch = tokenizer([texts[i] for i in some], padding=True, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        features[some] = ((states * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    return features


def image_features(context: Context, paths: Sequence[Path]) -> Any:
    """(rows, 384) class-token states of ViT-S/14 at 56 px."""
    import torch
    from PIL import Image
    from transformers import AutoModel

    model = AutoModel.from_pretrained(context.folder("models", "vit-s14"), dtype=torch.float32, **LOCAL).eval()
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    parts = []
    for start in range(0, len(paths), 50):
        pictures = []
        for path in paths[start : start + 50]:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB").resize((56, 56), Image.Resampling.BICUBIC))
            pictures.append((torch.from_numpy(pixels.copy()).float() / 255.0 - mean) / spread)
        with torch.inference_mode():
            states = model(pixel_values=torch.stack(pictures).permute(0, 3, 1, 2)).last_hidden_state
        parts.append(states[:, 0].numpy())
    return np.concatenate(parts).astype(float)


def digits() -> tuple[Any, Any]:
    """scikit-learn's digits and their classes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise NotAvailable("needs scikit-learn; pip install 'rescale-and-adapt[learn]'") from None
    return load_digits(return_X_y=True)


def list_features(context: Context, name: str, rows: int) -> tuple[Any, Any]:
    """Features and classes of the first ``rows`` images of both lists of a data set in VTAB's layout."""
    folder = context.folder("data", "vtab", name)
    parts = [(folder / part).read_text(encoding="utf-8") for part in ("test.txt", "train800val200.txt")]
    lines = [line.split() for line in "".join(parts).splitlines()][:rows]
    return image_features(context, [folder / path for path, _ in lines]), np.array([int(label) for _, label in lines])
