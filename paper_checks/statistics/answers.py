"""Right and wrong answers to test examples, packed for storing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bits(right: NDArray[np.bool_]) -> str:
    """Right and wrong answers as text."""
    return "".join("01"[int(one)] for one in right)


def pack(right: NDArray[np.bool_]) -> str:
    """Answers as text: their number and their bits."""
    return f"{len(right)}:{np.packbits(right).tobytes().hex()}"


def unpack(text: str) -> NDArray[np.bool_]:
    """Inverse of how answers are stored."""
    size, _, bits = text.partition(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8), count=int(size)).astype(bool)
