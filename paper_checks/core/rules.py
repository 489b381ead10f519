"""Rules that are frozen: a digest of what decides a verdict, and the history of its changes.

A verdict can be trusted if its rule stood before the cells it judges. The digest covers the rule's words, the numbers
it uses and the syntax tree of ``judge`` with all it calls inside ``paper_checks``. Names of variables and functions,
docstrings, comments and prose are left out of the tree and functions are followed in the order of use, so that moving
or renaming code does not change it; another number, another verdict, or comparing the other way round does.

``rules.json`` beside the results holds the history, oldest first, an entry a change: digest, time, the rule's words,
and why it changed. ``paper-checks freeze`` appends to it; a test fails while a rule differs from its last entry.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import inspect
import json
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paper_checks.core.check import COMMITTED, Check
from rmt._files import read_json, write_json

FILE = "rules.json"
#: Fields of a syntax tree that only name something of ours, annotate, or are implied.
_LEFT_OUT = frozenset(
    [
        "ctx",
        "id",
        "arg",
        "name",
        "names",
        "module",
        "annotation",
        "returns",
        "type_comment",
        "kind",
        "type_ignores",
        "type_params",
    ]
)


@dataclass(frozen=True)
class Frozen:
    """One state of a rule.

    Attributes:
        digest: of the rule, see :func:`digest`. time: when it was frozen, UTC, ISO 8601.
        rule: its words then. why: the reason for the change; for a first entry, how it came to be.
        same: the rule decides as before, and this entry says something about it or about its digest only.
    """

    digest: str
    time: str
    rule: str
    why: str
    same: bool = False


def digest(check: Check) -> str:
    """SHA-256 (16 hex digits) of the rule's words, its numbers, and the syntax of its verdict."""
    parts: list[Any] = [" ".join(check.rule.split())]
    for function, owner in followed(check):
        parts.append([_syntax(function), _numbers(function, owner)])
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def history(folder: Path = COMMITTED) -> dict[str, list[Frozen]]:
    """Frozen states of every rule by check id, oldest first; empty where none was ever frozen."""
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        return {name: [Frozen(**entry) for entry in entries] for name, entries in read_json(path).items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"file {str(path)!r} is damaged ({error}); restore it from the repository") from None


def freeze(
    checks: Mapping[str, Check],
    why: str,
    folder: Path = COMMITTED,
    *,
    same: bool = False,
    noted: Collection[str] = (),
) -> list[str]:
    """Append an entry for every check whose rule differs from its last one; returns their ids.

    ``same`` marks entries under which the rule decides as before (see :class:`Frozen`). ``noted`` are ids that get such
    an entry alone, and no other check does: something to say of a rule that did not change.

    Raises:
        ValueError: ``why`` is empty, or a check to be noted has changed.
    """
    if not why.strip():
        raise ValueError("why is empty; say in a sentence why the rules changed: readers see it beside the verdict")
    known = history(folder)
    changed = list(noted) or [name for name, check in checks.items() if not is_frozen(check, known)]
    if altered := [name for name in noted if not is_frozen(checks[name], known)]:
        raise ValueError(f"the rules of {', '.join(altered)} changed; freeze them before a note is made of them")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name in changed:
        known.setdefault(name, []).append(
            Frozen(digest(checks[name]), now, checks[name].rule, why, same or bool(noted))
        )
    if changed:
        plain = {name: [_entry(one) for one in entries] for name, entries in sorted(known.items())}
        write_json(folder / FILE, plain)
    return changed


def _entry(entry: Frozen) -> dict[str, Any]:
    """For the file, in which `same` stands only where it is true."""
    return {name: value for name, value in asdict(entry).items() if value is not False}


def is_frozen(check: Check, known: Mapping[str, list[Frozen]]) -> bool:
    """Whether the rule is what its last entry says."""
    entries = known.get(check.id, [])
    return bool(entries) and entries[-1].digest == digest(check)


def older_cells(check: Check, records: Mapping[str, Mapping[str, Any]], entries: list[Frozen]) -> list[str]:
    """Cells computed before the rule took its present form; cells that bear no time count as older.

    A cell with the very figures of another is a copy of it under another name, and as old as the older of the two.
    """
    if not entries:
        return list(records)
    since = present_form(entries).time
    times: dict[str, str] = {}
    for record in records.values():
        run, time = _run(record), str(record.get("time", ""))
        times[run] = min(time, times.get(run, time))
    return [cell for cell, record in records.items() if times[_run(record)] < since]


def _run(record: Mapping[str, Any]) -> str:
    """What two records of the same run share."""
    figures = record.get("figures", {})
    return json.dumps({name: value for name, value in figures.items() if name != "copied_from"}, sort_keys=True)


def present_form(entries: list[Frozen]) -> Frozen:
    """The entry with which the rule took its present form."""
    return [entries[0], *(entry for entry in entries[1:] if not entry.same)][-1]


def followed(check: Check) -> Iterator[tuple[types.FunctionType, type | None]]:
    """``judge`` and every function of ``paper_checks`` that it reaches, each once, in the order of use."""
    seen: set[Any] = set()
    waiting: list[tuple[types.FunctionType, type | None]] = [(type(check).judge, type(check))]  # type: ignore[list-item]
    while waiting:
        function, owner = waiting.pop(0)
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        yield function, owner
        waiting += [found for found in _uses(function, owner) if found[0].__code__ not in seen]


def _uses(function: types.FunctionType, owner: type | None) -> Iterator[tuple[types.FunctionType, type | None]]:
    """Functions of ``paper_checks`` that ``function`` names: globals, imports inside, ``self``'s methods, classes."""
    local = dict(_local_imports(function))
    for node in ast.walk(_tree(function)):
        target: Any = None
        if isinstance(node, ast.Name):
            target = local.get(node.id, function.__globals__.get(node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call) and owner is not None:
            if isinstance(node.value.func, ast.Name) and node.value.func.id == "super":
                target = _above(owner, node.attr, function)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "self" and owner is not None:
                target = inspect.getattr_static(owner, node.attr, None)
            else:
                base = local.get(node.value.id, function.__globals__.get(node.value.id))
                if isinstance(base, types.ModuleType | type):
                    target = inspect.getattr_static(base, node.attr, None)
        yield from _functions(target, owner)


def _above(owner: type, name: str, function: types.FunctionType) -> Any:
    """What ``super().name`` means inside ``function``: the next definition along the order of resolution."""
    homes = [base for base in owner.__mro__ if name in vars(base)]
    for place, base in enumerate(homes):
        if getattr(vars(base)[name], "__code__", None) is function.__code__ and place + 1 < len(homes):
            return vars(homes[place + 1])[name]
    return vars(homes[0])[name] if homes else None


def _functions(target: Any, owner: type | None) -> Iterator[tuple[types.FunctionType, type | None]]:
    if isinstance(target, staticmethod | classmethod):
        target = target.__func__
    if isinstance(target, property):
        target = target.fget
    if isinstance(target, functools.cached_property):
        target = target.func
    if isinstance(target, types.FunctionType) and _ours(target):
        yield target, owner
    if isinstance(target, type) and _ours(target):
        for value in vars(target).values():
            if isinstance(value, types.FunctionType | property | staticmethod | classmethod) and not isinstance(
                value, type
            ):
                yield from _functions(value, target)


def _ours(thing: Any) -> bool:
    module = getattr(thing, "__module__", "") or ""
    if not module.startswith("paper_checks.") or module.startswith(("paper_checks.report", "paper_checks.core")):
        return False
    if isinstance(thing, types.FunctionType):  # methods that dataclass writes have no source, or one of Python's own
        written = not thing.__code__.co_filename.startswith("<") and thing.__globals__["__name__"].startswith(
            "paper_checks."
        )
        return written and thing.__name__ not in ("draw", "<lambda>")
    return True


def _tree(function: types.FunctionType) -> ast.FunctionDef:
    code = function.__code__
    return definitions(code.co_filename)[code.co_firstlineno]


@functools.cache
def definitions(path: str) -> dict[int, ast.FunctionDef]:
    """Functions of a file by their first line."""
    return by_line(ast.parse(Path(path).read_text(encoding="utf-8")))


def by_line(tree: ast.Module) -> dict[int, ast.FunctionDef]:
    """Functions of a syntax tree by their first line, decorators included."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {min([node.lineno, *(one.lineno for one in node.decorator_list)]): node for node in nodes}


def _local_imports(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Names that imports inside the function bind, as far as they belong to ``paper_checks``."""
    import importlib

    for node in ast.walk(_tree(function)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("paper_checks"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                yield alias.asname or alias.name, getattr(module, alias.name, None)


def _syntax(function: types.FunctionType) -> Any:
    """The function's tree as nested lists: kinds of nodes, constants, attributes; no names, docstrings or prose."""
    body = _tree(function).body
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        body = body[1:]
    return [_plain(node) for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node if not isinstance(item, ast.Import | ast.ImportFrom)]
    if isinstance(node, ast.JoinedStr):
        return ["text", *(_plain(part.value) for part in node.values if isinstance(part, ast.FormattedValue))]
    if isinstance(node, ast.Constant):
        prose = isinstance(node.value, str) and (" " in node.value or not node.value.isascii())
        return "text" if prose else repr(node.value)
    if isinstance(node, ast.Name) and not node.id.startswith("_") and hasattr(builtins, node.id):
        # sum and len decide otherwise than max and min; interactive sessions and doctest put `_` among the builtins
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return "own"
    if not isinstance(node, ast.AST):
        return node if isinstance(node, str) else None
    fields = [_plain(value) for name, value in ast.iter_fields(node) if name not in _LEFT_OUT]
    return [type(node).__name__, *fields]


def _numbers(function: types.FunctionType, owner: type | None) -> list[str]:
    """Numbers that stand behind global names and class attributes the function uses, in the order of use."""
    found = []
    for node in ast.walk(_tree(function)):
        value: Any = None
        if isinstance(node, ast.Name):
            value = function.__globals__.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            value = inspect.getattr_static(owner, node.attr, None)
        if _is_number(value) or (isinstance(value, tuple) and value and all(map(_is_number, value))):
            found.append(repr(value))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
