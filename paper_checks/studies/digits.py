"""Transfers between pairs of digits: predicted and real test accuracy at every scale, for the checks that read them."""

from __future__ import annotations

from typing import Any

import numpy as np

import rmt
from paper_checks.core import Context, Figures, NotAvailable
from paper_checks.statistics.intervals import mean_and_error
from paper_checks.studies.real_data import Adaptation, DomainPair, fresh_splits, ridge_weights
from rmt.datasets import Domain

#: Source pair and target pair of digits; the first two are the paper's.
TRANSFERS = ("69-67", "69-07", "49-79", "38-35", "17-27")
SIZES = (10, 40)
GAMMA = GAMMA_SOURCE = 1.0
SCALES = np.array([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
LINE = np.linspace(0.0, 5.0, 101)


def transfer(context: Context, cell: str) -> Figures:
    """Figures of the transfer from one pair of digits to another, at every number of samples.

    Raises:
        NotAvailable: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise NotAvailable("needs scikit-learn; pip install 'rescale-and-adapt[learn]'") from None
    images, digits = load_digits(return_X_y=True)
    source, target = (_pair(images, digits, name) for name in cell.split("-"))
    pair = DomainPair(source.standardised(), target.standardised())
    weights = ridge_weights(pair.source, GAMMA_SOURCE, len(source.labels))
    adaptation = Adaptation(pair.target, weights)
    sizes = []
    for n in SIZES:
        score = rmt.theory(pair.measured_setting(n, GAMMA, weights))
        star = float(score.alpha_star)
        scales = np.append(SCALES, star)
        seed = context.seed_for("alpha_lora.digits", cell, str(n))
        splits = fresh_splits(seed, adaptation.size, n, 60 if context.quick else 200)
        real = 100.0 * np.array([adaptation.split(*rows).accuracy(scales, GAMMA) for rows in splits])
        mean, error = mean_and_error(real)
        one = int(np.argmin(np.abs(SCALES - 1.0)))
        sizes.append(
            {
                "n": n,
                "alpha_star": star,
                "theory": 100.0 * score.accuracy(SCALES),
                "line": np.round(100.0 * score.accuracy(LINE), 3),
                "value": mean[:-1],
                "stderr": error[:-1],
                "best": [mean[-1], error[-1]],
                "gain": mean_and_error(real[:, -1] - real[:, one]),
                "splits": len(real),
            }
        )
    return {
        "beta": pair.beta,
        "source_only": {
            "theory": 100.0 * float(score.accuracy_source_only),
            "value": 100.0 * float(np.mean(pair.target.labels * (pair.target.features @ weights) > 0)),
        },
        "sizes": sizes,
    }


def case(cell: str, size: Figures) -> str:
    """A transfer and its number of samples in words."""
    return f"{' → '.join('/'.join(pair) for pair in cell.split('-'))}, n = {size['n']}"


def _pair(images: Any, digits: Any, name: str) -> Domain:
    """Images of two digits; the second has label +1."""
    first, second = int(name[0]), int(name[1])
    keep = np.isin(digits, (first, second))
    return Domain(name, images[keep], np.where(digits[keep] == second, 1.0, -1.0))
