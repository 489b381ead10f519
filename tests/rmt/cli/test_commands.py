"""The rmt command: figures, JSON keys, exit codes, messages."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cases import ridge

import rmt
from rmt.cli import main

FLAGS = "--p 400 --n 200 --N 5000 --mu 1.5 --mu-perp 1 --beta 0.8 --gamma 1 --gamma-source 1".split()
SETTING = ridge(5000, 200, 400, 1.5, 1, 0.8, 1, 1)


def run(capsys, *arguments: str):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_predict_json(capsys):
    code, out, _ = run(capsys, "predict", *FLAGS, "--alpha", "0", "--alpha", "1", "--json")
    answer, score = json.loads(out), rmt.theory(SETTING)
    assert code == 0
    assert answer["accuracy"] == [float(score.accuracy(0)), float(score.accuracy(1))]
    assert set(answer) == {
        "alpha", "mean", "variance", "second_moment", "accuracy", "risk",
        "alpha_star", "alpha_bar", "alpha_risk", "best_accuracy", "accuracy_source_only",
    }  # fmt: skip
    assert answer["alpha_star"] == pytest.approx(1.83841, rel=5e-6)


def test_predict_fixed_source_and_table(capsys):
    code, out, _ = run(
        capsys, "predict", *"--p 2000 --n 1000 --gamma 0.3 --mu-target 1.5 --overlap 0.6 --norm2 0.45".split()
    )
    assert code == 0
    assert "alpha_star" in out
    assert "0.523646" in out


def test_infinite_values_are_strings_in_json(capsys):
    flags = "--p 200 --n 100 --gamma 1 --mu-target 1 --overlap 0 --norm2 1 --json".split()
    assert json.loads(run(capsys, "predict", *flags)[1])["alpha_bar"] == "-inf"
    code, out, _ = run(capsys, "predict", *[f if f != "5000" else "inf" for f in FLAGS], "--json")
    assert code == 0
    assert json.loads(out)["alpha_star"] == pytest.approx(
        float(rmt.theory(ridge(float("inf"), 200, 400, 1.5, 1, 0.8, 1, 1)).alpha_star)
    )


def test_simulate_adds_estimates(capsys):
    code, out, _ = run(capsys, "simulate", *FLAGS, "--draws", "300", "--seed", "0", "--json")
    answer = json.loads(out)
    assert code == 0
    assert set(answer["accuracy"]) == {"theory", "value", "stderr", "raw_z", "doubled_z", "z"}
    assert answer["draws"] == 300
    again = json.loads(run(capsys, "simulate", *FLAGS, "--draws", "300", "--seed", "0", "--json", "--jobs", "2")[1])
    assert again == answer
    code, out, _ = run(capsys, "simulate", *FLAGS, "--draws", "50")
    assert code == 0
    assert "second_moment" in out


def test_direct_simulation_with_noise_and_device(capsys):
    small = "--p 30 --n 20 --N 50 --mu 1.5 --mu-perp 1 --beta 0.8 --gamma 1 --gamma-source 1 --draws 20".split()
    assert run(capsys, "simulate", *small, "--method", "direct", "--noise", "rademacher")[0] in (0, 1)
    pytest.importorskip("torch")
    assert run(capsys, "simulate", *small, "--method", "direct", "--device", "cpu")[0] in (0, 1)


def test_disagreement_has_its_own_exit_code(capsys):
    """A localised mean under sparse noise is no Gaussian score; tiny sizes are far from the limit as well."""
    small = "--p 3 --n 3 --N 3 --mu 1.5 --mu-perp 1 --beta 0.8 --gamma 0.01 --gamma-source 1 --draws 4000".split()
    code, out, _ = run(capsys, "simulate", *small, "--json")
    assert (code == 1) == (json.loads(out)["worst_z"] > 4)


def test_sweep_writes_table_and_plot(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "sweep.toml"
    file.write_text(
        "draws = 10\nalpha = [0.0, 1.0]\n[setting]\np = 30\nn = 20\nN = 50\nmu = 1.5\nmu_perp = 1\nbeta = 0.5\n"
        "gamma = 1\ngamma_source = 1\n[grid]\ngamma = [0.1, 1.0]\n"
    )
    code, out, _ = run(capsys, "sweep", str(file), "--grid", "beta=0:1:3", "--out", str(tmp_path / "o"), "--json")
    written = json.loads(out)
    assert code == 0
    assert written["points"] == 6
    assert (tmp_path / "o" / "sweep.png").stat().st_size > 10_000
    assert (tmp_path / "o" / "sweep.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--p", "400"], "n, gamma missing"),
        (["predict", *FLAGS, "--label-noise", "0.7"], "label_noise is the probability"),
        (["predict", *FLAGS, "--norm2", "1"], "both --overlap and --norm2"),
        (["predict", *FLAGS, "--alpha", "nan"], "alpha must not contain NaN"),
        (["simulate", *FLAGS, "--method", "magic"], "--method must be one of"),
        (["simulate", *FLAGS, "--noise", "rademacher"], "add --method direct"),
        (["simulate", *FLAGS, "--draws", "0"], "draws must be ≥ 1"),
        (["sweep", *FLAGS], "at least one axis"),
        (["sweep", *FLAGS, "--grid", "gamma=x"], "--grid must look like"),
        (["sweep", "missing.toml"], "'missing.toml' does not exist"),
    ],
)
def test_bad_input_exits_with_2(capsys, arguments, message):
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert message in error


def test_unknown_flags_and_help():
    for arguments, code in ((["predict", "--colour", "1"], 2), (["--help"], 0), (["predict", "--help"], 0)):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == code


def test_broken_toml(capsys, tmp_path):
    (tmp_path / "x.toml").write_text("draws = ")
    assert "is not valid TOML" in run(capsys, "sweep", str(tmp_path / "x.toml"))[2]
    (tmp_path / "x.toml").write_text("drows = 1")
    assert "unknown keys drows" in run(capsys, "sweep", str(tmp_path / "x.toml"))[2]


def test_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "rmt.cli", "predict", *FLAGS, "--json"], capture_output=True, text=True
    )
    assert json.loads(done.stdout)["alpha"] == [1.0]


def test_scales_with_commas_and_the_version(capsys):
    setting = "--p 40 --n 20 --gamma 1 --mu-target 1 --overlap 0.3 --norm2 0.4".split()
    assert main(["predict", *setting, "--alpha=-1,0,1", "--alpha", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alpha"] == [-1.0, 0.0, 1.0, 2.0]
    assert main(["predict", *setting, "--alpha", "0,inf"]) == 2
    assert "alpha must be finite" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["predict", *setting, "--alpha", "1,x"])
    assert stop.value.code == 2
    assert "numbers with commas" in capsys.readouterr().err
    assert main(["predict", *setting[2:], "--p", "1e308"]) == 2
    assert "p must be ≤ 2^53" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("rmt ")
