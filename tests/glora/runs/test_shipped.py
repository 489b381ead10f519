"""Run files that come with the package."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from glora.cli import main
from glora.runs.config import read
from glora.runs.shipped import folder, resolve, shipped


def test_each_is_listed_with_what_it_is(capsys):
    found = shipped()
    assert set(found) == {path.stem for path in folder().glob("*.toml")}
    assert all(len(text) > 20 for text in found.values())
    with pytest.raises(SystemExit) as stop:
        main(["tune", "--list-configs"])
    assert stop.value.code == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [f"pkg:{name}" for name in found]


@pytest.mark.parametrize("name", shipped())
def test_by_name_and_by_path_it_is_the_same_run(name):
    assert read(f"pkg:{name}") == read(folder() / f"{name}.toml")


def test_folders_and_plain_paths():
    assert resolve("pkg:lm_eval") == folder() / "lm_eval"
    assert resolve("configs/x.toml") == Path("configs/x.toml")


@pytest.mark.parametrize("name", ["pkg:", "pkg:nope", "pkg:../pyproject", "pkg:lm_eval/local.py"])
def test_others_are_refused_with_the_list(name):
    with pytest.raises(ValueError, match="no run file .* comes with glora; there are arc_easy, "):
        resolve(name)


def test_the_distribution_carries_them():
    root = Path(__file__).parents[3]
    assert "graft configs" in (root / "MANIFEST.in").read_text()
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["cmdclass"]
    assert scripts == {"build_py": "build_configs.BuildWithConfigs"}
