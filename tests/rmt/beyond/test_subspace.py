"""Adapters in a subspace: anchor, the whole space as a limit, simulation, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, TWO_SOURCES, fixed, one, random_settings
from cases_beyond import assert_anchor, assert_simulated, own_covariance, random_gaussian, toeplitz

import rmt


def test_anchor_22_random_rank():
    base = replace(fixed(4, 1.0, *BASE), p=600, n=150)
    score = rmt.theory(rmt.SubspaceTransfer(base=base, rank=60))
    assert_anchor(score, 1.0, (0.612271, 0.488858, 0.809402), star=0.910864, best=0.809642)


def test_small_ranks_do_not_beat_the_source_and_full_rank_is_best():
    """theory.md §5: with n = 150, p = 600, γ = 1 no rank up to 200 beats the source alone."""
    base = replace(fixed(4, 1.0, *BASE), p=600, n=150)
    score = rmt.theory(rmt.SubspaceTransfer(base=base, rank=np.array([20, 100, 200, 600])))
    alone = rmt.theory(base).accuracy_source_only
    assert (score.accuracy(1.0)[:3] <= alone + 1e-3).all()
    assert score.best_accuracy.argmax() == 3


@pytest.mark.parametrize("base", [fixed(2, 0.3, *BASE, label_noise=0.1), one(random_settings(5, 1), 2), TWO_SOURCES])
def test_random_subspace_of_full_rank_is_the_whole_space(base):
    confined, whole = rmt.theory(rmt.SubspaceTransfer(base=base, rank=base.p)), rmt.theory(base)
    np.testing.assert_allclose(confined.c, whole.c, rtol=1e-9)
    np.testing.assert_allclose(confined.V, whole.V, rtol=1e-9)


@pytest.mark.parametrize("loss", ["square", "logistic"])
@pytest.mark.parametrize("base", [toeplitz(150, 0.2), toeplitz(150, 0.2, label_noise=0.1), own_covariance()])
def test_a_basis_of_the_whole_space_is_the_whole_space(base, loss):
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((300, 300)))[0]
    confined = rmt.theory(rmt.SubspaceTransfer(base=base, basis=rotation), loss=loss)
    whole = rmt.theory(base, loss=loss)
    alpha = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(confined.mean(alpha), whole.mean(alpha), rtol=1e-9)
    np.testing.assert_allclose(confined.variance(alpha), whole.variance(alpha), rtol=1e-9)


def test_a_given_subspace_of_isotropic_noise_averages_to_the_random_one():
    rng = np.random.default_rng(5)
    p, rank = 400, 100
    base = rmt.Transfer(p=p, n=150, gamma=0.5, mu_target=1.5, source=rmt.FixedSource(overlap=0.6, norm2=0.45))
    from rmt.simulators.model import explicit

    vectors = explicit(base)
    given = [
        rmt.theory(rmt.SubspaceTransfer(base=vectors, basis=np.linalg.qr(rng.standard_normal((p, rank)))[0])).accuracy(
            1.0
        )
        for _ in range(40)
    ]
    expected = rmt.theory(rmt.SubspaceTransfer(base=base, rank=rank)).accuracy(1.0)
    assert np.mean(given) == pytest.approx(float(expected), abs=4 * np.std(given) / np.sqrt(40) + 0.5 / p)


def confined(seed: int) -> rmt.SubspaceTransfer:
    rng = np.random.default_rng(seed)
    base = random_gaussian(seed, 80, ridge=seed % 3 == 2, noise=seed % 4 == 3)
    return rmt.SubspaceTransfer(base=base, basis=np.linalg.qr(rng.standard_normal((80, int(rng.integers(5, 70)))))[0])


@pytest.mark.parametrize(
    ("loss", "draws"), [("square", 80), ("logistic", 40), pytest.param("squared_hinge", 40, marks=pytest.mark.whole)]
)
def test_simulation_of_given_subspaces(loss, draws):
    assert_simulated([confined(seed) for seed in range(30)], draws=draws, loss=loss)


def test_simulation_of_random_subspaces():
    settings = []
    for k in range(30):
        base = replace(one(random_settings(30, 3), k), p=100, n=20 + 6 * k, N=150, gamma=0.1 + 0.05 * k)
        settings.append(rmt.SubspaceTransfer(base=base, rank=5 + 3 * k))
    assert_simulated(settings, draws=80)


BASIS = np.linalg.qr(np.random.default_rng(0).standard_normal((300, 4)))[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rmt.SubspaceTransfer(base=TWO_SOURCES), "give rank"),
        (lambda: rmt.SubspaceTransfer(base=TWO_SOURCES, rank=3, basis=BASIS), "give rank"),
        (lambda: rmt.SubspaceTransfer(base=TWO_SOURCES, rank=201), "rank must not exceed p"),
        (lambda: rmt.SubspaceTransfer(base=TWO_SOURCES, rank=0), "rank must be ≥ 1"),
        (lambda: rmt.SubspaceTransfer(base=replace(TWO_SOURCES, gamma=0), rank=100), "gamma = 0 with rank = n"),
        (lambda: rmt.SubspaceTransfer(base=toeplitz(5, 1), rank=3), "rank needs base=Transfer"),
        (lambda: rmt.SubspaceTransfer(base=TWO_SOURCES, basis=BASIS), "basis needs base=GaussianTransfer"),
        (lambda: rmt.SubspaceTransfer(base=toeplitz(5, 1), basis=BASIS[:50]), "basis must have shape"),
        (lambda: rmt.SubspaceTransfer(base=toeplitz(5, 1), basis=2 * BASIS), "orthonormal columns"),
        (lambda: rmt.theory(rmt.SubspaceTransfer(base=TWO_SOURCES, rank=3), loss="logistic"), "loss='square' only"),
        (
            lambda: rmt.theory(rmt.SubspaceTransfer(base=toeplitz(5, 0), basis=BASIS), loss="logistic"),
            "gamma must be > 0",
        ),
        (lambda: rmt.theory(rmt.SubspaceTransfer(base=toeplitz(4, 0), basis=BASIS)), "gamma = 0 with n = 4"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
