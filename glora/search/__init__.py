"""The search: an engine proposes subnets, a supernet's validation accuracy or loss judges them, a log remembers.

supernet = glora.SuperNet(model, rank=4, modules_to_save=["head"])
…train it…
found = glora.search.search(supernet, task, Evolution(supernet.space, Budget.around(290_000)), folder=out)
glora.attach(fresh_model, supernet.config(found.best.genome))
"""

from glora.search.loop import Found, save_found, search
from glora.search.supernet_task import SuperNetTask

__all__ = ["Found", "SuperNetTask", "save_found", "search"]
