"""Sweeps: what they compute, that a kill loses nothing, that broken or foreign folders are refused."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import TWO_SOURCES, ridge

import rmt
from rmt._files import lines, read_json, to_plain, write_json
from rmt.settings.isotropic import as_dict

BASE = ridge(100, 20, 30, 1.5, 1, 0.6, 0.4, 1.0)
GRID = rmt.grid(BASE, {"gamma": [0.1, 1.0], "beta": [0.0, 0.5]})


def sweep(out: Path, **change):
    return rmt.run_sweep(GRID, out, **({"alpha": [0, 1], "draws": 20, "seed": 3} | change))


def test_grid_is_the_product_of_the_axes():
    assert len(GRID) == 4
    assert GRID[1] == replace(BASE, gamma=0.1, beta=0.5)
    with pytest.raises(ValueError, match="grid axis 'gama' is no field"):
        rmt.grid(BASE, {"gama": [1]})
    with pytest.raises(ValueError, match="has no values"):
        rmt.grid(BASE, {"gamma": []})


def test_table_holds_theory_and_simulation(tmp_path):
    table = sweep(tmp_path / "s")
    assert len(table.rows) == 4 * 5 * 2 * 2
    row = next(r for r in table.rows if r["point"] == 3 and r["quantity"] == "accuracy" and r["source"] == "theory")
    assert row["value"] == float(rmt.theory(GRID[3]).accuracy(0.0))
    assert row["gamma"] == 1.0
    assert row["beta"] == 0.5
    simulated = [r for r in table.rows if r["source"] == "simulation" and r["quantity"] == "mean"]
    assert all(
        abs(r["value"] - float(rmt.theory(GRID[r["point"]]).mean(r["alpha"]))) < 6 * r["stderr"] + 0.03
        for r in simulated
    )
    theory_only = sweep(tmp_path / "t", draws=0)
    assert {r["source"] for r in theory_only.rows} == {"theory"}


def test_tables_on_disk(tmp_path):
    table = sweep(tmp_path / "s")
    with open(table.to_csv(tmp_path / "x.csv"), newline="") as file:
        assert len(list(csv.DictReader(file))) == len(table.rows)
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(table.to_parquet(tmp_path / "x.parquet"))) == len(table.rows)


def test_workers_and_order_change_nothing(tmp_path):
    assert sweep(tmp_path / "a").rows == sweep(tmp_path / "b", n_jobs=2).rows


def test_resume_computes_only_what_is_missing(tmp_path):
    whole = sweep(tmp_path)
    log = tmp_path / "points.jsonl"
    kept = log.read_text().splitlines()[:2]
    log.write_text("\n".join(kept) + "\n" + '{"index": 3, "cut o')  # a kill cuts a line off
    assert sweep(tmp_path).rows == whole.rows
    assert log.read_text().splitlines()[:2] == kept
    assert len(lines(log)) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.json", "points.jsonl"}


def test_a_damaged_point_is_computed_again_and_that_is_said(tmp_path):
    whole = sweep(tmp_path)
    log = tmp_path / "points.jsonl"
    text = log.read_text()
    place = text.index("theory") + 30
    digit = next(i for i in range(place, len(text)) if text[i] in "12345678")
    log.write_text(text[:digit] + str(int(text[digit]) + 1) + text[digit + 1 :])
    with pytest.warns(UserWarning, match=r"1 lines of .*points.jsonl' are damaged"):
        assert sweep(tmp_path).rows == whole.rows
    assert sweep(tmp_path).rows == whole.rows


def test_folders_of_older_versions_go_on(tmp_path):
    whole = sweep(tmp_path)
    plan = read_json(tmp_path / "sweep.json")
    write_json(tmp_path / "sweep.json", {key: value for key, value in plan.items() if key != "digest"})
    for line in lines(tmp_path / "points.jsonl")[:2]:
        write_json(tmp_path / "points" / f"{line.pop('index'):06d}.json", line)
    (tmp_path / "points.jsonl").unlink()
    (tmp_path / "points" / ".000003.json.abcd1234.tmp").write_text("{")
    with pytest.warns(UserWarning, match="without a digest"):
        assert sweep(tmp_path).rows == whole.rows
    assert len(lines(tmp_path / "points.jsonl")) == 2
    assert len(list((tmp_path / "points").iterdir())) == 2


def test_a_kill_in_the_first_write_leaves_a_usable_folder(tmp_path):
    (tmp_path / ".sweep.json.x1y2z3ab.tmp").write_text('{"alpha": [')
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.json", "points.jsonl"}


@pytest.mark.slow
def test_killed_sweep_continues_where_it_was(tmp_path):
    """SIGKILL in the middle; the second run equals an unbroken one and keeps the finished points."""
    arguments = (
        "--p 300 --n 250 --N 900 --mu 1.5 --mu-perp 1 --beta 0.6 --gamma-source 1 --gamma 1 --draws 2000".split()
    )
    command = [sys.executable, "-m", "rmt.cli", "sweep", *arguments, "--grid", "gamma=0.1,0.2,0.5,1,2,5,10,20"]
    folder = tmp_path / "killed"
    process = subprocess.Popen([*command, "--out", str(folder)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(lines(folder / "points.jsonl")) < 2:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = [line for line in lines(folder / "points.jsonl") if line is not None]
    assert 2 <= len(finished) < 8
    assert not (folder / "sweep.csv").exists()
    for out in (folder, tmp_path / "unbroken"):
        assert subprocess.run([*command, "--out", str(out)], capture_output=True).returncode == 0
    assert lines(folder / "points.jsonl")[: len(finished)] == finished
    assert (folder / "sweep.csv").read_bytes() == (tmp_path / "unbroken" / "sweep.csv").read_bytes()


def test_runs_on_a_dask_cluster_unchanged(tmp_path):
    distributed = pytest.importorskip("distributed")
    import joblib

    local = sweep(tmp_path / "local")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        assert sweep(tmp_path / "dask", n_jobs=None).rows == local.rows


def test_broken_and_foreign_folders_are_refused(tmp_path):
    sweep(tmp_path / "s")
    with pytest.raises(ValueError, match=r"holds another sweep \(different draws\)"):
        sweep(tmp_path / "s", draws=21)
    plan = tmp_path / "s" / "sweep.json"
    plan.write_text(plan.read_text().replace('"draws": 20', '"draws": 30'))
    with pytest.raises(ValueError, match=r"sweep.json' is damaged or was changed by hand.*delete the folder"):
        sweep(tmp_path / "s")
    plan.write_text('{"theory": ')
    with pytest.raises(ValueError, match=r"sweep.json' is not valid JSON.*delete the folder to start anew"):
        sweep(tmp_path / "s")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("do not overwrite")
    with pytest.raises(ValueError, match="is not empty and holds no sweep"):
        sweep(tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ([], {}, "settings is empty"),
        ([BASE, "x"], {}, r"settings\[1\] must be one scalar Transfer"),
        ([TWO_SOURCES], {}, r"settings\[0\] must be one scalar Transfer"),
        ([replace(BASE, gamma=[1, 2])], {}, r"settings\[0\] must be one scalar"),
        (GRID, {"alpha": [np.nan]}, "alpha must not contain NaN"),
        (GRID, {"alpha": [[1.0]]}, "alpha must be a list"),
        (GRID, {"draws": -1}, "draws must be ≥ 0"),
        (GRID, {"method": "magic"}, "method must be one of"),
    ],
)
def test_bad_input_touches_nothing(tmp_path, settings, change, message):
    with pytest.raises(ValueError, match=message):
        rmt.run_sweep(settings, tmp_path / "s", **change)
    assert not (tmp_path / "s").exists()


def test_plan_is_readable_json(tmp_path):
    sweep(tmp_path)
    plan = json.loads((tmp_path / "sweep.json").read_text())
    assert plan["settings"][0] == to_plain(as_dict(GRID[0]))
