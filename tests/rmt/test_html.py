"""Settings, scores, simulations and comparisons show themselves in a notebook."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from cases import BASE, fixed
from cases_beyond import random_gaussian

import rmt

ONE = fixed(1.5, 0.3, *BASE)
SCORE = rmt.theory(ONE)
DRAWN = rmt.simulate(ONE, 20, 1)
SHOWN = {
    "setting": (ONE, "mu_target"),
    "covariance": (random_gaussian(1, 12, sources=2), "numbers from"),
    "spectrum": (rmt.Spectrum(np.ones(9)), "9 numbers"),
    "score": (SCORE, "<svg"),
    "several": (rmt.theory(random_gaussian(1, 12, sources=2)), "α*"),
    "settings": (rmt.theory(replace(ONE, n=np.array([500, 2000]))), "accuracy at α*"),
    "simulation": (DRAWN, "20 draws"),
    "comparison": (DRAWN.compare(SCORE, [0.0, 1.0]), "raw_z"),
    "fits": (rmt.simulate_fits(random_gaussian(1, 12), [0.0, 1.0], 3), "3 draws"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_html_is_well_formed_and_says_what_it_is(name):
    thing, word = SHOWN[name]
    text = thing._repr_html_()
    ElementTree.fromstring(f"<div>{text}</div>")
    assert word in text
    assert len(text) < 12000
