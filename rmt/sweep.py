"""Theory and simulation over many settings: parallel, resumable, never losing a finished point.

A sweep owns a folder: ``sweep.json`` says what is computed, ``points.jsonl`` holds one line for each finished setting,
with its number and a digest. Running the same sweep again computes only what is missing or damaged. Folders of older
versions, with a file ``points/<index>.json`` a setting, are read too.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._files import (
    Lock,
    append_line,
    as_path,
    lines,
    naming,
    read_json,
    sealed,
    to_json,
    to_plain,
    unsealed,
    visible,
    warn_old,
    write_atomic,
    write_json,
)
from rmt._parallel import check_jobs, run
from rmt.scores.score import QUANTITIES
from rmt.settings.isotropic import Transfer, as_dict
from rmt.simulators.simulation import check_options

#: Settings a sweep may have: each takes milliseconds and some kilobytes of memory and disk.
MOST_POINTS = 1_000_000
PLAN, LOG = "sweep.json", "points.jsonl"


def grid(base: Transfer, axes: Mapping[str, Iterable[Any]]) -> list[Transfer]:
    """``base`` with the fields in ``axes`` replaced by every combination of their values.

    Raises:
        ValueError: an axis that is no field of a Transfer or has no values; a combination out of range.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> len(rmt.grid(setting, {"gamma": [0.1, 1.0], "beta": [0.2, 0.5, 0.9]}))
    6
    """
    _checks.of_type("base", base, Transfer)
    given = _checks.table("axes", axes)
    lists = {str(name): _checks.listed(f"grid axis {name!r}", values, "values") for name, values in given.items()}
    for name, values in lists.items():
        if name not in Transfer.__dataclass_fields__:
            raise ValueError(f"grid axis {name!r} is no field; choose from {', '.join(Transfer.__dataclass_fields__)}")
        if not values:
            raise ValueError(f"grid axis {name!r} has no values")
    number = math.prod(len(values) for values in lists.values())
    if number > MOST_POINTS:
        raise ValueError(
            f"the grid has {number:,} settings, more than the {MOST_POINTS:,} a sweep may have; give fewer values"
        )
    return [
        replace(base, **dict(zip(lists, combination, strict=True)))
        for combination in itertools.product(*lists.values())
    ]


@dataclass(frozen=True)
class SweepTable:
    """The finished sweep as a tidy table: one row a (setting, α, quantity, source), source ∈ theory, simulation."""

    rows: list[dict[str, Any]]

    def to_csv(self, path: str | Path) -> Path:
        """Write CSV atomically."""
        columns = list(dict.fromkeys(itertools.chain.from_iterable(self.rows)))
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return write_atomic(path, text.getvalue())

    def to_parquet(self, path: str | Path) -> Path:
        """Write Parquet atomically (needs the extra ``tables``)."""
        import pyarrow
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(self.rows), buffer)
        return write_atomic(path, buffer.getvalue())


def run_sweep(
    settings: Sequence[Transfer],
    out: str | Path,
    *,
    alpha: ArrayLike = (0.0, 1.0),
    draws: int = 200,
    seed: int = 0,
    method: str = "exact",
    n_jobs: int | None = 1,
    progress: bool = False,
    options: Mapping[str, Any] | None = None,
) -> SweepTable:
    """Predict and simulate every setting, saving each as it is done; resume if ``out`` holds part of this sweep.

    Args:
        settings: scalar settings (see :func:`grid`).
        out: folder of the sweep; made if missing.
        alpha: (A,) scales, one source.
        draws: simulated draws a setting; 0 for theory alone.
        seed: setting i draws from stream i of this seed, so results depend neither on order nor on workers.
        method: ``"exact"`` or ``"direct"``.
        n_jobs: worker processes; None takes the workers of the active joblib backend, for instance
            ``with joblib.parallel_config(backend="dask")`` for a dask cluster. Files are written by this process.
        progress: show a bar.
        options: further arguments of :func:`rmt.simulate`, such as ``{"noise": "rademacher"}``.

    Raises:
        ValueError: bad arguments; ``out`` holds another sweep; a stored point is broken (named, with the remedy).

    >>> import rmt
    >>> import tempfile
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> settings = rmt.grid(setting, {"gamma": [0.1, 1.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = rmt.run_sweep(settings, f"{folder}/sweep.jsonl", draws=20)
    >>> sorted({row["gamma"] for row in table.rows})
    [0.1, 1.0]
    """
    settings = _checks.listed("settings", settings, "Transfers")
    if not settings:
        raise ValueError("settings is empty; give at least one Transfer")
    for index, setting in enumerate(settings):
        if not isinstance(setting, Transfer) or setting.shape or setting.source_count is not None:
            raise ValueError(
                f"settings[{index}] must be one scalar Transfer with one source, got {_checks.shown(setting)}"
            )
    scales = _checks.line("alpha", _checks.finite("alpha", alpha))
    draws = _checks.whole("draws", draws, low=0)
    _checks.one_of("method", method, ("exact", "direct"))
    check_jobs("n_jobs", n_jobs)
    _checks.flag("progress", progress)
    options = _checks.table("options", {} if options is None else options)
    check_options(method, options)
    plan: dict[str, Any] = {
        "alpha": scales.tolist(),
        "draws": draws,
        "seed": _checks.whole("seed", seed, low=0),
        "method": method,
        "options": dict(options),
    }
    plain = [as_dict(setting) for setting in settings]
    folder = as_path("out", out)
    _check_folder(folder, to_plain(plan | {"settings": plain}))
    with Lock(folder) as lock:
        _claim(folder, to_plain(plan | {"settings": plain}))
        done = _finished(folder, len(settings))
        pieces = [(index, setting, plan) for index, setting in enumerate(settings) if index not in done]
        for index, point in run(_point, pieces, n_jobs=n_jobs, ordered=False, progress="sweep" if progress else None):
            append_line(folder / LOG, {"index": index, **point})
            done[index] = to_plain(point)
        lock.require()
        _sync(folder / LOG)
    return SweepTable(_rows(plain, [done[index] for index in range(len(settings))], scales))


def _check_folder(folder: Path, plan: dict[str, Any]) -> bool:
    """Whether ``folder`` holds this sweep already.

    Raises:
        ValueError: it belongs to another, or to something else.
    """
    path = folder / PLAN
    if path.exists():
        stored = read_json(path, "delete the folder to start anew")
        if isinstance(stored, dict) and "digest" not in stored:
            warn_old(f"file {str(path)!r}")
        stored = unsealed(stored, path, "delete the folder to start anew")
        if stored != plan:
            differing = [key for key in plan if stored.get(key) != plan[key]]
            raise ValueError(
                f"folder {str(folder)!r} holds another sweep (different {', '.join(differing)}); "
                "give another folder, or delete this one"
            )
        return True
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file; give a folder")
    if visible(folder):
        raise ValueError(f"folder {str(folder)!r} is not empty and holds no sweep; give a new folder")
    return False


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Take ``folder``, which is locked, for this sweep; another process may have come first."""
    with warnings.catch_warnings(action="ignore"):  # said before the lock
        if _check_folder(folder, plan):
            return
    write_json(folder / PLAN, sealed(plan))


def _finished(folder: Path, count: int) -> dict[int, dict[str, Any]]:
    """The stored points by number; a log with damaged lines is written again without them."""
    done: dict[int, dict[str, Any]] = {}
    for index in range(count) if (folder / "points").is_dir() else ():
        path = folder / "points" / f"{index:06d}.json"
        if path.exists():
            done[index] = read_json(path)
    found = lines(folder / LOG)
    good = [line for line in found if line is not None and isinstance(line.get("index"), int)]
    for line in good:
        done[line["index"]] = {key: value for key, value in line.items() if key != "index"}
    if len(good) < len(found):
        if found[-1] is not None or len(good) < len(found) - 1:  # not only a last line that a kill cut off
            warnings.warn(
                f"{len(found) - len(good)} lines of {str(folder / LOG)!r} are damaged; their points are computed again",
                stacklevel=3,
            )
        write_atomic(folder / LOG, "".join(to_json(sealed(line)) + "\n" for line in good))
    return {index: point for index, point in done.items() if index < count}


def _sync(path: Path) -> None:
    """Have the operating system put a file on disk."""
    if path.is_file():
        with naming(path), path.open("rb") as file:
            os.fsync(file.fileno())


def _point(piece: tuple[int, Transfer, dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """Theory and simulation of one setting."""
    from rmt.predict import theory
    from rmt.simulators.simulation import simulate

    index, setting, plan = piece
    alpha = np.asarray(plan["alpha"])
    score = theory(setting)
    point: dict[str, Any] = {
        "theory": {name: getattr(score, name)(alpha) for name in QUANTITIES},
        "alpha_star": score.alpha_star,
        "best_accuracy": score.best_accuracy,
    }
    if plan["draws"]:
        stream = int(np.random.SeedSequence(plan["seed"], spawn_key=(index,)).generate_state(1)[0])
        simulation = simulate(setting, plan["draws"], stream, method=plan["method"], **plan["options"])
        estimates = {name: getattr(simulation, name)(alpha) for name in QUANTITIES}
        point["simulation"] = {name: {"value": e.value, "stderr": e.stderr} for name, e in estimates.items()}
    return index, point


def _rows(settings: list[dict[str, Any]], points: list[dict[str, Any]], alpha: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for index, (setting, point) in enumerate(zip(settings, points, strict=True)):
        flat = {key: value for key, value in setting.items() if key != "source"} | setting.get("source", {})
        head = {"point": index, **flat, "alpha_star": float(point["alpha_star"])}
        for name in QUANTITIES:
            for i, scale in enumerate(alpha):
                row = {**head, "alpha": float(scale), "quantity": name}
                rows.append({**row, "source": "theory", "value": float(point["theory"][name][i]), "stderr": 0.0})
                if "simulation" in point:
                    estimate = point["simulation"][name]
                    value, stderr = float(estimate["value"][i]), float(estimate["stderr"][i])
                    rows.append({**row, "source": "simulation", "value": value, "stderr": stderr})
    return rows
