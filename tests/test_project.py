"""What README and the pages for readers promise: their code runs, its figures are right, its commands exist."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "start").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S))
    ]


@pytest.mark.parametrize("block", blocks("python"))
def test_code_runs_and_its_figures_are_right(block, tmp_path, monkeypatch):
    """Every line runs; where a line's comment starts with numbers, they are the values of its expression."""
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        _, _, comment = lines[statement.end_lineno - 1].partition("  # ")
        figures = re.match(r"-?\d+\.\d+(, -?\d+\.\d+)*", comment)
        code = ast.get_source_segment(block, statement)
        if isinstance(statement, ast.Expr) and figures:
            found = eval(code, space)
            found = np.concatenate([np.ravel(value) for value in (found if isinstance(found, tuple) else (found,))])
            np.testing.assert_allclose(found, [float(x) for x in figures[0].split(", ")], rtol=2e-3, err_msg=code)
        else:
            exec(code, space)


def test_readme_commands_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test", "test-fast", "test-all", "docs", "wheel", "lint", "bench", "notebooks", "claims"} <= targets
    for command in re.findall(r"`make ([a-z-]+)`", README) + re.findall(r"^make ([a-z-]+)", README, re.M):
        assert command in targets


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_console_scripts_have_help(script, capsys):
    module, function = PROJECT["scripts"][script].split(":")
    with pytest.raises(SystemExit) as stop:
        getattr(importlib.import_module(module), function)(["--help"])
    assert stop.value.code == 0
    assert script in capsys.readouterr().out


def test_every_dependency_has_a_tested_version():
    def plain(requirement: str) -> str:
        return re.split(r"[\[<>=]", requirement)[0].lower().replace("_", "-")

    pinned = {plain(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = PROJECT["dependencies"] + [d for extra in PROJECT["optional-dependencies"].values() for d in extra]
    names = {plain(requirement) for requirement in wanted} - {PROJECT["name"]}
    assert names - pinned <= {"timm"}, "timm needs torchvision, which the tested CPU build of torch does not go with"


def test_the_source_distribution_is_the_repository():
    carried = set((ROOT / "MANIFEST.in").read_text().split()) | {"rmt", "glora", "paper_checks", "notebooks"}
    own = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("**/*.py"))} - {"build", "dist"}
    assert {name for name in own if not name.startswith((".", "venv"))} <= carried
    assert {".ci", ".github", "mkdocs.yml", ".pre-commit-config.yaml"} <= carried


@pytest.mark.parametrize(
    ("reason", "whole", "outcome"),
    [
        ("needs timm", True, "skipped"),
        ("could not import 'peft'", True, "failed"),
        ("could not import 'peft'", False, "skipped"),
    ],
)
def test_the_whole_suite_allows_the_skips_that_are_listed(reason, whole, outcome):
    from tests.conftest import fail_unless_listed

    report = SimpleNamespace(skipped=True, outcome="skipped", nodeid="x", longrepr=("x.py", 1, f"Skipped: {reason}"))
    fail_unless_listed(report, whole)
    assert report.outcome == outcome


def test_benchmarks_can_be_run_by_name():
    from benchmarks.__main__ import main
    from benchmarks.timing import interleaved, row

    with pytest.raises(SystemExit) as stop:
        main(["no-such-benchmark"])
    assert stop.value.code == 2
    for path in (ROOT / "benchmarks").glob("[a-z]*.py"):
        assert hasattr(importlib.import_module(f"benchmarks.{path.stem}"), "measure")
    assert row("x", 3.0, at_least=2)["met"]
    assert not row("x", 3.0, at_most=2)["met"]
    assert row("x", 3.0)["met"] is None
    assert len(interleaved(lambda: 1, lambda: 2, rounds=2)) == 2
