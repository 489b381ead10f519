"""Closed forms: settings a second on one core, and what ``import rmt`` costs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np

import rmt
from benchmarks.timing import interleaved, row

COUNT = 1_000_000


def predictions() -> None:
    """Everything a user asks of a setting, for a million settings in one call."""
    rng = np.random.default_rng(0)
    setting = rmt.Transfer(
        p=400,
        n=rng.integers(20, 2000, COUNT),
        N=5000,
        mu=rng.uniform(0.5, 2.0, COUNT),
        mu_perp=rng.uniform(0.5, 2.0, COUNT),
        beta=rng.uniform(-1.0, 1.0, COUNT),
        gamma=rng.uniform(0.01, 10.0, COUNT),
        gamma_source=rng.uniform(0.01, 10.0, COUNT),
    )
    score = rmt.theory(setting)
    score.accuracy(1.0), score.alpha_star, score.best_accuracy


def _import_seconds(statement: str) -> float:
    code = f"import time; s = time.perf_counter(); {statement}; print(time.perf_counter() - s)"
    before = "import numpy, scipy.special; "
    return float(
        subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, check=True).stdout
    )


def measure() -> list[dict[str, Any]]:
    """Throughput with validation included, and import time beyond NumPy and scipy.special."""
    (seconds,) = interleaved(predictions, rounds=3)
    imports = sorted(_import_seconds("import rmt; rmt.theory, rmt.Transfer") for _ in range(5))[2]
    return [
        row(
            "theory: settings a second (accuracy, alpha_star, best_accuracy)",
            COUNT / seconds,
            at_least=500_000,
        ),
        row("import rmt beyond numpy and scipy.special, seconds", imports, at_most=0.15),
    ]
