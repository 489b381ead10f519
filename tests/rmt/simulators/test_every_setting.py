"""One ``simulate`` for every setting and loss: it composes, or the combination is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import BASE, fixed
from cases_beyond import random_gaussian

import rmt
from rmt.scores.estimates import ALLOWANCE

P = 40
PLAIN = replace(fixed(1.5, 0.3, *BASE), p=P, n=25)
BASIS = np.linalg.qr(np.random.default_rng(0).standard_normal((P, 12)))[0]
GAUSSIAN = random_gaussian(3, P, noise=True)
SEVERAL = random_gaussian(4, P, ridge=True, sources=2)


@pytest.mark.parametrize(
    "setting",
    [
        GAUSSIAN,
        random_gaussian(5, P, ridge=True),
        SEVERAL,
        rmt.SubspaceTransfer(base=GAUSSIAN, basis=BASIS),
        rmt.SubspaceTransfer(base=SEVERAL, basis=BASIS),
        rmt.SubspaceTransfer(base=PLAIN, rank=10),
        rmt.FilteredTransfer(base=PLAIN, filter=rmt.GradientFlow(time=2.0)),
    ],
    ids=["covariance", "ridge source", "two sources", "subspace", "subspace, two sources", "rank", "filter"],
)
def test_square_loss_gives_every_scale(setting):
    score, simulation = rmt.theory(setting), rmt.simulate(setting, 300, 1)
    width = getattr(setting, "base", setting).source_count
    alpha = [0.0, 1.0, 2.5] if width is None else [[0.0, 0.0], [1.0, 0.5], [-0.5, 2.0]]
    comparison = simulation.compare(score, alpha, allowance=ALLOWANCE)
    assert comparison.worst <= 4, str(comparison)
    assert np.isfinite(simulation.alpha_star.value).all()


@pytest.mark.parametrize("loss", ["square", "logistic"])
@pytest.mark.parametrize("kind", ["elliptical", "classes", "flipped classes"])
def test_the_others_are_fitted_at_given_scales(kind, loss):
    flips = 0.1 if kind == "flipped classes" else 0.0
    setting = (
        rmt.EllipticalTransfer(base=random_gaussian(6, P), freedom=6.0)
        if kind == "elliptical"
        else rmt.ClassTransfer(
            n=60,
            gamma=0.3,
            means=[GAUSSIAN.mean, -0.5 * np.asarray(GAUSSIAN.mean)],
            covariances=[GAUSSIAN.spectrum, np.linspace(0.5, 1.5, P)],
            source=GAUSSIAN.source,
            proportions=(0.4, 0.6),
            intercept=True,
            label_noise=flips,
        )
    )
    simulation = rmt.simulate(setting, 150, 2, loss=loss, alpha=[0.0, 1.5])
    comparison = simulation.compare(rmt.theory(setting, loss=loss), allowance=ALLOWANCE)
    assert comparison.worst <= 4, str(comparison)


def test_running_simulations_come_as_they_are_drawn(monkeypatch):
    """The first step is yielded before the last block is drawn, and the last is one call of simulate."""
    from rmt.simulators import fits

    drawn = []
    real = fits.model_of

    def model_of(setting):
        model = real(setting)
        block = type(model).affine_block
        monkeypatch.setattr(type(model), "affine_block", lambda *a: drawn.append(1) or block(*a))
        return model

    monkeypatch.setattr(fits, "model_of", model_of)
    monkeypatch.setattr(fits, "_BLOCK", 10 * P * int(GAUSSIAN.n))
    running = rmt.simulate_running(GAUSSIAN, [10, 40], 3)
    first = next(running)
    assert (first.draws, len(drawn)) == (10, 1)
    last = next(running)
    np.testing.assert_array_equal(last.c[:10], first.c)
    np.testing.assert_array_equal(last.c, rmt.simulate(GAUSSIAN, 40, 3).c)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rmt.simulate(GAUSSIAN, 5, alpha=[1.0]), "leave alpha out"),
        (
            lambda: rmt.simulate(GAUSSIAN, 5, loss="logistic"),
            "a GaussianTransfer with loss 'logistic' is fitted at given",
        ),
        (lambda: rmt.simulate(GAUSSIAN, 5, method="exact"), "method 'exact' samples a Transfer"),
        (lambda: rmt.simulate(GAUSSIAN, 5, noise="uniform"), "noise: options of a Transfer"),
        (lambda: rmt.simulate(SEVERAL, 5, loss="logistic", alpha=[1.0]), "one source"),
        (
            lambda: rmt.simulate(rmt.FilteredTransfer(base=PLAIN, filter=rmt.RidgeFilter()), 5, loss="logistic"),
            "a FilteredTransfer is fitted with loss='square'",
        ),
        (lambda: rmt.simulate(3, 5, alpha=[1.0]), "no model for int"),
        (lambda: rmt.theory(SEVERAL, loss="logistic"), "takes one source"),
        (
            lambda: rmt.theory(rmt.SubspaceTransfer(base=PLAIN, rank=3), loss="logistic"),
            "random subspace is solved for",
        ),
    ],
)
def test_what_does_not_compose_is_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()
