"""Threads of a study's cells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread(enabled: bool = True) -> Iterator[None]:
    """torch on one thread, so that figures do not depend on the number of cores."""
    import torch

    threads = torch.get_num_threads()
    if enabled:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
