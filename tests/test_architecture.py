"""The map of the code is true: what it links exists, every room is on it, and an answer needs two files at most."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/contest.md")
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for package in ("rmt", "glora", "paper_checks")
    for path in (ROOT / package).glob("*/**/__init__.py")
)


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_path_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if not link.startswith("http")]
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_every_room_has_its_line_and_no_other_is_named():
    assert re.findall(r"^- `([a-z_/]+)`:", MAP, re.M)
    assert sorted(re.findall(r"^- `([a-z_/]+)`:", MAP, re.M)) == ROOMS


def test_an_answer_needs_two_files_at_most():
    answers = [line for line in MAP.splitlines() if line.startswith("| ") and "?" in line]
    assert len(answers) >= 8
    for answer in answers:
        assert 1 <= len(LINK.findall(answer)) <= 2, answer


def test_files_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:rmt|glora|paper_checks|tests|docs)/[\w/.]*)`", text)
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_citation_has_the_project_s_title_and_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\ntitle: {project['name']}\n" in citation
    assert f"\nversion: {project['version']}\n" in citation
