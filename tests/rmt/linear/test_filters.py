"""Spectral filters: anchors, ridge as a check on the contour, simulation, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, TWO_SOURCES, fixed, one, random_settings
from cases_beyond import assert_anchor, assert_simulated, toeplitz

import rmt


def test_anchor_23_gradient_flow():
    score = rmt.theory(rmt.FilteredTransfer(base=fixed(2, 0.0, *BASE), filter=rmt.GradientFlow(2.0)))
    assert_anchor(score, 1.0, (0.667430, 0.514792, 0.823874), star=0.507778, best=0.833554)


@pytest.mark.parametrize("law", [rmt.PrincipalComponents(cut=2.0), rmt.PrincipalComponents(fraction=0.211998)])
def test_anchor_24_principal_components(law):
    score = rmt.theory(rmt.FilteredTransfer(base=fixed(2, 0.1, *BASE), filter=law))
    assert_anchor(score, 1.0, (0.654401, 0.458726, 0.833028), star=0.328098, best=0.865973)


@pytest.mark.parametrize("gamma", [10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4])
@pytest.mark.parametrize("eta", [0.3, 1.0, 2.0])
def test_ridge_by_contour_is_the_closed_form(eta, gamma):
    base = fixed(eta, gamma, *BASE)
    contour, closed = rmt.theory(rmt.FilteredTransfer(base=base, filter=rmt.RidgeFilter())), rmt.theory(base)
    tolerance = max(1e-9, 1e-14 / gamma**2)  # above p = n the contour passes between 0 and the pole at −γ
    np.testing.assert_allclose(contour.c, closed.c, rtol=tolerance)
    np.testing.assert_allclose(contour.V, closed.V, rtol=tolerance)


def test_endless_gradient_flow_is_ridge_and_no_time_is_the_source():
    base = replace(fixed(2, 0.3, *BASE), n=np.array([500, 2000]))
    late = rmt.theory(rmt.FilteredTransfer(base=base, filter=rmt.GradientFlow(200.0)))
    np.testing.assert_allclose(late.V, rmt.theory(base).V, rtol=1e-9)
    soon = rmt.theory(rmt.FilteredTransfer(base=base, filter=rmt.GradientFlow(1e-6)))
    np.testing.assert_allclose(soon.accuracy(1.0), rmt.theory(base).accuracy_source_only, rtol=1e-4)


def test_a_filter_by_function():
    base = fixed(2, 0.3, *BASE)
    mine = rmt.SpectralFilter(lambda z: 1 / (z + 0.3), pole=-0.3)
    np.testing.assert_allclose(
        rmt.theory(rmt.FilteredTransfer(base=base, filter=mine)).V, rmt.theory(base).V, rtol=1e-9
    )


def test_several_sources_and_broadcasting():
    two = rmt.theory(rmt.FilteredTransfer(base=TWO_SOURCES, filter=rmt.RidgeFilter()))
    np.testing.assert_allclose(two.alpha_star, rmt.theory(TWO_SOURCES).alpha_star, rtol=1e-9)
    grid = rmt.FilteredTransfer(base=replace(fixed(2, 0.3, *BASE), gamma=[[0.1], [1.0]]), filter=rmt.GradientFlow(1.0))
    assert rmt.theory(grid).accuracy(np.zeros(3)).shape == (2, 3)


def filtered(seed: int) -> rmt.FilteredTransfer:
    base = replace(one(random_settings(40, 9), seed), p=80, n=30 + 6 * seed, N=120, gamma=0.05 * (1 + seed % 5))
    share = min(1.0, float(base.n) / 80)
    law = [
        rmt.GradientFlow(0.3 + 0.3 * seed),
        rmt.PrincipalComponents(fraction=share * (0.1 + 0.8 * (seed % 7) / 7)),
        rmt.SpectralFilter(lambda z: 1 / (1 + z) + 1 / (1 + z) ** 2, pole=-1.0),
    ][seed % 3]
    return rmt.FilteredTransfer(base=base, filter=law)


@pytest.mark.slow
def test_simulation():
    assert_simulated([filtered(seed) for seed in range(33)], draws=80)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda base: rmt.GradientFlow(0.0), "time must be one number > 0"),
        (lambda base: rmt.PrincipalComponents(), "give cut"),
        (lambda base: rmt.PrincipalComponents(cut=1.0, fraction=0.5), "give cut"),
        (lambda base: rmt.PrincipalComponents(cut=0.0), "cut must be > 0"),
        (lambda base: rmt.PrincipalComponents(fraction=1.0), r"fraction must lie in \(0, 1\)"),
        (lambda base: rmt.SpectralFilter(1.0, pole=-1.0), "function must be φ"),
        (lambda base: rmt.SpectralFilter(np.exp, pole=0.1), "pole must be < 0"),
        (lambda base: rmt.FilteredTransfer(base=base, filter=np.exp), "filter must be a GradientFlow"),
        (lambda base: rmt.FilteredTransfer(base=toeplitz(5, 1), filter=rmt.RidgeFilter()), "base must be a Transfer"),
        (
            lambda base: rmt.FilteredTransfer(base=replace(base, label_noise=0.1), filter=rmt.RidgeFilter()),
            "label_noise must be 0",
        ),
        (lambda base: rmt.FilteredTransfer(base=replace(base, gamma=0), filter=rmt.RidgeFilter()), "gamma must be > 0"),
        (
            lambda base: rmt.theory(rmt.FilteredTransfer(base=base, filter=rmt.PrincipalComponents(cut=99.0))),
            "above every eigenvalue",
        ),
        (
            lambda base: rmt.theory(rmt.FilteredTransfer(base=base, filter=rmt.PrincipalComponents(fraction=0.6))),
            r"below min\(1, n/p\) = 0.5",
        ),
        (
            lambda base: rmt.theory(rmt.FilteredTransfer(base=base, filter=rmt.GradientFlow(1.0)), loss="logistic"),
            "loss='square'",
        ),
        (
            lambda base: rmt.theory(rmt.FilteredTransfer(base=replace(base, gamma=1e-9), filter=rmt.RidgeFilter())),
            "contour integral",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make(fixed(2, 0.3, *BASE))
