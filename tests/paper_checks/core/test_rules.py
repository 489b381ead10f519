"""Frozen rules: what changes a digest and what does not, the history, and that no rule differs from its last entry."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from paper_checks.core import Check, all_checks, rules

HELPER = '''
"""Shared."""
LIMIT = 4.0

def passed(z):
    """Whether it lies inside."""
    return abs(z) <= LIMIT
'''
MODULE = '''
"""A check."""
from paper_checks.core import Check, Outcome, Verdict
{imports}

class Toy(Check):
    """A toy."""
    id = "toy.check"
    claim = where = "x"
    rule = "Reproduced if |z| ≤ 4 everywhere."
    share = 0.5

    def cells(self, context):
        return ["one"]

    def compute(self, context, cell):
        return {{"z": 1.0}}

    def judge(self, cells):
        """Docstring."""
        inside = [passed(one["z"]) for one in cells.values()]  # a comment
        good = sum(inside) / len(inside) > self.share
        return Outcome(Verdict.REPRODUCED if good else Verdict.NOT_REPRODUCED, f"in {{len(inside)}} of them")

CHECK = Toy()
'''


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Make a module of ``paper_checks`` from text; returns it."""

    def load(name: str, text: str):
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"paper_checks.{name}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, f"paper_checks.{name}", module)
        spec.loader.exec_module(module)
        return module

    load("shared_a", HELPER)
    return load


def one_file(load, name: str, text: str = MODULE, home: str = "shared_a") -> Check:
    return load(name, text.format(imports=f"from paper_checks.{home} import passed")).CHECK


def test_moving_renaming_and_rewording_change_nothing(load):
    before = rules.digest(one_file(load, "plain"))
    load("shared_b", HELPER.replace("LIMIT", "BOUND").replace('"""Whether it lies inside."""', '"""Other words."""'))
    assert rules.digest(one_file(load, "moved", home="shared_b")) == before
    renamed = MODULE.replace("inside", "within").replace("Docstring", "Better words").replace("# a comment", "")
    assert rules.digest(one_file(load, "renamed", renamed)) == before
    inlined = MODULE.replace("{imports}", "LIMIT = 4.0\ndef passed(z):\n    return abs(z) <= LIMIT")
    assert rules.digest(load("inlined", inlined.format()).CHECK) == before
    assert rules.digest(one_file(load, "said", MODULE.replace("in {{", "among {{"))) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("everywhere", "in most settings"),
        ("share = 0.5", "share = 0.4"),
        ("> self.share", ">= self.share"),
        ("sum(inside)", "len(inside)"),
        ("Verdict.REPRODUCED if", "Verdict.UNDECIDED if"),
        ('one["z"]', 'one["raw"]'),
    ],
)
def test_what_decides_changes_it(load, old, new):
    assert old in MODULE
    assert rules.digest(one_file(load, "plain")) != rules.digest(one_file(load, "changed", MODULE.replace(old, new)))


@pytest.mark.parametrize(("old", "new"), [("4.0", "4.5"), ("<=", "<"), ("abs(z)", "z")])
def test_so_does_what_it_calls(load, old, new):
    before = rules.digest(one_file(load, "plain"))
    load("shared_c", HELPER.replace(old, new))
    assert rules.digest(one_file(load, "changed", home="shared_c")) != before


def test_an_overridden_rule_follows_its_parent(load):
    text = MODULE + (
        "\nclass Child(Toy):\n    limit = 3\n    def judge(self, cells):\n        return super().judge(cells)\nCHECK = Child()\n"
    )
    before = rules.digest(one_file(load, "child", text))
    assert rules.digest(one_file(load, "child_2", text.replace("> self.share", "< self.share"))) != before


def test_history_keeps_what_was(load, tmp_path):
    first, second = one_file(load, "plain"), one_file(load, "changed", MODULE.replace("everywhere", "mostly"))
    with pytest.raises(ValueError, match="why is empty"):
        rules.freeze({"toy.check": first}, " ", tmp_path)
    assert rules.freeze({"toy.check": first}, "first", tmp_path) == ["toy.check"]
    assert rules.freeze({"toy.check": first}, "again", tmp_path) == []
    assert rules.freeze({"toy.check": second}, "too strict", tmp_path) == ["toy.check"]
    entries = rules.history(tmp_path)["toy.check"]
    assert [entry.why for entry in entries] == ["first", "too strict"]
    assert "everywhere" in entries[0].rule
    now = "2999-01-01T00:00:00+00:00"
    cells = {"old": {"figures": {"z": 1}}, "new": {"time": now, "figures": {"z": 2}}}
    cells["copy"] = {"time": now, "figures": {"z": 1, "copied_from": "old"}}
    assert rules.older_cells(second, cells, entries) == ["old", "copy"]


def test_a_note_is_no_change_of_the_rule(load, tmp_path):
    check = one_file(load, "plain")
    rules.freeze({"toy.check": check}, "first", tmp_path)
    assert rules.freeze({"toy.check": check}, "seen before", tmp_path, noted=["toy.check"]) == ["toy.check"]
    entries = rules.history(tmp_path)["toy.check"]
    assert [entry.same for entry in entries] == [False, True]
    assert rules.present_form(entries) is entries[0]
    with pytest.raises(ValueError, match="changed; freeze them before"):
        changed = one_file(load, "changed", MODULE.replace("everywhere", "mostly"))
        rules.freeze({"toy.check": changed}, "seen", tmp_path, noted=["toy.check"])


def test_the_digest_follows_no_library(load):
    """Methods that dataclass writes come from a file of Python's own, which differs between versions."""
    text = MODULE.replace(
        "class Toy", "from dataclasses import dataclass\n\n@dataclass\nclass Part:\n    z: float\n\nclass Toy"
    )
    check = one_file(load, "parts", text.replace("sum(inside)", "Part(sum(inside)).z"))
    homes = {function.__globals__["__name__"] for function, _ in rules.followed(check)}
    assert homes == {"paper_checks.parts", "paper_checks.shared_a"}


def test_a_digest_is_the_same_in_an_interactive_session(monkeypatch):
    before = {name: rules.digest(check) for name, check in all_checks().items()}
    monkeypatch.setattr("builtins._", 3, raising=False)  # what a prompt and doctest leave there
    assert {name: rules.digest(check) for name, check in all_checks().items()} == before


def test_every_rule_is_frozen():
    known = rules.history()
    changed = [name for name, check in all_checks().items() if not rules.is_frozen(check, known)]
    assert not changed, f"rules differ from their last entry: {changed}; run paper-checks freeze --why '…' and commit"
