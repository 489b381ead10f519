"""The search: an engine proposes subnets, a supernet's validation accuracy or loss judges them, a log remembers.

    supernet = glora.SuperNet(model, rank=4, modules_to_save=["head"])
    …train it…
    found = glora.search.search(supernet, task, Evolution(supernet.space, Budget.around(290_000)), folder=out)
    glora.attach(fresh_model, supernet.config(found.best.genome))

``import glora`` needs the supernet alone, so the rest is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glora.search.loop import SearchResult, save_found, search
    from glora.search.supernet_task import SuperNetTask

__all__ = ["SearchResult", "SuperNetTask", "save_found", "search"]

_HOMES = {"SearchResult": "loop", "SuperNetTask": "supernet_task", "save_found": "loop", "search": "loop"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
