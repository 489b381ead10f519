import math
import re
from pathlib import Path

import pytest

from paper_checks.core import COMMITTED, RENAMED, Context, all_checks
from paper_checks.report import claims
from paper_checks.report.claims import BEGIN, END
from paper_checks.report.page import number
from paper_checks.report.verify import verify
from tests.paper_checks.fake import Drawn, Fake

ROOT = Path(__file__).parents[3]


@pytest.fixture
def results(tmp_path):
    for check in (Fake("one"), Drawn("two")):
        check.run(Context(out=tmp_path / "results"))
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.63089, 0.0027, "1.6309 ± 0.0027"),
        (-3.0, 0.25, "−3.00 ± 0.25"),
        (7694.3, 12.0, "7,694 ± 12"),
        (280_510, None, "280,510"),
        (0.5, None, "0.5"),
        (None, None, "–"),
        ("30 of 30", None, "30 of 30"),
        (100.0, 0.0, "100 ± 0"),
        (math.nan, None, "not a number"),
        (math.inf, 1.0, "∞"),
        (1.0, 1e-12, "1 ± 1e−12"),
        (2.0, math.nan, "2"),
    ],
)
def test_numbers_have_the_digits_their_error_deserves(value, error, text):
    assert number(value, error) == text


def test_page_is_self_contained_escaped_and_says_everything(results):
    checks = [Fake("one"), Drawn("two"), Fake("three")]
    text = claims.claims_page(checks, results)
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<small>" not in text
    assert text.count("Numbers are &lt;small&gt; &amp; positive.") >= 6
    assert text.count('data-verdict-is="not run"') == 2  # in the list and in its place
    for check in checks:
        assert f'href="#{check.id}"' in text
        assert f'id="{check.id}"' in text
    assert text.count('src="data:image/png;base64,') == 1
    assert "reproduced" in text
    assert "not run" in text
    assert "full run, 3 cells, seed 0" in text


def test_the_report_keeps_plots_in_files_of_their_own(results, tmp_path):
    (tmp_path / "claims").mkdir()
    for name in ("alpha_lora.gone.png", "mine.png"):
        (tmp_path / "claims" / name).touch()
    out = claims.write_report([Fake("one"), Drawn("two")], results, tmp_path / "claims.html")
    text = out.read_text(encoding="utf-8")
    assert "data:image" not in text
    assert text.count('<a href="claims/alpha_lora.two.png"><img loading="lazy"') == 1
    assert {path.name for path in (tmp_path / "claims").iterdir()} == {"alpha_lora.two.png", "mine.png"}
    assert (tmp_path / "claims" / "alpha_lora.two.png").read_bytes().startswith(b"\x89PNG")


def test_the_committed_page_is_light_and_its_plots_are_there():
    page = ROOT / "docs" / "claims.html"
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 300_000
    shown = re.findall(r'src="([^"]+)"', text)
    assert len(shown) > 20
    for source in shown:
        assert (page.parent / source).is_file(), f"{source}: run `make claims`"


def test_same_results_give_the_same_bytes(results):
    checks = [Fake("one"), Drawn("two")]
    assert claims.claims_page(checks, results) == claims.claims_page(checks, results)


def test_long_tables_are_folded(results, monkeypatch):
    monkeypatch.setattr(claims, "SHOWN_ROWS", 2)
    assert "<details><summary>all 3 figures" in claims.claims_page([Fake("one")], results)


def test_readme_table_goes_between_the_markers(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    out = claims.write_report([Fake("one")], results, tmp_path / "docs" / "claims.html", readme)
    assert out.is_file()
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| verdict |")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    claims.write_report([Fake("one")], results, out, readme)
    assert readme.read_text() == text


@pytest.mark.parametrize("content", ["nothing", BEGIN, f"{END}\n{BEGIN}"])
def test_missing_markers_are_an_error_and_nothing_is_written(results, tmp_path, content):
    readme = tmp_path / "README.md"
    readme.write_text(content)
    with pytest.raises(ValueError, match=r"README\.md' must hold|README\.md must hold"):
        claims.write_report([Fake("one")], results, tmp_path / "page.html", readme)
    assert readme.read_text() == content
    assert not (tmp_path / "page.html").exists()


def test_the_committed_readme_table_and_page_are_those_of_the_committed_results():
    checks = list(all_checks().values())
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = claims.markdown_table(checks, COMMITTED)
    assert claims.replace_between_markers(text, table) == text, "run `make claims`"
    page = (ROOT / "docs" / "claims.html").read_text(encoding="utf-8")
    for check in checks:
        outcome = check.recall()
        assert claims.escape(outcome.summary) in page, f"{check.id}: run `make claims`"


def test_the_scoreboard_is_short():
    """Claim in at most 15 words, a row in at most 25; every claim has a figure where it was run."""
    for check in all_checks().values():
        outcome = check.recall()
        assert 3 <= len(check.short.split()) <= 15, check.id
        assert check.scale, check.id
        shown = f"{outcome.verdict} {check.short} {check.number(outcome)}"
        assert len(shown.split()) <= 25, shown
        if check.shown is not None and outcome.rows:
            begins = [row for row in outcome.rows if row.name.startswith(check.shown[0])]
            complete = "Not complete" not in outcome.summary
            assert begins or not complete, f"{check.id}: no row begins with {check.shown[0]!r}"


def test_a_filter_and_a_fold_for_every_claim(results):
    text = claims.claims_page([Fake("one"), Drawn("two")], results)
    assert text.count("<article") == text.count("<details><summary>rule, plot and figures") == 2
    assert 'button data-verdict="reproduced" aria-pressed="false">reproduced 2<' in text
    assert 'loading="lazy"' in text


def test_figures_are_derived_again_and_a_wrong_one_is_found(results, tmp_path):
    page = tmp_path / "claims.html"
    checks = [Fake("one")]
    page.write_text(claims.claims_page(checks, results))
    found = verify(checks, page, results)["alpha_lora.one"]
    # Of every row the value; its standard error (.1) stands in no cell.
    assert found.derived["stored"] == 3
    assert len(found.left) >= 3, found.left
    text = page.read_text()
    row = re.search(r'number">(\d\.\d\d) ± ', text)[1]
    page.write_text(text.replace(f">{row} ±", f">{float(row) + 0.05:.2f} ±"))
    again = verify(checks, page, results)["alpha_lora.one"]
    assert len(again.left) == len(found.left) + 1
    with pytest.raises(ValueError, match="paper-checks report"):
        verify(checks, tmp_path / "none.html", results)


def test_the_figures_of_the_committed_page_are_derived_again():
    found = verify(list(all_checks().values()), ROOT / "docs" / "claims.html")
    left = {name: one.left for name, one in found.items() if one.left}
    assert sum(map(len, left.values())) <= 0.02 * sum(one.shown for one in found.values()), left


def test_the_paper_column_is_left_out_where_nothing_was_printed():
    empty = claims._rows((claims.Row("x", None, 1.0),))
    assert "paper" not in empty
    mixed = claims._rows((claims.Row("x", None, 1.0), claims.Row("y", 2.0, 1.0)))
    assert '<td class="number"></td>' in mixed


def test_committed_results_are_of_full_runs_with_one_seed():
    checks = all_checks()
    for check in checks.values():
        for record in check.records().values():
            assert record["quick"] is False
            home = checks[RENAMED.get(record["check"], record["check"])].home
            assert home == check._path(Context(out=COMMITTED), record["cell"]).parent.name
