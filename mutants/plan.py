"""Which faults: sites found by operators on the syntax tree, and a draw of them by a committed seed.

The draw is fixed before anything runs: the same seed and code give the same mutants.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
SEED = 17


@dataclass(frozen=True)
class Target:
    """One kind of code.

    Attributes:
        number: mutants drawn of it. modules: that are mutated; empty for whatever the verdicts rest on.
        tests: that look at them.
    """

    number: int
    modules: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = {
    "formulas": Target(
        64,
        (
            *(f"rmt/linear/{name}.py" for name in ("isotropic", "gaussian", "regression", "forms")),
            *("rmt/resolvent.py", "rmt/scores/quadratic.py", "rmt/losses.py"),
            *(f"rmt/convex/{name}.py" for name in ("fixed_point", "mixture")),
            *(f"rmt/beyond/{name}.py" for name in ("classes", "class_model", "elliptical", "subspace")),
        ),
        (
            *(f"tests/rmt/{room}" for room in ("linear", "convex", "beyond", "scores")),
            *("tests/rmt/test_resolvent.py", "tests/rmt/test_losses.py"),
        ),
    ),
    "layers": Target(
        16,
        tuple(f"glora/layer/{name}.py" for name in ("tensors", "geometry", "forward", "adapter", "effective")),
        ("tests/glora/layer",),
    ),
    "statistics": Target(
        16,
        (),
        ("tests/paper_checks/statistics", "tests/paper_checks/studies", "tests/paper_checks/test_outcomes.py"),
    ),
    "verdicts": Target(
        32,
        (),
        ("tests/paper_checks/checks", "tests/paper_checks/test_outcomes.py", "tests/paper_checks/studies"),
    ),
}
#: Tests that every verdict has beside its own: simulated studies. (The digest of its rule is asked apart.)
COMMON = ("tests/paper_checks/test_power_of_rules.py",)

#: Mutants that compute the same, found by looking at survivors: (path, change) -> pieces of the lines. They count
#: nowhere. Axis −1 of a matrix is its axis 1; without an intercept b₀ = 0 and 2b₀ = 0 are one equation.
EQUIVALENT = {
    ("rmt/beyond/classes.py", "1.0 -> 2.0"): ("system[:, count, count] = 1.0",),
    ("rmt/convex/mixture.py", "-x -> +x"): ("* e, -1)",),
    ("rmt/convex/fixed_point.py", "-x -> +x"): ("weight.sum(axis=-1)", "np.sum(weight * values * inverse, axis=-1)"),
}

_COMPARE = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
_LOGIC = {ast.And: ast.Or, ast.Or: ast.And}
_SWAPPED = {"max": "min", "min": "max", "all": "any", "any": "all"}
#: Functions that only show something, or check what was given.
_LEFT_OUT = ("draw", "__repr__", "__str__", "__post_init__")


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        kind: key of `TARGETS`. path: the module. site: the number of the site in it. line: where. what: the change.
        function: first line of the outermost function it lies in, decorators included.
    """

    kind: str
    path: str
    site: int
    line: int
    what: str
    function: int

    @property
    def name(self) -> str:
        """Of its result file: the module, the place and a digest of the change."""
        digest = hashlib.sha256(f"{self.path}:{self.site}:{self.what}".encode()).hexdigest()[:6]
        return f"{self.path.replace('/', '.').removesuffix('.py')}-{self.line}-{digest}"

    @property
    def module(self) -> str:
        """The module's name for import."""
        return self.path.removesuffix(".py").replace("/", ".")


def draw(seed: int = SEED) -> list[Mutant]:
    """The mutants, in an order that visits the kinds in turn. Each module of a kind has the same chance per site."""
    lists = []
    for place, (kind, target) in enumerate(TARGETS.items()):
        found = [mutant for path in target.modules for mutant in sites(kind, path)]
        if not target.modules:
            homes = functions(kind)
            found = [one for path in sorted(homes) for one in sites(kind, path) if one.function in homes[path]]
        order = np.random.default_rng([seed, place]).permutation(len(found))[: target.number]
        lists.append([found[i] for i in order])
    return [one[i] for i in range(max(map(len, lists))) for one in lists if i < len(one)]


def functions(kind: str) -> dict[str, dict[int, list[str]]]:
    """Functions that verdicts rest on, as the digests of the rules follow them: path -> first line -> ids of checks.

    ``"statistics"`` are those of the rooms `statistics` and `studies`, ``"verdicts"`` those of the checks themselves.
    """
    from paper_checks.core import all_checks
    from paper_checks.core.rules import followed

    found: dict[str, dict[int, list[str]]] = {}
    for name, check in all_checks().items():
        for function, _ in followed(check):
            path = Path(function.__code__.co_filename).resolve().relative_to(ROOT.resolve()).as_posix()
            if path.startswith("paper_checks/checks/") == (kind == "verdicts"):
                found.setdefault(path, {}).setdefault(function.__code__.co_firstlineno, []).append(name)
    return found


def sites(kind: str, path: str) -> list[Mutant]:
    """Every fault that the operators make in a module."""
    tree = parse(path)
    return [Mutant(kind, path, place, *one[:3]) for place, one in enumerate(_changes(tree))]


def parse(path: str) -> ast.Module:
    """The module's syntax tree."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def mutated(mutant: Mutant) -> ast.Module:
    """The module's tree with the fault in it; lines are those of the file.

    Raises:
        ValueError: the code has changed since the draw.
    """
    tree = parse(mutant.path)
    for place, (line, what, function, change) in enumerate(_changes(tree)):
        if place == mutant.site and (line, what, function) == (mutant.line, mutant.what, mutant.function):
            change()
            return ast.fix_missing_locations(tree)
    raise ValueError(f"{mutant.path} has no site {mutant.site} ({mutant.what}); the code changed since the draw")


def is_equivalent(path: str, line: int, what: str) -> bool:
    """Whether a mutant is one of `EQUIVALENT`."""
    text = (ROOT / path).read_text(encoding="utf-8").splitlines()[line - 1]
    return any(piece in text for piece in EQUIVALENT.get((path, what), ()))


def _changes(tree: ast.Module) -> Iterator[tuple[int, str, int, Callable[[], None]]]:
    """Line, words, the outermost function and the change itself of every site, each once."""
    for function in _outermost(tree):
        first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
        for statement in function.body:
            for node, place in _nodes(statement, False):
                for what, change in _of(node, place):
                    yield node.lineno, what, first, change


def _outermost(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Functions and methods that lie in no other function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            if node.name not in _LEFT_OUT:
                yield node
        else:
            yield from _outermost(node)


def _nodes(node: ast.AST, operand: bool) -> Iterator[tuple[ast.expr, bool]]:
    """Expressions that decide something, and whether each is an operand; texts, errors and rows are left out."""
    shows = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Row", "print")
    if shows or isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert | ast.arguments):
        return
    if isinstance(node, ast.expr):
        yield node, operand
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _nodes(child, isinstance(node, ast.BinOp | ast.Compare))


def _of(node: ast.expr, operand: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """The faults that one expression can have."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        new = _COMPARE[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {new.__name__}", _item(node.ops, 0, new())
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node):
        other = _ARITHMETIC[type(node.op)]
        yield f"{type(node.op).__name__} -> {other.__name__}", _attribute(node, "op", other())
    elif isinstance(node, ast.BoolOp):
        logic = _LOGIC[type(node.op)]
        yield f"{type(node.op).__name__} -> {logic.__name__}", _attribute(node, "op", logic())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "-x -> +x", _attribute(node, "op", ast.UAdd())
    elif isinstance(node, ast.Constant) and type(node.value) is float:
        value = 2 * node.value or 1.0
        yield f"{node.value} -> {value}", _attribute(node, "value", value)
    elif isinstance(node, ast.Constant) and type(node.value) is int and operand:
        yield f"{node.value} -> {node.value + 1}", _attribute(node, "value", node.value + 1)
    elif isinstance(node, ast.Name) and node.id in _SWAPPED and isinstance(node.ctx, ast.Load):
        yield f"{node.id} -> {_SWAPPED[node.id]}", _attribute(node, "id", _SWAPPED[node.id])


def _is_text(node: ast.BinOp) -> bool:
    """Whether strings are put together."""
    sides = (node.left, node.right)
    return any(isinstance(side, ast.JoinedStr) or isinstance(getattr(side, "value", None), str) for side in sides)


def _attribute(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, name, copy.copy(value))


def _item(items: list[ast.cmpop], place: int, value: ast.cmpop) -> Callable[[], None]:
    def change() -> None:
        items[place] = value

    return change
