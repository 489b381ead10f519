"""``--setting FILE.toml``: covariances, sources and losses on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cases_beyond import random_gaussian

import rmt
from rmt.cli import main

ONE = random_gaussian(5, 16, noise=True)
W = np.asarray(ONE.source.vector)


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "m.npy", ONE.mean)
    np.save(tmp_path / "C.npy", ONE.spectrum.dense())
    np.save(tmp_path / "w.npy", W)

    def write(more: str = '[[setting.source]]\nvector = "w.npy"\n', head: str = "", noise: str = "") -> str:
        path = tmp_path / "setting.toml"
        text = f"{head}\n[setting]\nn = {ONE.n}\ngamma = {ONE.gamma!r}\nlabel_noise = {ONE.label_noise!r}\n"
        path.write_text(f'{text}mean = "m.npy"\ncovariance = "C.npy"\n{noise}{more}')
        return str(path)

    return write


def run(capsys, *arguments: str):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_predict_is_theory_of_the_same_setting(capsys, file):
    code, out, _ = run(capsys, "predict", "--setting", file(), "--alpha", "0,1.5", "--json")
    assert code == 0
    np.testing.assert_allclose(json.loads(out)["accuracy"], rmt.theory(ONE).accuracy([0.0, 1.5]), rtol=1e-6)
    code, out, _ = run(capsys, "predict", "--setting", file(head='loss = "logistic"'), "--json")
    expected = float(rmt.theory(ONE, "logistic").accuracy(1.0))
    assert json.loads(out)["accuracy"] == pytest.approx([expected], rel=1e-6)
    two = '[[setting.source]]\nvector = "w.npy"\n[[setting.source]]\nmean = "m.npy"\nN = 50\ngamma = 1.0\n'
    code, out, _ = run(capsys, "predict", "--setting", file(two))
    assert code == 0
    assert "alpha_star" in out
    assert "alpha_bar" not in out


def test_simulate_compares_at_both_sizes(capsys, file):
    code, out, _ = run(capsys, "simulate", "--setting", file(), "--draws", "150", "--json")
    assert code == 0
    assert "doubled_z" in json.loads(out)["mean"]
    code, out, _ = run(capsys, "simulate", "--setting", file(), "--loss", "logistic", "--draws", "10")
    assert code in (0, 1)
    assert "accuracy" in out


def test_fields_of_norms_may_stand_in_a_file_and_flags_win(capsys, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("[setting]\np = 40\nn = 20\ngamma = 1.0\nmu_target = 1.5\nsource = {overlap = 0.6, norm2 = 0.5}\n")
    out = run(capsys, "predict", "--setting", str(path), "--n", "80", "--json")[1]
    setting = rmt.Transfer(p=40, n=80, gamma=1.0, mu_target=1.5, source=rmt.FixedSource(overlap=0.6, norm2=0.5))
    assert json.loads(out)["accuracy"] == pytest.approx([float(rmt.theory(setting).accuracy(1.0))])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[setting]\nmean = [1.0, 2.0]\nn = 3\ngamma = 1.0\n", "missing key(s) source"),
        (
            "[setting]\nmean = [1.0, 2.0]\nn = 3\ngamma = 1.0\np = 2\n[setting.source]\nvector = [1.0, 1.0]\n",
            "unknown key(s) p",
        ),
        ('[setting]\nmean = "no.npy"\nn = 3\ngamma = 1.0\nsource = 3\n', "does not exist"),
        ("sets = 1\n", "takes a table [setting]"),
        ("= 3", "not valid TOML"),
    ],
)
def test_bad_files_are_named(capsys, tmp_path, text, words):
    path = tmp_path / "s.toml"
    path.write_text(text)
    code, _, err = run(capsys, "predict", "--setting", str(path))
    assert code == 2
    assert words in err
    assert run(capsys, "predict", "--setting", str(tmp_path / "none.toml"))[0] == 2
