import json
import re

import pytest

from paper_checks.core import Context, NotAvailable, Outcome, Verdict, all_checks
from tests.paper_checks.fake import Crashing, Fake, Interrupted, Lacking

CHECKS = all_checks()
#: Checks whose quick cells stand alone; trainings and timings of networks have tests of their own.
ALONE = [
    check
    for name, check in CHECKS.items()
    if name.startswith("alpha_lora.") and not name.startswith(("alpha_lora.glue_", "alpha_lora.alpha_overhead"))
]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_check_says_what_it_claims_and_how_it_judges(check, tmp_path):
    for text in (check.claim, check.where, check.rule):
        assert text
        assert text == text.strip()
    assert check.claim.endswith(".")
    assert check.rule.endswith(".")
    for quick in (True, False):
        cells = check.cells(Context(out=tmp_path, quick=quick))
        assert len(set(cells)) == len(cells) > 0
        assert all(re.fullmatch(r"[\w.-]+", cell) for cell in cells)


@pytest.mark.parametrize("check", ALONE, ids=[check.id for check in ALONE])
def test_the_first_quick_cell_is_computed_stored_judged_and_drawn(check, tmp_path, monkeypatch, request):
    if any(need.startswith("data/") for need in check.needs):
        folder = request.getfixturevalue("shared")
    else:
        folder = None
    context = Context(out=tmp_path, data=folder, quick=True)
    first = list(check.cells(context))[:1]
    monkeypatch.setattr(type(check), "cells", lambda self, context: first)
    outcome = check.run(context)
    assert isinstance(outcome, Outcome)
    assert outcome.summary.endswith(".")
    assert outcome.verdict in set(Verdict) - {Verdict.NOT_RUN}
    assert check.recall(tmp_path).summary == outcome.summary
    assert check.draw(check.finished(tmp_path)) is not None
    record = json.loads((tmp_path / check.home / f"{first[0]}.json").read_text())
    assert record["quick"] is True
    assert record["seed"] == 0
    assert {"numpy", "python"} <= set(record["versions"])


def test_without_data_a_check_is_not_run_and_says_why(tmp_path):
    outcome = CHECKS["alpha_lora.table1"].run(Context(out=tmp_path, quick=True))
    assert outcome.verdict == Verdict.NOT_RUN
    assert outcome.missing == ("needs a data folder; set ADAPT_SHARED or give --data DIR",)


def test_folder_names_what_is_absent(tmp_path):
    with pytest.raises(NotAvailable, match="needs the folder data/amazon_review"):
        Context(out=tmp_path, data=tmp_path).folder("data", "amazon_review")


def test_finished_cells_survive_an_interruption_and_are_not_computed_again(tmp_path):
    check = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        check.run(Context(out=tmp_path))
    assert list(check.finished(tmp_path)) == ["c"]
    check.patient = True
    outcome = check.run(Context(out=tmp_path))
    assert check.log == ["c", "a", "b"]
    assert outcome == Fake(check.id.split(".")[1]).run(Context(out=tmp_path / "elsewhere"))


def test_finished_cells_survive_a_crash(tmp_path):
    check = Crashing()
    with pytest.raises(RuntimeError, match="a bug"):
        check.run(Context(out=tmp_path))
    assert list(check.finished(tmp_path)) == ["c"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"quick": True}])
def test_cells_of_another_kind_are_computed_again(tmp_path, change):
    check = Fake()
    check.run(Context(out=tmp_path))
    check.run(Context(out=tmp_path, **change))
    assert check.log == ["c", "a", "b"] * 2


def test_fresh_and_damaged_cells_are_computed_again(tmp_path):
    check = Fake()
    check.run(Context(out=tmp_path))
    check.run(Context(out=tmp_path), fresh=True)
    assert len(check.log) == 6
    (tmp_path / check.id / "a.json").write_text('{"figures": {"num')
    check.run(Context(out=tmp_path))
    assert check.log[6:] == ["a"]


def test_a_damaged_result_is_named_when_it_is_read(tmp_path):
    check = Fake()
    check.run(Context(out=tmp_path))
    (tmp_path / check.id / "a.json").write_text("")
    with pytest.raises(ValueError, match=r"a\.json.*delete it"):
        check.recall(tmp_path)


def test_figures_do_not_depend_on_the_number_of_jobs(tmp_path):
    one, two = Fake(), Fake()
    assert one.run(Context(out=tmp_path / "1")) == two.run(Context(out=tmp_path / "2", jobs=2))
    assert list(two.finished(tmp_path / "2")) == ["c", "a", "b"]


def test_cells_that_lack_something_are_left_out_and_named_once(tmp_path):
    partly = Lacking().run(Context(out=tmp_path))
    assert partly.verdict == Verdict.REPRODUCED
    assert len(partly.rows) == 1
    assert len(partly.missing) == 1
    nothing = Lacking("nothing", everything=True).run(Context(out=tmp_path))
    assert nothing.verdict == Verdict.NOT_RUN
    assert "set ADAPT_SHARED" in nothing.summary


def test_seeds_differ_between_cells_and_are_the_same_everywhere():
    context = Context(out=None)
    assert context.seed_for("a", "b") == 532192867 == Context(out=None, jobs=4).seed_for("a", "b")
    assert len({context.seed_for("a", str(cell)) for cell in range(100)}) == 100
    assert context.seed_for("a") != Context(out=None, seed=1).seed_for("a")
