"""The demo's text part."""

from __future__ import annotations

import re

from paper_checks.demo.text import METHODS, text


def test_every_method_is_trained_and_merged() -> None:
    section = text()
    assert section.anchor == "text"
    rows = re.findall(r"<tr><td>(.*?)</td>" + r'<td class="number">(.*?)</td>' * 4, section.body)
    assert [row[0] for row in rows] == list(METHODS)
    assert len({row[2] for row in rows}) == 1  # equal work
    assert all(row[3] == row[4] for row in rows)  # merging changes no answer
    accuracy = {row[0]: float(row[3]) for row in rows}
    assert accuracy["α-LoRA, Algorithm 1"] > accuracy["linear probe"] + 5
    assert section.body.count("<img") == 1
