"""Cross-validation as the study's rival, and one cell of each study on real data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
from paper_checks.checks.alpha_lora import choose_alpha, real_curves
from paper_checks.core import Context
from paper_checks.studies import real_data

SHARED = os.environ.get("ADAPT_SHARED")
needs_data = pytest.mark.skipif(not SHARED, reason="needs real data; set ADAPT_SHARED")


def test_cross_validation_is_the_textbook_one():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20, 12)) + 0.4
    source, gammas = np.r_[1.0, np.zeros(11)], np.array([0.1, 1.0, 10.0])
    right = np.zeros((3, len(real_data.ALPHAS)))
    for fold in range(5):
        kept, left = rows[np.arange(20) % 5 != fold], rows[np.arange(20) % 5 == fold]
        for i, gamma in enumerate(gammas):
            left_side = kept.T @ kept / len(kept) + gamma * np.eye(12)
            for j, alpha in enumerate(real_data.ALPHAS):
                w = np.linalg.solve(left_side, kept.mean(axis=0) + gamma * alpha * source)
                right[i, j] += np.sum(left @ w > 0)
    assert right[real_data.cross_validate(rows, source, gammas)] == right.max()


def test_development_pairs_use_each_domain_once():
    sources, targets = zip(*(pair.split("-") for pair in real_data.DEVELOPMENT), strict=True)
    assert sorted(sources) == sorted(targets) == sorted(choose_alpha.AMAZON)


@needs_data
@pytest.mark.parametrize(
    ("check", "cell"), [(choose_alpha.CHECK, "book-dvd-n20"), (real_curves.CHECK, "amazon_book-dvd")]
)
def test_one_cell(check, cell, tmp_path):
    context = Context(out=tmp_path, data=Path(SHARED), quick=True)
    figures = check.compute(context, cell)
    assert check.judge({cell: figures}).rows
    assert check.draw({cell: figures}) is not None


@needs_data
def test_images_and_texts_are_balanced(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(real_curves, "EACH", 20)
    context = Context(out=Path("unused"), data=Path(SHARED), quick=True)
    for source, target in (
        real_curves._texts(context, "short-long"),
        real_curves._images(context, "cat.dog-deer.horse"),
    ):
        assert source.features.shape == target.features.shape == (20, 384)
        assert source.labels.sum() == target.labels.sum() == 0
