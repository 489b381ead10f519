"""The floor plan of glora: a room imports from itself and from lower floors, read off the source of every import."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import glora

ROOT = Path(glora.__file__).parent
#: From the ground up; rooms of one floor do not know each other.
FLOORS = (
    {"_checks", "_files"},
    {"_digests"},
    {"config"},
    {"presets", "layer", "engines"},
    {"model"},
    {"runs", "tasks"},
    {"training", "search"},
    {"tuning"},
    {"searching", "theory", "plot"},
    {"planning"},
    {"integrations", "cli"},
)
#: Names that stay: each hands on what another module holds.
DOORS = {
    "peft": "glora.integrations.peft_tuner",
    "peft_checkpoints": "glora.integrations.peft_checkpoints",
    "harness": "glora.integrations.lm_eval",
    "theory_bridge": "glora.theory.bridge",
    "schedule": "glora.training.alpha",
}
#: Rooms that only these import, whatever the floor.
PRIVATE = {"theory": {"planning", "cli"}, "integrations": set[str]()}
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package counts as its __init__."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(name: str) -> str:
    """The room of a module of glora; "" for the facade."""
    return name.partition(".")[2].partition(".")[0]


def imports(path: Path) -> Iterator[str]:
    """All that a file imports, inside functions and for type checkers too; names from packages as modules if they are."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


IMPORTS = {name: set(imports(path)) for name, path in MODULES.items()}
INSIDE = {name: {target for target in found if target.startswith("glora.")} for name, found in IMPORTS.items()}


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in MODULES} - {""} <= HEIGHT.keys() | DOORS.keys()


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    here = room(name)
    if here in DOORS or not here:
        return
    for target in INSIDE[name]:
        there = room(target)
        assert there not in DOORS, f"{name} goes through the door {target}; import what is behind it"
        assert there == here or HEIGHT[there] < HEIGHT[here], f"{name} imports {target}, which is not below it"
        assert there == here or here in PRIVATE.get(there, {here}), f"{name} imports {target}, which is not for it"


def test_the_facade_opens_no_high_floor() -> None:
    assert all(HEIGHT[room(target)] <= HEIGHT["tuning"] for target in INSIDE["glora"])


def test_no_circles() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name not in done:
            for target in INSIDE[name] & MODULES.keys():
                visit(target, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_engines_need_numpy_alone() -> None:
    """Fitness is passed in, so that an engine can be tried, and used, without a network."""
    for name, found in IMPORTS.items():
        if room(name) == "engines":
            assert not {target.partition(".")[0] for target in found} & {"torch", "transformers", "rmt"}, name


def test_one_module_knows_rmt() -> None:
    knows = {name for name, found in IMPORTS.items() if any(target.partition(".")[0] == "rmt" for target in found)}
    assert knows == {"glora.theory.bridge"}


@pytest.mark.parametrize("door", DOORS)
def test_doors_hand_on_what_is_behind_them(door: str) -> None:
    tree = ast.parse(MODULES[f"glora.{door}"].read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))
    if door == "peft":
        pytest.importorskip("peft")
    front = importlib.import_module(f"glora.{door}")
    assert DOORS[door] in INSIDE[front.__name__]
    assert set(front.__all__) <= vars(front).keys()


@pytest.mark.parametrize("module", ["glora.harness", "glora.cli"])
def test_commands_are_modules_too(module: str) -> None:
    ran = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT.parent)
    assert ran.returncode == 0, ran.stderr
    assert "exit codes" in ran.stdout


def test_no_room_is_crowded() -> None:
    """At most 12 packages in glora, 9 files or folders in each of them, 400 lines in a file; doors do not count."""
    packages = [path for path in ROOT.iterdir() if (path / "__init__.py").is_file()]
    assert len(packages) <= 12
    for folder in {path.parent for path in MODULES.values()} - {ROOT}:
        inside = [path.name for path in folder.iterdir() if not path.name.startswith("__")]
        assert len(inside) <= 9, f"{folder.name}: {inside}"
    for name, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, name


def test_no_module_hides_a_public_function() -> None:
    """`glora.plan` and its like are functions; glora.search is the one package that holds its own."""
    assert not {f"glora.{name}" for name in ("plan", "rescale", "certify", "balance")} & MODULES.keys()
    assert "glora.search.search" not in MODULES
    assert callable(glora.search.search)
