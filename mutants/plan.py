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

SEED = 17
NUMBER = 100

#: Kind of code -> modules, the tests that look at them, and the checks whose quick cells show a fault in them.
#: Statistics and verdicts are judged on the committed cells of every check.
TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "formulas": (
        ("rmt/resolvent.py", "rmt/scores/quadratic.py", "rmt/linear/isotropic.py", "rmt/linear/regression.py"),
        ("tests/rmt/linear", "tests/rmt/scores", "tests/rmt/test_resolvent.py"),
        (
            "alpha_lora.arbitrary_source",
            "alpha_lora.ridge_source",
            "alpha_lora.regression",
            "alpha_lora.regularisation",
        ),
    ),
    "layers": (
        ("glora/layer/tensors.py", "glora/layer/geometry.py", "glora/layer/forward.py", "glora/layer/adapter.py"),
        ("tests/glora/layer",),
        ("glora.special_cases", "glora.merging", "glora.hypothesis_class"),
    ),
    "statistics": (
        (
            *("paper_checks/statistics/paired.py", "paper_checks/statistics/power.py"),
            *("paper_checks/statistics/intervals.py", "paper_checks/studies/vision/statistics.py"),
        ),
        ("tests/paper_checks/test_outcomes.py", "tests/paper_checks/statistics", "tests/paper_checks/studies"),
        (),
    ),
    "verdicts": (
        (
            *(
                f"paper_checks/checks/alpha_lora/{name}.py"
                for name in ("glue_affine", "glue_alpha", "digits_alpha_star")
            ),
            *(f"paper_checks/checks/alpha_lora/{name}.py" for name in ("arbitrary_source", "figure1", "regression")),
            *(f"paper_checks/checks/glora/{name}.py" for name in ("vtab_corruptions", "vtab_leak", "vtab_layers")),
        ),
        ("tests/paper_checks/test_outcomes.py", "tests/paper_checks/checks", "tests/paper_checks/studies/vision"),
        (),
    ),
}

_COMPARE = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
_SWAPPED = {"max": "min", "min": "max", "all": "any", "any": "all"}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        kind: key of `TARGETS`. path: the module. site: the number of the site in it. line: where. what: the change.
    """

    kind: str
    path: str
    site: int
    line: int
    what: str

    @property
    def name(self) -> str:
        """Of its result file: the module, the place and a digest of the change."""
        digest = hashlib.sha256(f"{self.path}:{self.site}:{self.what}".encode()).hexdigest()[:6]
        return f"{self.path.replace('/', '.').removesuffix('.py')}-{self.line}-{digest}"


def draw(root: Path, number: int = NUMBER, seed: int = SEED) -> list[Mutant]:
    """``number`` mutants, as many of each kind, in an order that visits the kinds in turn."""
    rng, lists = np.random.default_rng(seed), []
    for kind, (paths, _, _) in TARGETS.items():
        found = [mutant for path in paths if (root / path).is_file() for mutant in sites(root, kind, path)]
        order = rng.permutation(len(found))[: -(-number // len(TARGETS))]
        lists.append([found[i] for i in order])
    turns = [one[i] for i in range(max(map(len, lists))) for one in lists if i < len(one)]
    return turns[:number]


def sites(root: Path, kind: str, path: str) -> list[Mutant]:
    """Every fault that the operators make in a module."""
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    return [Mutant(kind, path, place, line, what) for place, (line, what, _) in enumerate(_changes(tree))]


def mutated(root: Path, mutant: Mutant) -> str:
    """Text of the module with the fault in it (comments are lost, which no test minds)."""
    tree = ast.parse((root / mutant.path).read_text(encoding="utf-8"))
    for place, (_, _, change) in enumerate(_changes(tree)):
        if place == mutant.site:
            change()
            return ast.unparse(tree)
    raise ValueError(f"{mutant.path} has no site {mutant.site}; the code changed since the draw: draw again")


def _changes(tree: ast.Module) -> Iterator[tuple[int, str, Callable[[], None]]]:
    """Line, words and the change itself of every site inside functions, drawing code left out."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name in ("draw", "__repr__", "__post_init__"):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
                new = _COMPARE[type(node.ops[0])]
                yield node.lineno, f"{type(node.ops[0]).__name__} -> {new.__name__}", _setter(node.ops, 0, new())
            elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node):
                other = _ARITHMETIC[type(node.op)]
                yield node.lineno, f"{type(node.op).__name__} -> {other.__name__}", _attribute(node, "op", other())
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
                yield node.lineno, "-x -> +x", _attribute(node, "op", ast.UAdd())
            elif isinstance(node, ast.Constant) and type(node.value) is float:
                yield (
                    node.lineno,
                    f"{node.value} -> {2 * node.value or 1.0}",
                    _attribute(node, "value", 2 * node.value or 1.0),
                )
            elif isinstance(node, ast.Name) and node.id in _SWAPPED and isinstance(node.ctx, ast.Load):
                yield node.lineno, f"{node.id} -> {_SWAPPED[node.id]}", _attribute(node, "id", _SWAPPED[node.id])


def _is_text(node: ast.BinOp) -> bool:
    """Whether strings are put together, or types of an annotation."""
    sides = (node.left, node.right)
    return any(isinstance(side, ast.JoinedStr) or isinstance(getattr(side, "value", None), str) for side in sides)


def _attribute(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, name, copy.copy(value))


def _setter(items: list[ast.cmpop], place: int, value: ast.cmpop) -> Callable[[], None]:
    def change() -> None:
        items[place] = value

    return change
