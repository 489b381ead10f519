"""Intervals for α* and the test of negative transfer: coverage, false alarms and power over fresh samples."""

from __future__ import annotations

import numpy as np
import pytest

import rmt

P, REPEATS = 60, 100
J = np.arange(1, P + 1)
A, B = np.linalg.qr(np.random.default_rng(5).standard_normal((P, 2)))[0].T
TOEPLITZ = rmt.Spectrum.of(0.6 ** np.abs(np.subtract.outer(J, J)))
FLAT = rmt.Spectrum(np.ones(P))


def truth(n: int, source: np.ndarray, spectrum: rmt.Spectrum, gamma: float = 0.5) -> rmt.Score:
    fixed = rmt.FixedSource(vector=source)
    return rmt.theory(rmt.GaussianTransfer(n=n, gamma=gamma, mean=1.4 * A, covariance=spectrum, source=fixed))


def sample(rng: np.random.Generator, n: int, spectrum: rmt.Spectrum) -> tuple[np.ndarray, np.ndarray]:
    """Classes of 40 % and 60 %, around a middle that is not 0."""
    y = np.where(np.arange(n) < round(0.4 * n), -1.0, 1.0)
    return 0.3 + y[:, None] * 1.4 * A + spectrum.colour(rng.standard_normal((n, P))), y


def harmless(n: int, spectrum: rmt.Spectrum) -> float:
    """The alignment at which the source at α = 1 does neither good nor harm."""
    from scipy.optimize import brentq

    def harm(k: float) -> float:
        score = truth(n, k * A + 0.5 * B, spectrum)
        return float(score.accuracy(0.0) - score.accuracy(1.0))

    return float(brentq(harm, -0.3, 0.9))


@pytest.mark.parametrize(
    ("spectrum", "less"),
    [
        pytest.param(FLAT, 0.0, id="isotropic, boundary", marks=pytest.mark.slow),
        pytest.param(TOEPLITZ, 0.0, id="Toeplitz, boundary"),
        pytest.param(FLAT, 0.3, id="isotropic, harmful"),
        pytest.param(TOEPLITZ, 0.3, id="Toeplitz, harmful", marks=pytest.mark.slow),
    ],
)
def test_coverage_false_alarms_and_power(spectrum, less):
    """95 % intervals cover (within 3 s.e. of 100 samples); alarms ≤ 5 % + 3 s.e. where the source does no harm, and
    ≥ 80 % at an overlap that is .3·‖m‖ less, where it costs about 3 points of accuracy (‖m‖ = 1.4, n = 80)."""
    n, rng = 80, np.random.default_rng(11)
    source = (harmless(n, spectrum) - less) * A + 0.5 * B
    score = truth(n, source, spectrum)
    star, harm = float(score.alpha_star), float(score.accuracy(0.0) - score.accuracy(1.0))
    found = [
        rmt.transfer_evidence(*sample(rng, n, spectrum), source, gamma=0.5, covariance=spectrum, seed=seed)
        for seed in range(REPEATS)
    ]
    error = np.sqrt(0.05 * 0.95 / REPEATS)
    for covered in (
        np.mean([one.interval[0] <= star <= one.interval[1] for one in found]),
        np.mean([one.harm_interval[0] <= harm <= one.harm_interval[1] for one in found]),
    ):
        assert abs(covered - 0.95) <= 3 * error, covered
    alarms = np.mean([one.harmful for one in found])
    if less:
        assert alarms >= 0.8, (alarms, harm)
    else:
        assert alarms <= 0.05 + 3 * error, alarms


def test_estimates_are_consistent_and_units_do_not_matter():
    """With very many rows the interval closes on theory's α* (for that n), and X·s with source/s changes nothing."""
    rng = np.random.default_rng(1)
    source = 0.4 * A + 0.5 * B
    X, y = sample(rng, 4000, TOEPLITZ)
    found = rmt.transfer_evidence(X, y, source, gamma=0.5, covariance=TOEPLITZ)
    star = float(truth(4000, source, TOEPLITZ).alpha_star)
    assert found.interval[0] <= star <= found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.7 * abs(star)
    assert "no harm shown" in str(found) or "harmful" in str(found)
    wide = rmt.Spectrum(100.0 * np.asarray(TOEPLITZ.values), TOEPLITZ.vectors)
    scaled = rmt.transfer_evidence(10 * X, y + 5, source / 10, gamma=50.0, covariance=wide)
    assert scaled.interval == pytest.approx(found.interval, rel=1e-6)
    assert scaled.p_value == pytest.approx(found.p_value, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.zeros(8)}, "two label values, got 1"),
        ({"source": np.zeros(P)}, "source is zero"),
        ({"source": np.ones(3)}, "X must be"),
        ({"gamma": 0.0}, "gamma must be > 0"),
        ({"covariance": np.ones(3)}, "they must agree"),
    ],
)
def test_bad_input_is_named(change, words):
    X, y = sample(np.random.default_rng(0), 8, FLAT)
    given = {"X": X, "y": y, "source": A, "gamma": 1.0, **change}
    with pytest.raises(ValueError, match=words):
        rmt.transfer_evidence(**given)
