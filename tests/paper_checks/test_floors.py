"""The floors of `paper_checks`: a module imports from its own floor's foundations only, and no check another check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import paper_checks

ROOT = Path(paper_checks.__file__).parent

#: What the modules of each room may import of the package, beside their own room.
ALLOWED = {
    "core": set(),
    "statistics": {"core"},
    "studies": {"core", "statistics"},
    "checks": {"core", "statistics", "studies"},
    "report": {"core"},
    "demo": {"core", "statistics", "report"},
    "cli": {"core", "report", "demo"},
    "__main__": {"cli"},
    "__init__": set(),
}


def imported(path: Path) -> list[list[str]]:
    """Modules of the package that a file imports anywhere, as their parts after ``paper_checks``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name.split(".")[1:] for name in found if name.split(".")[0] == "paper_checks"]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down_the_floors(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for parts in imported(path):
        if parts[0] == room and room == "checks":
            pytest.fail(
                f"{path} imports the check {'.'.join(parts)}; what checks share belongs to studies or statistics"
            )
        assert parts[0] in {room, *ALLOWED[room]}, f"{path} imports paper_checks.{'.'.join(parts)}"


def test_every_room_is_listed_and_no_folder_is_crowded():
    entries = {path.stem for path in ROOT.iterdir() if path.name not in ("__pycache__", "results", "py.typed")}
    assert entries == set(ALLOWED)
    for folder in [ROOT, *(path for path in ROOT.rglob("*") if path.is_dir())]:
        if folder.parent.name == "checks" or {"results", "__pycache__"} & {folder.name, folder.parent.name}:
            continue
        names = {path.stem for path in folder.iterdir()} - {"__init__", "__main__", "__pycache__"}
        assert len(names) <= 9, folder


def test_modules_of_checks_are_checks():
    from paper_checks.core import all_checks, papers

    modules = {path.stem for group in papers() for path in (ROOT / "checks" / group).glob("[a-z]*.py")}
    seconds = {f"{name}_balanced" for name in modules}  # judged a second time beside the first, in its module
    assert modules == {name.split(".")[1] for name in all_checks()} - (seconds - modules)
