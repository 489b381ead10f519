"""Finding the checks.

To add one: a module in a folder of ``paper_checks/checks``, one a paper, with one :class:`Check` subclass and
``CHECK = ThatClass()``, and ``SECOND`` where the claim is judged a second time under other conditions. Discovery finds
it; ``list``, ``run``, ``report`` and the README table follow. To add a paper: a folder whose ``__init__`` has `NAME`
and `PAPER`, the short name and the title.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from paper_checks.core.check import Check

#: The papers that the project is about.
FIRST = ("alpha_lora", "glora")
#: Ids that checks had before, and those they have now.
RENAMED = {
    f"glora.{name}": f"alpha_lora.{name}"
    for name in (
        *("glue_fair", "glue_recipe", "glue_full", "glue_affine", "glue_alpha", "glue_sensitivity"),
        "alpha_overhead",
    )
}


def papers() -> dict[str, tuple[str, str]]:
    """Short name and title of every paper by its group; `FIRST`, then the others by name."""
    path = importlib.import_module("paper_checks.checks").__path__
    groups = sorted(info.name for info in pkgutil.iter_modules(path))
    found = {}
    for group in [*FIRST, *(name for name in groups if name not in FIRST)]:
        package = importlib.import_module(f"paper_checks.checks.{group}")
        found[group] = package.NAME, package.PAPER
    return found


def all_checks() -> dict[str, Check]:
    """Every check by id, found in the modules of every paper.

    A group's ``ORDER`` names the modules that come first; the rest follow by name.
    """
    found: dict[str, Check] = {}
    for group in papers():
        package = importlib.import_module(f"paper_checks.checks.{group}")
        names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
        first = [name for name in getattr(package, "ORDER", ()) if name in names]
        for name in [*first, *(name for name in names if name not in first)]:
            module = importlib.import_module(f"paper_checks.checks.{group}.{name}")
            for check in (getattr(module, name, None) for name in ("CHECK", "SECOND")):
                if isinstance(check, Check):
                    if check.id in found:
                        raise ValueError(f"two checks have the id {check.id!r}; rename one")
                    found[check.id] = check
    return found


def select(ids: Iterable[str]) -> list[Check]:
    """The checks with these ids or prefixes (``alpha_lora`` takes the group); all of them for no ids.

    Ids of `RENAMED` are understood.
    """
    known, ids = all_checks(), [RENAMED.get(one, one) for one in ids]
    unknown = [one for one in ids if not any(key == one or key.startswith(f"{one}.") for key in known)]
    if unknown:
        raise ValueError(f"no check is called {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    return [c for key, c in known.items() if not ids or any(key == one or key.startswith(f"{one}.") for one in ids)]
