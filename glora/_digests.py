"""One digest for everything stored as tensors: names, types, shapes, numbers and the words that go with them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from glora._files import DIGEST, naming, require_regular


def of_tensors(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of tensors by name, in any order, and of a text (the JSON beside them)."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the floating-point tensors that hold NaN or an infinity."""
    return [
        name for name, tensor in tensors.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]


def sealed(tensors: Mapping[str, Tensor], **words: str) -> bytes:
    """A safetensors file of tensors, with their digest (and further words) in its header."""
    from safetensors.torch import save

    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(own, metadata={**words, DIGEST: of_tensors(own)})


def unsealed(path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which must fit its digest, if it has one, and be finite.

    Raises:
        ValueError: they are not, or the file is damaged; the message names it and the remedy.
    """
    from safetensors import SafetensorError, safe_open

    require_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            known = (file.metadata() or {}).get(DIGEST)
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}); {remedy}") from None
    if known is not None and known != of_tensors(tensors):
        raise ValueError(f"{str(path)!r} is damaged (its digest does not fit); {remedy}")
    bad = not_finite(tensors)
    if bad:
        raise ValueError(f"{str(path)!r} holds numbers that are not finite, in {bad[0]}; {remedy}")
    return tensors


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Where safetensors writes a file itself: its failures to write become OSErrors that name `path`."""
    from safetensors import SafetensorError

    try:
        with naming(path):
            yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
