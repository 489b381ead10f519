"""What the pages promise: links lead somewhere, and a stranger's questions are answered where they say."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def links(text: str) -> list[tuple[str, str]]:
    return re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_to_files(page):
    for _, target in links(page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto:", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def questions() -> list[str]:
    part = (
        ARCHITECTURE.read_text(encoding="utf-8").split("<!-- questions:begin -->")[1].split("<!-- questions:end -->")[0]
    )
    return [item.strip() for item in part.split("\n- ") if item.strip()]


def test_the_questions_are_there():
    text = " ".join(questions())
    for word in ("α*", "low-rank A", "SIGKILL", "rule of a verdict", "a loss", "a tensor structure", "a task"):
        assert word in text


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.lstrip("- ").partition("?")[0])
def test_a_question_is_answered_in_at_most_two_files(question):
    answers = links(question)
    assert 1 <= len({target for _, target in answers}) <= 2
    for name, target in answers:
        assert re.search(
            rf"\b{re.escape(name.strip('`'))}\b", (ARCHITECTURE.parent / target).read_text(encoding="utf-8")
        ), name


@pytest.mark.parametrize("package", ["rmt", "glora"])
def test_the_reference_holds_every_public_name(package):
    page = (ROOT / "docs" / "reference" / f"{package}.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^::: .*?(\w+)$", page, re.M))
    assert set(importlib.import_module(package).__all__) <= names


def test_readers_reach_their_first_success_in_40_lines():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for reader in ("theorist", "sceptic", "engineer"):
        part = re.search(rf"^## For the {reader}\n(.*?)(?=^## |<!-- claims)", text, re.M | re.S)
        assert part
        assert part[1].count("\n") <= 40, reader
        assert f"docs/start/{reader}.md" in part[1]


@pytest.mark.whole
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'(?:src|<link[^>]*href)="https?://', text), page.name
        assert "arithmatex" not in text, f"{page.name}: a formula that is no MathML"
    assert "<math" in (tmp_path / "site" / "theory.html").read_text(encoding="utf-8")


def test_every_room_is_in_the_picture():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    for package in ("rmt", "glora", "paper_checks"):
        rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert not [room for room in rooms if not re.search(rf"\b{room}\b", text)], package
