"""The package face: light import, complete exports, one-way imports between packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rmt

ROOT = Path(rmt.__file__).parent.parent


def test_every_export_resolves_and_no_module_bears_its_name():
    assert sorted(rmt.__all__) == sorted(rmt._HOME)
    modules = {path.stem for path in Path(rmt.__file__).parent.glob("*.py")}
    for name in rmt.__all__:
        assert callable(getattr(rmt, name))
        assert name not in modules
    assert set(rmt.__all__) <= set(dir(rmt))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        rmt.nonsense  # noqa: B018


def test_import_pulls_in_nothing_heavy():
    """Beyond what ``scipy.special`` itself imports (all of ``scipy.linalg``, in SciPy 1.14)."""
    code = (
        "import sys, scipy.special; before = set(sys.modules); import rmt;"
        "rmt.theory(rmt.Transfer(p=4, n=2, N=5, mu=1, mu_perp=1, beta=.5, gamma=1, gamma_source=1));"
        "print([m for m in ('torch', 'matplotlib', 'sympy', 'sklearn', 'pandas', 'joblib', 'scipy.stats', 'scipy.optimize',"
        " 'scipy.linalg') if m in set(sys.modules) - before])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def imported_packages(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_imports_run_one_way():
    for path in (ROOT / "rmt").rglob("*.py"):
        assert not imported_packages(path) & {"glora", "paper_checks"}, path
    for path in (ROOT / "glora").rglob("*.py"):
        forbidden = {"paper_checks"} if path.parts[-2:] == ("theory", "bridge.py") else {"paper_checks", "rmt"}
        assert not imported_packages(path) & forbidden, path
