"""Which floor may look at which: the house's directions, read off the imports (also those inside functions)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rmt

PACKAGE = Path(rmt.__file__).parent
GROUND = {"_checks", "_files", "_html", "_parallel"}
THEORY = {"linear", "convex", "beyond", "predict"}
#: floor: the floors it may import, beside itself.
FLOORS = {
    **dict.fromkeys(GROUND, GROUND),
    "resolvent": GROUND,
    "fixed_point": {"resolvent"},
    "losses": GROUND,
    "settings": {*GROUND, "resolvent", "losses"},
    "scores": {*GROUND, "losses", "settings"},
    "linear": {*GROUND, "losses", "resolvent", "settings", "scores"},
    "convex": {*GROUND, "losses", "resolvent", "settings", "scores"},
    "beyond": {*GROUND, "losses", "resolvent", "settings", "scores", "linear", "convex"},
    "predict": {*GROUND, "losses", "settings", "scores", "features", "linear", "convex", "beyond"},
    "questions": {*GROUND, "losses", "resolvent", "settings", "scores", "predict"},
    "features": {*GROUND, "settings"},
    "simulators": {
        *GROUND,
        "losses",
        "settings",
        "scores",
        "features",
    },  # no theory: what they check shares no formula with them
    "choosing": {*GROUND, "settings", "scores"},
    "symbolic": {*GROUND},
    "datasets": {*GROUND},
    "sweep": {*GROUND, "settings", "scores", "simulators", "predict"},
    "learning": {*GROUND, "settings", "scores", "predict"},
    "evidence": {*GROUND, "resolvent", "settings", "scores", "linear"},
    "sizes": {*GROUND, "losses", "settings", "features", "scores", "simulators", "predict"},
    "plot": {*GROUND, "settings", "scores", "predict"},
    "cli": {
        *GROUND,
        "losses",
        "__version__",
        "settings",
        "scores",
        "simulators",
        "choosing",
        "sizes",
        "sweep",
        "plot",
        "predict",
    },
}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def floor_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Floors of rmt that a module imports anywhere; ``import rmt`` alone would hide them and counts as one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "rmt":
                found.add(parts[1] if len(parts) > 1 else "rmt")
    return found


def test_every_module_stands_on_a_floor():
    assert {floor_of(path) for path in modules()} == set(FLOORS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_points_upward(path):
    beyond = imported(path) - FLOORS[floor_of(path)] - {floor_of(path)}
    assert not beyond, f"{path.name} imports {beyond}"


def test_no_room_bears_the_name_of_a_function_and_none_is_crowded():
    for folder in [PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__")]:
        names = {
            path.stem for path in folder.iterdir() if path.name not in ("__init__.py", "__main__.py", "__pycache__")
        }
        assert not names & set(rmt.__all__), folder
        assert folder == PACKAGE or len(names) <= 9, folder
    for path in modules():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
