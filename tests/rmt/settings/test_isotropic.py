"""Settings: what is accepted, what is refused and how, equality, plain form."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from cases import BASE, TWO_SOURCES, fixed, ridge
from hypothesis import given
from hypothesis import strategies as st

import rmt
from rmt.settings.isotropic import as_dict, from_dict

GOOD = ridge(5000, 200, 400, 1.5, 1, 0.8, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": -0.1}, r"gamma must be ≥ 0, got -0\.1"),
        ({"gamma": math.nan}, "gamma must not contain NaN"),
        ({"gamma": math.inf}, "gamma must be finite"),
        ({"gamma": "much"}, "gamma must be a number"),
        ({"p": 0}, "p must be ≥ 1, got 0"),
        ({"p": 10.5}, r"p counts things and must be a whole number, got 10\.5"),
        ({"n": 0}, "n must be ≥ 1"),
        ({"n": math.inf}, "n must be finite"),
        ({"N": 0}, "N must be ≥ 1"),
        ({"mu": -1}, "mu must be ≥ 0"),
        ({"mu_perp": -1}, "mu_perp must be ≥ 0"),
        ({"beta": 1.2}, r"beta must lie in \[−1, 1\] when mu_perp is given.*give mu_target"),
        ({"label_noise": 0.5}, "label_noise is the probability of a flipped label and must be < 1/2"),
        ({"label_noise_source": -0.1}, "label_noise_source must be ≥ 0"),
        ({"mu_target": 1.0}, "mu_perp .* or mu_target.* exactly one"),
        ({"mu_perp": None}, "exactly one of the two"),
        ({"mu_perp": None, "mu_target": 1.0}, r"mu_target must be ≥ \|beta\|·mu"),
        ({"N": None, "mu": None}, "N, mu missing"),
        ({"gamma": 0, "n": 400}, "gamma = 0 with p = n has infinite variance"),
        ({"gamma_source": 0, "N": 400}, "gamma_source = 0 with p = N has infinite variance"),
        ({"mu": [1, 2], "beta": [0.1, 0.2, 0.3]}, r"do not broadcast together: .*mu \(2,\), beta \(3,\)"),
        ({"source": rmt.FixedSource(overlap=0.1, norm2=1)}, "describe a ridge source"),
        ({"source": 3}, "describe a ridge source|must be a FixedSource"),
    ],
)
def test_bad_fields_are_refused_with_name_value_and_remedy(change, message):
    with pytest.raises(ValueError, match=message):
        replace(GOOD, **change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overlap": 0.1}, "norm2 .* or gram"),
        ({"overlap": 0.1, "norm2": -1}, "norm2 must be ≥ 0"),
        ({"overlap": [0.1, 0.2], "gram": [[1.0]]}, r"gram must have shape \(…, K, K\)"),
        ({"overlap": [0.1, 0.2], "gram": [[1, 0], [1, 1]]}, "gram must be symmetric"),
        ({"overlap": [0.1, 0.2], "gram": [[1, 1], [1, 1]]}, "positive definite"),
    ],
)
def test_bad_sources_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rmt.FixedSource(**arguments)


def test_cauchy_schwarz_of_a_fixed_source():
    with pytest.raises(ValueError, match="Cauchy–Schwarz.*mu_target"):
        fixed(2, 1, 1.0, 1.1, 1.0)
    with pytest.raises(ValueError, match="Cauchy–Schwarz"):
        source = rmt.FixedSource(overlap=[1, 1], gram=[[1, 0], [0, 1]])
        rmt.Transfer(p=10, n=10, gamma=1, mu_target=1.2, source=source)
    fixed(2, 1, 1.0, 1.0, 1.0)  # a source along m is fine
    with pytest.raises(ValueError, match="mu_target, the norm of the target mean, is needed"):
        rmt.Transfer(p=10, n=10, gamma=1, source=rmt.FixedSource(overlap=0.1, norm2=1))


def test_settings_are_frozen_equal_and_hashable():
    with pytest.raises(FrozenInstanceError):
        GOOD.gamma = 2  # type: ignore[misc]
    assert ridge(5000, 200, 400, 1.5, 1, 0.8, 1, 1) == GOOD
    assert hash(ridge(5000, 200, 400, 1.5, 1, 0.8, 1, 1.0)) == hash(GOOD)
    assert replace(GOOD, gamma=2) != GOOD
    assert replace(GOOD, gamma=np.array([1.0, 2.0])) == replace(GOOD, gamma=[1, 2])
    assert GOOD != 3


def test_shape_is_the_broadcast_of_all_fields():
    assert GOOD.shape == ()
    assert replace(GOOD, gamma=np.ones((4, 1)), beta=np.zeros(3)).shape == (4, 3)
    assert TWO_SOURCES.shape == ()
    assert TWO_SOURCES.source_count == 2


@pytest.mark.parametrize("setting", [GOOD, replace(GOOD, N=math.inf), fixed(2, 0.3, *BASE), TWO_SOURCES])
def test_plain_form_survives_json(setting):
    from rmt._files import to_plain

    plain = json.loads(json.dumps(to_plain(as_dict(setting))))
    assert from_dict(plain) == setting


def test_from_dict_names_what_is_wrong():
    with pytest.raises(ValueError, match="unknown setting field.* gama; known: p, n"):
        from_dict({"p": 1, "n": 1, "gama": 1})
    with pytest.raises(ValueError, match="gamma missing"):
        from_dict({"p": 1, "n": 1})


def test_eta_source_needs_a_ridge_source():
    with pytest.raises(ValueError, match="ridge source only"):
        fixed(2, 1, *BASE).eta_source  # noqa: B018


@given(beta=st.floats(-1, 1), mu=st.floats(0, 1e3), perp=st.floats(0, 1e3))
def test_target_norm_is_between_the_two_means(beta, mu, perp):
    setting = ridge(50, 20, 40, mu, perp, beta, 1, 1)
    low, high = sorted([mu**2, perp**2])
    assert low * (1 - 1e-12) <= setting.m2 <= high * (1 + 1e-12)


@given(st.one_of(st.text(max_size=5), st.lists(st.text(max_size=2), max_size=2), st.none(), st.complex_numbers()))
def test_any_junk_is_a_value_error(junk):
    try:
        setting = replace(GOOD, gamma=junk)
    except ValueError as error:
        assert "gamma" in str(error)
    else:  # text such as "1" is a number to NumPy
        assert np.isfinite(np.asarray(setting.gamma, dtype=float)).all()
