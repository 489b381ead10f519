from __future__ import annotations

import numpy as np
import pytest

from rmt.choosing import moments

P = 120
ROOT = np.sqrt(np.linspace(0.2, 2.5, P))
M = np.r_[0.8 * np.ones(4), np.zeros(P - 4)]


def draws(n, count, seed=0, lengths=None):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = M + ROOT * rng.standard_normal((n, P))
        yield rows if lengths is None else rows * rng.choice(lengths, n)[:, None]


def z_score(values, truth):
    return (np.mean(values) - truth) / (np.std(values, ddof=1) / np.sqrt(len(values)))


def test_signal_and_overlap_are_unbiased_and_know_their_error():
    source = np.sin(np.arange(P))
    found = [moments.signal(rows) for rows in draws(30, 600)]
    values = [one.value for one in found]
    assert abs(z_score(values, M @ M)) < 4
    assert np.mean([one.sd for one in found]) == pytest.approx(np.std(values), rel=0.15)
    found = [moments.overlap(rows, source) for rows in draws(30, 600, seed=1)]
    values = [one.value for one in found]
    assert abs(z_score(values, source @ M)) < 4
    assert np.mean([one.sd for one in found]) == pytest.approx(np.std(values), rel=0.1)


def test_traces():
    found = [moments.noise_traces(rows) for rows in draws(40, 300, seed=2)]
    assert abs(z_score([one.trace for one in found], np.sum(ROOT**2))) < 4
    square = np.sum(ROOT**4) + 2 * M @ (ROOT**2 * M) + (M @ M) ** 2  # what the pairs estimate
    assert np.mean([one.square for one in found]) == pytest.approx(square, rel=0.02)
    assert found[0].effective < P


def test_resolvent_without_covariance():
    from rmt.resolvent import isotropic

    rng = np.random.default_rng(3)
    rows = rng.standard_normal((200, 400))
    theta = moments.resolvent_theta(rows @ rows.T / 200, 0.7)
    assert theta == pytest.approx(float(isotropic(2.0, 0.7).theta), rel=0.02)


def test_shrinkage_agrees_with_scikit_learn():
    covariance = pytest.importorskip("sklearn.covariance")
    for n in (10, 60, 300):
        rows = next(draws(n, 1, seed=n))
        expected = covariance.ledoit_wolf(rows - rows.mean(axis=0), assume_centered=True)[1]
        assert moments.shrinkage(rows) == pytest.approx(expected, rel=1e-9)
    assert moments.shrinkage(next(draws(2, 1))) == 1.0


def test_spread_matching_restores_the_trace_of_the_square():
    kept = []
    for rows in draws(150, 40, seed=4):
        weight = moments.spread_matching(moments.shrinkage(rows))
        sample = np.cov(rows.T, bias=True)
        matrix = (1 - weight) * sample + weight * np.trace(sample) / P * np.eye(P)
        kept.append(np.sum(matrix**2))
    assert np.mean(kept) == pytest.approx(np.sum(ROOT**4), rel=0.03)


def test_row_lengths_find_scale_and_leave_gaussian_rows_alone():
    gaussian = [np.std(moments.row_lengths(rows)) for rows in draws(100, 20, seed=5)]
    assert np.mean(gaussian) < 0.05
    rng = np.random.default_rng(6)
    lengths = np.sqrt(rng.gamma(2.0, 0.5, size=400))
    rows = (M + ROOT * rng.standard_normal((400, P))) * lengths[:, None]
    found = moments.row_lengths(rows)
    assert np.corrcoef(found, lengths)[0, 1] > 0.95
    assert np.mean(found**2) == pytest.approx(1.0, rel=0.01)
    assert (moments.row_lengths(np.ones((3, 5))) == 1).all()


def test_bad_input():
    with pytest.raises(ValueError, match="n ≥ 2"):
        moments.signal(np.ones((1, 3)))
    with pytest.raises(ValueError, match="source must have shape"):
        moments.overlap(np.ones((3, 3)), np.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        moments.noise_traces([[np.nan, 1.0], [1.0, 1.0]])
