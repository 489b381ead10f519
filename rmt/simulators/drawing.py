"""A simulation under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from rmt._checks import FloatArray


def _rows(part: tuple[FloatArray, ...]) -> int:
    return len(part[0])


class Drawing(NamedTuple):
    """Blocks of draws as they are made, and what makes the first ``count`` draws a result."""

    parts: Iterator[tuple[FloatArray, ...]]
    finish: Callable[[Sequence[tuple[FloatArray, ...]], int], Any]
    size: Callable[[tuple[FloatArray, ...]], int] = _rows  #: draws of a block
