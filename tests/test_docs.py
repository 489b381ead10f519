"""What the pages promise: links lead somewhere, and a stranger's questions are answered where they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def links(text: str) -> list[tuple[str, str]]:
    return re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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


def test_every_room_is_in_the_picture():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    for package in ("rmt", "glora", "paper_checks"):
        rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert not [room for room in rooms if not re.search(rf"\b{room}\b", text)], package
