from __future__ import annotations

import numpy as np
import pytest

import rmt
from rmt.choosing.plug_in import PlugIn

P = 300
J = np.arange(1, P + 1)
TOEPLITZ = 0.6 ** np.abs(np.subtract.outer(J, J))


def unit(v):
    return v / np.linalg.norm(v)


MEAN = 1.4 * unit(np.sin(J**2))
SOURCE = 0.3 * MEAN + 0.5 * unit(np.cos(J**2))


def test_anchor_12_of_the_theory():
    exact = PlugIn(np.array([MEAN, MEAN]), SOURCE[:, None], TOEPLITZ, debias=False)
    c, V = exact.coefficients(0.2, n=150)
    q = np.array([1.0, 1.7])
    assert c @ q == pytest.approx(0.835637, abs=5e-6)
    assert q @ V @ q == pytest.approx(0.591248, abs=5e-6)
    assert exact.direction(0.2).q[1] > 0
    star = exact.coefficients(0.2, n=150)
    assert np.linalg.solve(star[1], star[0])[1] / np.linalg.solve(star[1], star[0])[0] == pytest.approx(
        0.807225, abs=5e-6
    )


def test_true_moments_give_the_general_theory():
    score = rmt.theory(
        rmt.GaussianTransfer(n=90, gamma=0.7, mean=MEAN, covariance=TOEPLITZ, source=rmt.FixedSource(vector=SOURCE))
    )
    c, V = PlugIn(np.array([MEAN, MEAN]), SOURCE[:, None], TOEPLITZ, debias=False).coefficients(0.7, n=90)
    np.testing.assert_allclose(c, score.c, rtol=1e-9)
    np.testing.assert_allclose(V, score.V, rtol=1e-9)


def test_infinite_penalty_is_the_mean_difference():
    exact = PlugIn(np.array([MEAN, MEAN]), SOURCE[:, None], TOEPLITZ, debias=False)
    c, V = exact.coefficients(np.inf, n=150)
    # w = ū + αw̃: mean (M, g), variance of ū: mᵀCm + tr C²/n
    np.testing.assert_allclose(c, [MEAN @ MEAN, SOURCE @ MEAN], rtol=1e-5)
    first = MEAN @ TOEPLITZ @ MEAN + np.sum(TOEPLITZ**2) / 150
    np.testing.assert_allclose(V[0], [first, MEAN @ TOEPLITZ @ SOURCE], rtol=1e-5)
    assert V[1, 1] == pytest.approx(SOURCE @ TOEPLITZ @ SOURCE, rel=1e-5)


def test_rows_of_unequal_length_against_simulation():
    n, gamma, q, draws = 150, 0.2, np.array([1.0, 1.7]), 400
    rng = np.random.default_rng(0)
    lengths = np.sqrt(rng.gamma(1.5, 1 / 1.5, size=5000))
    lengths /= np.sqrt(np.mean(lengths**2))
    theory = PlugIn(MEAN * lengths[:, None], SOURCE[:, None], TOEPLITZ, lengths=lengths, debias=False)
    c, V = theory.coefficients(gamma, n)
    root = np.linalg.cholesky(TOEPLITZ)
    found = []
    for _ in range(draws):
        rows = rng.choice(lengths, n)[:, None] * (MEAN + rng.standard_normal((n, P)) @ root.T)
        T = np.linalg.inv(rows @ rows.T / n + gamma * np.eye(n))
        w = rows.T @ (T @ (np.ones(n) - q[1] * rows @ SOURCE)) / n + q[1] * SOURCE
        found.append((w @ MEAN, w @ TOEPLITZ @ w))
    found = np.array(found)
    error = found.std(axis=0, ddof=1) / np.sqrt(draws)
    expected = np.array([c @ q, q @ V @ q])
    assert (np.abs(found.mean(axis=0) - expected) <= 4 * error + expected / P).all()


def test_sample_forms_in_both_shapes():
    rng = np.random.default_rng(1)
    root = np.linalg.cholesky(TOEPLITZ)
    truth = PlugIn(np.array([MEAN, MEAN]), SOURCE[:, None], TOEPLITZ, debias=False).coefficients(0.5, n=100)
    for N in (150, 2000):
        rows = MEAN + rng.standard_normal((N, P)) @ root.T
        c, _ = PlugIn(rows, SOURCE[:, None], TOEPLITZ).coefficients(0.5, n=100)
        np.testing.assert_allclose(c, truth[0], rtol=0.25 if N == 150 else 0.1)
        centred = rows - rows.mean(axis=0)
        matrix = 0.7 * centred.T @ centred / (N - 1) + 0.3 * np.sum(centred**2) / (N - 1) / P * np.eye(P)
        dense = PlugIn(rows, SOURCE[:, None], matrix).coefficients(0.5)
        reduced = PlugIn(rows, SOURCE[:, None], 0.3).coefficients(0.5)
        np.testing.assert_allclose(reduced[0], dense[0], rtol=1e-7)
        np.testing.assert_allclose(reduced[1], dense[1], rtol=1e-7)


def test_bad_input():
    with pytest.raises(ValueError, match="rows must be"):
        PlugIn(np.ones((3, 4)), np.ones((5, 1)), 0.5)
    with pytest.raises(ValueError, match="lengths must be"):
        PlugIn(np.ones((3, 4)), np.ones((4, 1)), 0.5, lengths=np.zeros(3))
