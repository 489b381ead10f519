"""Exit 1 is a result and nothing else ends in it; every refusal is a sentence, and comes before work."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

import glora.cli.exits
import rmt.cli.exits
from rmt.cli import main

SIZES = "--p 100 --n 20 --N 30 --mu 1.5 --mu-perp 1 --beta .6 --gamma-source .4 --gamma 1".split()


@pytest.mark.parametrize("exits", [rmt.cli.exits, glora.cli.exits])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("x"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 74),
        (PermissionError(errno.EACCES, "Permission denied", "f"), 74),
        (FileNotFoundError(errno.ENOENT, "No such file", "f"), 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "f"), 2),
        (MemoryError("x"), 2),
        (RecursionError("x"), 2),
        (OverflowError("x"), 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), 2),
        (AssertionError("Torch not compiled with CUDA enabled"), 2),
        (ModuleNotFoundError("No module named 'x'"), 2),
        (TypeError("a fault"), 70),
        (KeyboardInterrupt(), 130),
        (ArithmeticError("diverged"), 1),
    ],
)
def test_every_exception_has_its_code(exits, error, code, capsys):
    def command():
        raise error

    assert exits.run("x", command, results=(FloatingPointError, ArithmeticError) if code == 1 else ()) == code
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("x: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", *SIZES, "--draws", "1", "--json"], "--draws 1 has no standard error"),
        (["simulate", *SIZES, "--draws", "1" + "0" * 21], "draws must be ≤ 2^53"),
        (["simulate", *SIZES, "--jobs", "10000"], "n_jobs=10000 is more processes"),
        (["simulate", *SIZES, "--method", "direct", "--p", "1e9", "--n", "1e6"], "GB; lower p or n"),
        (["simulate", *SIZES, "--p", "10000000", "--n", "20000000000"], "GB; lower p or n"),
        (["sweep", *SIZES, "--grid", "gamma=1:1:100000000"], "at most 1,000,000"),
        (["sweep", *SIZES, "--grid", "gamma=1:1:2000", "--grid", "beta=0:1:2000"], "the grid has 4,000,000 settings"),
        (["sweep", *SIZES, "--grid", "gamma=1", "--grid", "gamma=2"], "--grid gamma is given twice"),
        (["sweep", *SIZES, "--grid", "gamma=1", "--out", ""], "--out is empty"),
        (["sweep", *SIZES, "--grid", "gamma=1", "--method", "direct", "--noise", "x"], "noise must be one of"),
        (["predict", *SIZES, "--alpha", "inf"], "alpha must be finite"),
        (["fit", "--features", "/dev/zero", "--labels", "y.npy"], "pipe, socket or device"),
    ],
)
def test_refused_with_a_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_arrays_that_lie(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("X.npy", rng.normal(size=(30, 5)))
    np.save("y.npy", rng.integers(0, 2, 30))
    for name, source in (("big", 1e300 * np.ones(5)), ("complex", 1j * np.ones(5)), ("object", np.array([None] * 5))):
        np.save(f"{name}.npy", source, allow_pickle=True)
        # a source of any size is a source: its scale is small
        wanted = 0 if name == "big" else 2
        assert main(["fit", "--features", "X.npy", "--labels", "y.npy", "--source", f"{name}.npy"]) == wanted
        assert "nan" not in capsys.readouterr().out.lower()
    data = (tmp_path / "X.npy").read_bytes()
    lie = data.replace(b"(30, 5), }", b"(3000000000000, 5), }").replace(b" " * 11 + b"\n", b"\n", 1)
    (tmp_path / "lie.npy").write_bytes(lie)
    assert main(["fit", "--features", "lie.npy", "--labels", "y.npy"]) == 2
    assert "lie.npy' is not a plain .npy file" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_and_a_device_as_target(tmp_path):
    command = [sys.executable, "-m", "rmt.cli", "predict", *SIZES]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74
    assert "No space left" in done.stderr
    from rmt._files import write_atomic

    with pytest.raises(ValueError, match="device"):
        write_atomic("/dev/full", "x")
