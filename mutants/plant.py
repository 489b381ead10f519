"""Put a fault into code that is loaded: functions get the mutated code and stay the same objects.

So a process that has imported everything and collected its tests forks once a mutant, and nothing is written. What
runs while a module is imported (defaults, constants) is not mutated.
"""

from __future__ import annotations

import ast
import functools
import gc
import types
from pathlib import Path
from typing import Any

from mutants.plan import ROOT, Mutant, mutated


def plant(mutant: Mutant) -> None:
    """Give every loaded function of the module the code of the mutated tree.

    Raises:
        ValueError: no loaded function holds the fault.
    """
    import importlib

    path = str(importlib.import_module(mutant.module).__file__)
    tree = mutated(mutant)
    codes = {(code.co_qualname, code.co_firstlineno): code for code in _codes(compile(tree, path, "exec"))}
    functions, caches = loaded()
    planted = 0
    for thing in functions.get(path, ()):
        new = codes.get((thing.__code__.co_qualname, thing.__code__.co_firstlineno))
        if new is not None and new.co_freevars == thing.__code__.co_freevars:
            planted += thing.__code__ != new
            thing.__code__ = new
    for cache in caches:
        cache.cache_clear()
    if not planted:
        raise ValueError(f"no loaded function of {mutant.path} holds the fault in line {mutant.line}")
    _digests(path, tree)


@functools.cache
def loaded() -> tuple[dict[str, list[types.FunctionType]], list[Any]]:
    """Functions by file, and caches, of this project; looked for once, before any fork."""
    functions: dict[str, list[types.FunctionType]] = {}
    caches = []
    for thing in gc.get_objects():  # by type(): isinstance asks proxies of other libraries, and some of them warn
        if type(thing) is types.FunctionType and thing.__code__.co_filename.startswith(str(ROOT)):
            functions.setdefault(thing.__code__.co_filename, []).append(thing)
        elif type(thing) is functools._lru_cache_wrapper and thing.__module__.startswith(
            ("rmt", "glora", "paper_checks")
        ):
            caches.append(thing)
    return functions, caches


def _codes(code: types.CodeType) -> list[types.CodeType]:
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return [code, *(deeper for one in inner for deeper in _codes(one))]


def _digests(path: str, tree: ast.Module) -> None:
    """The digests of rules read the syntax of files; they get the mutated one."""
    from paper_checks.core import rules

    sound = rules.definitions
    changed = rules.by_line(tree)

    def definitions(name: str) -> dict[int, ast.FunctionDef]:
        return changed if Path(name) == Path(path) else sound(name)

    rules.definitions = definitions  # type: ignore[assignment]
