from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

pytest.importorskip("sklearn")
from rmt.cli import fit


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 20)
    X = np.where(y[:, None] == 1, 1.0, -1.0) * np.r_[1.0, np.zeros(29)] + rng.standard_normal((40, 30))
    for name, array in {"X": X, "y": y, "w": np.r_[1.0, 0.5, np.zeros(28)]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path


def call(*words):
    parser = argparse.ArgumentParser()
    fit.add_parser(parser.add_subparsers(dest="command"))
    return fit.run(parser.parse_args(["fit", *words]))


def base(folder):
    return ["--features", f"{folder}/X.npy", "--labels", f"{folder}/y.npy"]


def test_json_and_weights(files, capsys):
    out = files / "coef.npy"
    assert call(*base(files), "--source", f"{files}/w.npy", "--weights", str(out), "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert 0.5 < answer["predicted_accuracy"] < 1
    assert answer["interval"][0] < answer["predicted_accuracy"] < answer["interval"][1]
    assert len(answer["path"][0]["gamma"]) == 17
    assert np.load(out).shape == (1, 31)


def test_text_with_fixed_values(files, capsys):
    assert call(*base(files), "--source", f"{files}/w.npy", "--alpha", "2", "--gamma", "inf", "--no-intercept") == 0
    text = capsys.readouterr().out
    assert "predicted accuracy" in text
    assert "[2.]" in text


def test_bad_files(files):
    np.save(files / "bad.npy", np.array([1.0, np.nan]))
    (files / "text.npy").write_text("not an array")
    np.savez(files / "many.npz", a=np.ones(2))
    with pytest.raises(ValueError, match="does not exist"):
        call("--features", f"{files}/none.npy", "--labels", f"{files}/y.npy")
    with pytest.raises(ValueError, match=r"not a plain \.npy"):
        call("--features", f"{files}/text.npy", "--labels", f"{files}/y.npy")
    with pytest.raises(ValueError, match="must not contain NaN"):
        call(*base(files), "--source", f"{files}/bad.npy")
    with pytest.raises(ValueError, match="archive"):
        call(*base(files), "--source", f"{files}/many.npz")
    with pytest.raises(ValueError, match="method must be one of"):
        call(*base(files), "--method", "guess")
