import json

import pytest

from paper_checks import cli
from paper_checks.core import COMMITTED
from paper_checks.demo import assemble, example
from paper_checks.report.page import Section
from rmt._files import Lock
from tests.paper_checks.fake import Crashing, Drawn, Fake, Interrupted, Lacking


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line on the given checks in an empty folder; gives exit code, stdout, stderr."""
    monkeypatch.delenv("ADAPT_SHARED", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments, checks=()):
        monkeypatch.setattr("paper_checks.core.discovery.all_checks", lambda: {check.id: check for check in checks})
        code = cli.main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_run_stores_results_and_prints_verdicts(run, tmp_path):
    code, out, err = run("run", "--quick", checks=[Fake()])
    assert code == 0
    assert out == "alpha_lora.fake: reproduced\n    All | small.\n"
    assert "alpha_lora.fake" in err  # progress
    assert len(list((tmp_path / "build/paper_checks/quick/alpha_lora.fake").glob("*.json"))) == 3


def test_run_goes_on_where_it_stopped_and_fresh_does_not(run):
    check = Fake()
    run("run", checks=[check])
    run("run", checks=[check])
    assert len(check.log) == 3
    run("run", "--fresh", checks=[check])
    assert len(check.log) == 6


def test_an_old_id_is_understood(run):
    check = Fake("glue_fair")
    code, out, err = run("run", "glora.glue_fair", checks=[check])
    assert code == 0
    assert out.startswith("alpha_lora.glue_fair: reproduced")
    assert "paper-checks: glora.glue_fair is called alpha_lora.glue_fair now" in err


def test_json_is_for_machines(run):
    code, out, _ = run("run", "--json", "alpha_lora.lacking", checks=[Lacking(), Fake()])
    assert code == 3
    (record,) = json.loads(out)
    assert record["verdict"] == "reproduced"
    assert record["rows"][0]["error"] == 0.1
    assert record["missing"] == ["needs a data folder; set ADAPT_SHARED or give --data DIR"]


def test_a_crash_is_reported_and_the_others_go_on(run):
    code, out, err = run("run", checks=[Crashing("bad"), Fake("good"), Lacking()])
    assert code == 70
    assert "alpha_lora.bad: failed" in out
    assert "alpha_lora.good: reproduced" in out
    assert "RuntimeError: a bug" in err
    assert json.loads(run("run", "--json", checks=[Crashing("bad")])[1])[0]["verdict"] == "failed"


def test_lack_of_data_is_exit_code_3(run):
    code, out, _ = run("run", checks=[Lacking("none", everything=True), Lacking(), Fake()])
    assert code == 3
    assert "alpha_lora.none: not run\n    needs a data folder" in out
    assert "not all of it was run: needs a data folder" in out


def test_a_folder_of_cells_has_one_owner_and_its_failures_name_it(run, tmp_path):
    folder = tmp_path / "out/alpha_lora.fake"
    with Lock(folder):
        code, _, err = run("run", "--out", "out", checks=[Fake(), Fake("free")])
    assert code == 2
    assert "out/alpha_lora.fake' is in use by process" in err
    assert not folder.exists() or not list(folder.iterdir())
    assert len(list((tmp_path / "out/alpha_lora.free").iterdir())) == 3
    assert run("run", "--out", "out", checks=[Fake()])[0] == 0
    cell = folder / "a.json"
    for damage in (cell.read_text().replace("0.", "0.1", 1), "[]", "{}", "\ud800", "[" * 10**5):
        cell.write_text(damage, errors="surrogatepass")
        for command in (("list",), ("report", "--no-readme")):
            code, _, err = run(*command, "--results", "out", checks=[Fake()])
            assert code == 2
            assert "a.json' is" in err
    (tmp_path / "file").write_text("")
    code, _, err = run("run", "--out", "file", checks=[Fake()])
    assert code in (2, 74)
    assert "file" in err


def test_interruption_keeps_finished_cells(run, tmp_path):
    check = Interrupted()
    code, _, err = run("run", checks=[check])
    assert code == 130
    assert "finished cells are kept" in err
    check.patient = True
    assert run("run", checks=[check])[0] == 0
    assert check.log == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "alpha_lora.nothing"), "no check is called 'alpha_lora.nothing'; known: alpha_lora.fake"),
        (("run", "--jobs", "0"), "--jobs must be ≥ 1, got 0"),
        (("run", "--seed", "-1"), "--seed must be ≥ 0, got -1"),
        (("run", "--data", "nowhere"), "the data folder 'nowhere' does not exist; correct --data or ADAPT_SHARED"),
        (("run", "--quick", "--out", str(COMMITTED)), "committed results, which hold full runs only"),
        (("report", "--results", "nowhere"), "'nowhere' is not a folder"),
        (("report", "--results", "."), "README.md' does not exist; run this in the repository, or give --no-readme"),
    ],
)
def test_bad_usage_is_exit_code_2_with_a_remedy(run, arguments, message):
    code, out, err = run(*arguments, checks=[Fake()])
    assert code == 2
    assert not out
    assert message in err


@pytest.mark.parametrize("arguments", [(), ("run", "--quick", "--full"), ("run", "--jobs", "two"), ("demo",)])
def test_arguments_that_do_not_parse_are_exit_code_2(run, arguments):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2


def test_help_has_examples_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "paper-checks run alpha_lora.figure1 --quick" in text
    assert "3 something could not run" in text


def test_list(run, tmp_path):
    check = Fake()
    run("run", "--out", "stored", checks=[check])
    code, out, _ = run("list", "--results", "stored", checks=[check, Lacking()])
    assert code == 0
    assert out.splitlines()[0].split()[:2] == ["alpha_lora.fake", "reproduced"]
    assert out.splitlines()[1].split()[:3] == ["alpha_lora.lacking", "not", "run"]
    records = json.loads(run("list", "--json", "--results", "stored", checks=[check])[1])
    assert records[0]["rule"] == check.rule


def test_report_writes_page_and_table(run, tmp_path):
    run("run", "--out", "stored", checks=[Drawn()])
    (tmp_path / "README.md").write_text("<!-- claims:begin -->\n<!-- claims:end -->\n")
    code, out, _ = run("report", "--results", "stored", checks=[Drawn()])
    assert (code, out) == (0, "docs/claims.html\n")
    assert any((tmp_path / "docs/claims").glob("*.png"))
    assert "| ✔ reproduced |" in (tmp_path / "README.md").read_text()


def test_environment_gives_the_data_folder(run, monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPT_SHARED", str(tmp_path / "gone"))
    code, _, err = run("run", checks=[Fake()])
    assert code == 2
    assert "correct --data or ADAPT_SHARED" in err


def test_demo_writes_one_page_and_says_what_was_not_run(run, monkeypatch, tmp_path):
    monkeypatch.setattr(assemble, "SECTIONS", [lambda: Section("first", "First things", "<p>hello</p>")])
    code, out, _ = run("demo", "--out", "page", "--jobs", "1", checks=[Fake(), Lacking()])
    assert code == 0
    assert "one page of results: page/index.html" in out
    text = (tmp_path / "page/index.html").read_text()
    assert text.index("First things") < text.index("The claims and what became of them") < text.index("Not run here")
    assert "needs a data folder" in text
    code, *_ = run("demo", "--out", "page", "--jobs", "1", checks=[Crashing("bad")])
    assert code == 70
    assert "it failed" in (tmp_path / "page/index.html").read_text()


def test_the_example_of_the_demo_predicts_what_it_simulates():
    section = example.example()
    assert "0.8559" in section.body
    assert "data:image/png" in section.body
