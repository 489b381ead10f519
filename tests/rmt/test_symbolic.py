"""SymPy's proofs, and that what is proved is what the package computes."""

from __future__ import annotations

import numpy as np
import pytest
from cases import BASE, fixed

import rmt

sympy = pytest.importorskip("sympy")


@pytest.fixture(scope="module")
def derivations():
    from rmt import symbolic

    return symbolic.derivations()


def test_every_closed_form_is_proved(derivations):
    assert [d.name for d in derivations] == [
        r"\bar\alpha",
        r"\alpha^\star",
        r"\alpha_{\mathrm{risk}}",
        r"\mathrm{SNR}^{\star 2}",
    ]
    assert all(d.proved for d in derivations)


def test_proved_forms_equal_the_numbers(derivations):
    from rmt import symbolic

    setting = fixed(2, 0.3, *BASE)
    score = rmt.theory(setting)
    r = score.resolvent
    values = {symbolic.THETA: r.theta, symbolic.ETA: 2.0, symbolic.H: r.h}
    values |= dict(zip((symbolic.M, symbolic.G, symbolic.W), BASE, strict=True))
    found = [float(d.closed_form.subs(values)) for d in derivations]
    expected = [score.alpha_bar, score.alpha_star, score.alpha_risk, score.best_snr**2]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_wrong_closed_form_is_not_proved(derivations):
    from dataclasses import replace

    wrong = replace(derivations[1], closed_form=derivations[1].closed_form * 2)
    assert not wrong.proved


def test_latex(derivations):
    assert derivations[0].latex == r"\bar\alpha = - \frac{M}{g \theta}"
