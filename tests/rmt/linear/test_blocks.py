"""Many settings in blocks: the same numbers, and the memory of the result."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import rmt
from rmt.linear import blocks
from rmt.linear.isotropic import IsotropicScore

RIDGE = {"p": 60, "N": 90, "mu": 1.5, "mu_perp": 1.0, "beta": 0.6, "gamma_source": 0.4}
SETTINGS = {
    "a ridge source": rmt.Transfer(
        **{**RIDGE, "mu": np.linspace(0.5, 2.0, 5)[:, None, None]},
        n=np.arange(10, 14)[:, None],
        gamma=np.geomspace(0.1, 10, 7),
        label_noise=0.1,
    ),
    "a fixed source": rmt.Transfer(
        p=60,
        n=np.arange(10, 70, 7)[:, None],
        gamma=1.0,
        mu_target=1.0,
        source=rmt.FixedSource(overlap=np.linspace(-0.5, 0.5, 4), norm2=np.array([[1.0]])),
    ),
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_blocks_change_no_number(setting, monkeypatch):
    whole = IsotropicScore(setting)
    monkeypatch.setattr(blocks, "BLOCK", 6)
    score = rmt.theory(setting)
    assert isinstance(score, blocks.BlockedScore)
    for name in ("alpha_star", "alpha_bar", "alpha_risk", "best_accuracy", "best_snr", "accuracy_source_only"):
        np.testing.assert_array_equal(getattr(score, name), getattr(whole, name), err_msg=name)
    for alpha in (
        0.7,
        np.linspace(-1, 2, setting.shape[-1]),
        np.linspace(-1, 2, 3).reshape(3, *[1] * len(setting.shape)),
    ):
        for name in ("mean", "variance", "second_moment", "risk", "snr", "accuracy"):
            np.testing.assert_array_equal(getattr(score, name)(alpha), getattr(whole, name)(alpha), err_msg=name)
    np.testing.assert_array_equal(score.accuracy(-1.0, folded=True), whole.accuracy(-1.0, folded=True))
    np.testing.assert_array_equal(score.c, whole.c)
    np.testing.assert_array_equal(score.V, whole.V)
    with pytest.raises(AttributeError):
        score.nothing  # noqa: B018


def test_many_settings_take_the_memory_of_their_answer():
    count = 400_000
    gamma = np.geomspace(0.01, 100, count)
    tracemalloc.start()
    try:
        accuracy = rmt.theory(rmt.Transfer(**RIDGE, n=30, gamma=gamma)).accuracy(1.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert accuracy.shape == (count,)
    assert peak < 2 * accuracy.nbytes + 12e6  # 2: checking the input makes masks of it
