"""General covariance and several sources: anchors, the isotropic limit, direct simulation, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases_beyond import (
    MEAN,
    SECOND_SOURCE,
    SOURCE,
    TOEPLITZ,
    TOEPLITZ_MATRIX,
    assert_anchor,
    assert_simulated,
    own_covariance,
    random_gaussian,
    toeplitz,
)
from hypothesis import given
from hypothesis import strategies as st

import rmt
from rmt.resolvent import isotropic, spectral
from rmt.scores.estimates import ALLOWANCE
from rmt.simulators.model import explicit


def test_anchor_12_toeplitz():
    score = rmt.theory(toeplitz(150, 0.2))
    assert_anchor(score, 1.7, (0.835637, 0.591248, 0.861428), star=0.807225, best=0.878028)
    assert score.alpha_risk == pytest.approx(0.595417, rel=5e-6)
    r = spectral(TOEPLITZ.values, 150, 0.2)
    assert (r.theta, r.h) == (pytest.approx(1.00111, rel=5e-6), pytest.approx(0.599965, rel=5e-6))


def test_anchor_13_ridge_source_with_its_own_covariance():
    score = rmt.theory(own_covariance())
    assert_anchor(score, 1.0, (0.647695, 0.341243, 0.866234), star=1.11533, best=0.866483)


def test_anchor_14_guard():
    weights = np.linalg.solve(TOEPLITZ_MATRIX + np.eye(MEAN.size), MEAN)
    score = rmt.theory(toeplitz(2000, 10.0, source=rmt.FixedSource(vector=weights)))
    assert_anchor(score, 1.0, (1.09058, 0.316443, 0.973731))
    direction = np.linalg.solve(score.V, score.c)
    assert direction[1] / direction[0] == pytest.approx(-2.22633, rel=5e-6)
    assert score.accuracy(direction[1] / direction[0]) == pytest.approx(0.0241399, rel=5e-6)
    assert score.alpha_star == np.inf
    assert score.best_accuracy == pytest.approx(0.975587, rel=5e-6)


def test_anchor_16_two_sources():
    score = rmt.theory(toeplitz(150, 0.2, source=[SOURCE, SECOND_SOURCE]))
    assert_anchor(score, (1.0, 1.0), (0.810484, 0.477217, 0.879650), star=(0.713077, 0.573770), best=0.884755)
    alone = [rmt.theory(toeplitz(150, 0.2, source=one)).best_accuracy for one in (SECOND_SOURCE, SOURCE)]
    np.testing.assert_allclose(score.marginal_value, score.best_accuracy - np.array(alone), rtol=1e-10)


def test_spectral_resolvent_is_the_isotropic_one_when_all_eigenvalues_are_one():
    gamma, n = np.array([0.0, 1e-12, 1e-6, 1e-2, 1.0, 100.0]), np.array([[30], [190], [210], [5000]])
    general, closed = spectral(np.ones(200), n, gamma), isotropic(200 / n, gamma)
    for name in ("theta", "psi", "h", "excess", "load"):
        np.testing.assert_allclose(getattr(general, name), getattr(closed, name), rtol=1e-11, atol=1e-300)


@given(
    values=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30),
    n=st.integers(1, 60),
    log_gamma=st.floats(-20, 20),
)
def test_theta_solves_its_equation(values, n, log_gamma):
    gamma = float(np.exp(log_gamma))
    values = np.array(values)
    r = spectral(values, n, gamma)
    assert gamma <= r.theta * (1 + 1e-12)
    assert r.theta <= gamma + values.sum() / n + 1e-12 * r.theta
    assert r.theta == pytest.approx(gamma + r.theta * np.sum(values / (r.theta + values)) / n, rel=1e-9)
    assert 0 < r.h <= 1
    assert r.h + r.excess == pytest.approx(1.0, rel=1e-6)


ISOTROPIC = [
    rmt.Transfer(p=40, n=25, gamma=0.3, mu_target=1.5, source=rmt.FixedSource(overlap=0.6, norm2=0.45)),
    rmt.Transfer(p=40, n=90, gamma=1e-6, mu_target=1.0, source=rmt.FixedSource(overlap=-0.5, norm2=0.8)),
    rmt.Transfer(p=40, n=20, gamma=0.0, mu_target=1.0, source=rmt.FixedSource(overlap=0.4, norm2=0.5)),
    rmt.Transfer(p=40, n=25, N=80, gamma=0.3, gamma_source=0.5, mu=1.5, mu_perp=1.0, beta=0.8),
    rmt.Transfer(
        p=40,
        n=25,
        N=30,
        gamma=0.3,
        gamma_source=0.1,
        mu=1.5,
        mu_perp=1.0,
        beta=-0.6,
        label_noise=0.2,
        label_noise_source=0.1,
    ),
]


@pytest.mark.parametrize("setting", ISOTROPIC)
def test_identity_covariance_is_the_closed_form(setting):
    general, closed = rmt.theory(explicit(setting)), rmt.theory(setting)
    for name in ("alpha_star", "alpha_bar", "alpha_risk", "best_accuracy", "accuracy_source_only"):
        np.testing.assert_allclose(getattr(general, name), getattr(closed, name), rtol=1e-9)
    for name in ("mean", "variance", "accuracy", "risk"):
        alpha = np.array([-3.0, 0.0, 1.0, 40.0])
        np.testing.assert_allclose(getattr(general, name)(alpha), getattr(closed, name)(alpha), rtol=1e-9)


def test_identity_covariance_with_several_sources():
    rng = np.random.default_rng(3)
    weights, mean = rng.standard_normal((3, 20)), rng.standard_normal(20)
    fixed = [rmt.FixedSource(vector=w) for w in weights]
    general = rmt.theory(
        rmt.GaussianTransfer(n=15, gamma=0.4, mean=mean, covariance=np.ones(20), source=fixed, label_noise=0.1)
    )
    by_norms = rmt.FixedSource(overlap=weights @ mean, gram=weights @ weights.T)
    closed = rmt.theory(
        rmt.Transfer(p=20, n=15, gamma=0.4, mu_target=np.linalg.norm(mean), source=by_norms, label_noise=0.1)
    )
    np.testing.assert_allclose(general.alpha_star, closed.alpha_star, rtol=1e-9)
    np.testing.assert_allclose(general.V, closed.V, rtol=1e-9)


def test_covariance_may_be_a_matrix_a_diagonal_or_a_spectrum_and_the_basis_does_not_matter():
    rng = np.random.default_rng(0)
    p, values = 12, rng.uniform(0.1, 3.0, 12)
    rotation = np.linalg.qr(rng.standard_normal((p, p)))[0]
    mean, mu, own = rng.standard_normal(p), rng.standard_normal(p), rng.uniform(0.5, 2.0, p)

    def score(turn: np.ndarray, covariance: object, source_covariance: object) -> rmt.GaussianScore:
        source = rmt.RidgeSource(mean=turn @ mu, covariance=source_covariance, N=30, gamma=0.2)
        return rmt.theory(rmt.GaussianTransfer(n=9, gamma=0.3, mean=turn @ mean, covariance=covariance, source=source))

    plain = score(np.eye(p), values, own)
    turned = score(rotation, (rotation * values) @ rotation.T, (rotation * own) @ rotation.T)
    mixed = score(np.eye(p), np.diag(values), rmt.Spectrum(own))
    for other in (turned, mixed):
        np.testing.assert_allclose(other.V, plain.V, rtol=1e-10)
        np.testing.assert_allclose(other.c, plain.c, rtol=1e-10)
    shared = score(rotation, rmt.Spectrum(values, rotation), rmt.Spectrum(own, rotation))
    np.testing.assert_allclose(shared.V, plain.V, rtol=1e-10)


def test_broadcasting_over_n_gamma_and_noise_equals_one_by_one():
    gamma, n = np.array([0.1, 1.0, 10.0]), np.array([[50], [400]])
    grid = rmt.theory(toeplitz(n, gamma, label_noise=0.1))
    assert grid.accuracy(np.linspace(-1, 1, 5)[:, None, None]).shape == (5, 2, 3)
    for i, j in np.ndindex(2, 3):
        single = rmt.theory(toeplitz(int(n[i, 0]), float(gamma[j]), label_noise=0.1))
        assert grid.alpha_star[i, j] == pytest.approx(single.alpha_star, rel=1e-12)
        assert grid.best_accuracy[i, j] == pytest.approx(single.best_accuracy, rel=1e-12)


def test_limits_in_gamma_and_n():
    few, many = rmt.theory(toeplitz(1, 0.2)), rmt.theory(toeplitz(10**7, 1e-6))
    assert few.best_accuracy == pytest.approx(few.accuracy_source_only, abs=5e-3)
    bayes = MEAN @ np.linalg.solve(TOEPLITZ_MATRIX, MEAN)
    assert many.best_snr == pytest.approx(np.sqrt(bayes), rel=1e-3)
    ridgeless = rmt.theory(toeplitz(150, 0.0))
    assert ridgeless.alpha_star == pytest.approx(rmt.theory(toeplitz(150, 1e-9)).alpha_star, rel=1e-6)


def test_no_effect_of_the_sources_is_reported_as_nan():
    dead = rmt.theory(toeplitz(1000, 0.0, source=[SOURCE, SECOND_SOURCE]))
    assert np.isnan(dead.alpha_star).all()
    assert dead.best_accuracy == dead.accuracy([0.0, 0.0])
    none = rmt.FixedSource(vector=np.zeros(MEAN.size))
    one_dead = rmt.theory(toeplitz(150, 0.2, source=[SOURCE, none]))
    assert one_dead.alpha_star[1] == 0
    assert one_dead.best_accuracy == pytest.approx(rmt.theory(toeplitz(150, 0.2)).best_accuracy, rel=1e-12)
    np.testing.assert_allclose(one_dead.marginal_value[1], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=pytest.mark.whole), {"ridge": True}, {"noise": True}],
    ids=["fixed", "ridge", "flipped labels"],
)
@pytest.mark.slow
def test_simulation(options):
    assert_simulated([random_gaussian(seed, 80, **options) for seed in range(32)], draws=80)


def test_simulation_of_several_sources():
    from rmt.simulators.direct import ridge_columns

    for seed in range(30):
        setting = random_gaussian(seed, 80, sources=1 + seed % 3)
        rng = np.random.default_rng(seed)
        noise = setting.spectrum.colour(rng.standard_normal((80, int(setting.n), 80)))
        samples = noise + setting.mean
        sources = np.broadcast_to(
            np.stack([one.vector for one in setting.sources], axis=1), (80, 80, len(setting.sources))
        )
        weights = ridge_columns(np, samples, np.ones((*samples.shape[:2], 1)), sources, np.array([setting.gamma]))[:, 0]
        V = weights.mT @ setting.spectrum.dense() @ weights
        simulation = rmt.Simulation(c=setting.mean @ weights, V=V, p=80, vector_alpha=True)
        alpha = rng.standard_normal((4, len(setting.sources)))
        assert simulation.compare(rmt.theory(setting), alpha, allowance=ALLOWANCE).worst <= 4


@pytest.mark.slow
def test_simulation_of_another_penalty():
    """aᵀΓa: w = (S + γΓ)⁻¹(ū + γΓαw̃), solved as it stands."""
    for seed in range(30):
        setting = random_gaussian(seed, 60)
        rng = np.random.default_rng(100 + seed)
        penalty = np.exp(0.7 * rng.standard_normal(60))
        if seed % 2:
            rotation = np.linalg.qr(rng.standard_normal((60, 60)))[0]
            penalty = (rotation * penalty) @ rotation.T
        form = float(setting.gamma) * (penalty if seed % 2 else np.diag(penalty))
        samples = setting.spectrum.colour(rng.standard_normal((80, int(setting.n), 60))) + setting.mean
        pull = np.broadcast_to(form @ setting.source.vector, (80, 60))
        right = np.stack([samples.mean(axis=1), pull], axis=-1)
        weights = np.linalg.solve(samples.mT @ samples / samples.shape[1] + form, right)
        V = weights.mT @ setting.spectrum.dense() @ weights
        simulation = rmt.Simulation(c=setting.mean @ weights, V=V, p=60)
        assert (
            simulation.compare(
                rmt.theory(rmt.with_penalty(setting, penalty)), np.array([0.0, 1.0, 2.0]), allowance=ALLOWANCE
            ).worst
            <= 4
        )


def test_penalty_of_one_changes_nothing_and_bad_penalties_are_refused():
    plain = toeplitz(150, 0.2, source=[SOURCE, SECOND_SOURCE])
    same = rmt.with_penalty(plain, np.ones(MEAN.size))
    np.testing.assert_allclose(rmt.theory(same).V, rmt.theory(plain).V, rtol=1e-9)
    with pytest.raises(ValueError, match="penalty must be positive definite"):
        rmt.with_penalty(plain, np.zeros(MEAN.size))
    with pytest.raises(ValueError, match="penalty is 3-dimensional"):
        rmt.with_penalty(plain, np.ones(3))
    with pytest.raises(ValueError, match="takes fixed sources"):
        rmt.with_penalty(own_covariance(), np.ones(MEAN.size))


def test_joint_optimum():
    setting = toeplitz(np.array([100, 300]), 1.0)
    found = rmt.joint_optimum(setting)
    at_best = rmt.theory(replace(setting, gamma=found.gamma))
    np.testing.assert_allclose(at_best.accuracy(found.alpha), found.accuracy, rtol=1e-12)
    scan = rmt.theory(replace(setting, gamma=np.geomspace(1e-4, 1e4, 400)[:, None])).best_accuracy
    assert (found.accuracy >= scan.max(axis=0) - 1e-12).all()
    assert (found.accuracy <= scan.max(axis=0) + 1e-5).all()
    assert rmt.joint_optimum(toeplitz(100, 1.0, source=[SOURCE, SECOND_SOURCE])).alpha.shape == (2,)
    with pytest.raises(ValueError, match="source_gamma=True is solved for C = I only"):
        rmt.joint_optimum(setting, source_gamma=True)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_joint_optimum_of_identity_covariance_is_at_infinity(noise):
    setting = rmt.Transfer(
        p=40, n=25, gamma=1.0, mu_target=1.5, source=rmt.FixedSource(overlap=0.6, norm2=0.45), label_noise=noise
    )
    general, closed = rmt.joint_optimum(explicit(setting)), rmt.joint_optimum(setting)
    assert general.gamma == np.inf
    assert general.alpha == 0
    assert general.source_weight == pytest.approx(closed.source_weight, rel=1e-9)
    assert general.snr == pytest.approx(closed.snr, rel=1e-9)


def gaussian(**change: object) -> rmt.GaussianTransfer:
    base = {
        "n": 5,
        "gamma": 1.0,
        "mean": np.ones(3),
        "covariance": np.ones(3),
        "source": rmt.FixedSource(vector=np.ones(3)),
    }
    return rmt.GaussianTransfer(**(base | change))


def ridge_source(**change: object) -> rmt.RidgeSource:
    return rmt.RidgeSource(**({"mean": np.ones(3), "covariance": np.ones(3), "N": 10, "gamma": 1.0} | change))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gaussian(n=0), "n must be ≥ 1"),
        (lambda: gaussian(n=2.5), "n counts things"),
        (lambda: gaussian(gamma=-1), "gamma must be ≥ 0"),
        (lambda: gaussian(gamma=np.nan), "gamma must not contain NaN"),
        (lambda: gaussian(label_noise=0.5), "label_noise .* must be < 1/2"),
        (lambda: gaussian(n=[1, 2], gamma=[1, 2, 3]), "do not broadcast"),
        (lambda: gaussian(mean=np.ones((2, 3))), r"mean must be a vector of shape \(p,\)"),
        (lambda: gaussian(covariance=np.ones(4)), "covariance is 4-dimensional, but mean has length 3"),
        (lambda: gaussian(covariance=-np.ones(3)), "covariance must be ≥ 0"),
        (lambda: gaussian(covariance=np.ones((3, 2))), "covariance must be a"),
        (lambda: gaussian(covariance=np.triu(np.ones((3, 3)))), "covariance must be symmetric"),
        (lambda: gaussian(covariance=1 - 2 * np.eye(3)).spectrum, "positive semi-definite, but has the eigenvalue"),
        (lambda: gaussian(covariance=rmt.Spectrum(np.ones(2))), "covariance is 2-dimensional"),
        (lambda: gaussian(source=rmt.FixedSource(overlap=1, norm2=1)), "known by its norms only"),
        (lambda: gaussian(source=rmt.FixedSource(vector=np.ones(2))), "source has length 2"),
        (lambda: gaussian(source=np.ones(3)), "source must be FixedSource"),
        (lambda: gaussian(source=[]), "at least one source"),
        (lambda: rmt.theory(gaussian(n=3, gamma=0.0)), "gamma = 0 with n = 3, the rank"),
        (lambda: rmt.theory(gaussian(gamma=0.0, covariance=[1.0, 0.0, 0.0])), "singular covariance"),
        (lambda: ridge_source(N=[5, 6]), "N must be one number"),
        (lambda: ridge_source(gamma=-1), "gamma of the source must be ≥ 0"),
        (lambda: ridge_source(mean=np.ones(2)), "covariance of the source is 3-dimensional"),
        (lambda: rmt.FixedSource(vector=np.ones((2, 2))), r"vector must have shape \(p,\)"),
        (lambda: rmt.FixedSource(vector=np.ones(2), norm2=1), "drop overlap, norm2 and gram"),
        (lambda: rmt.FixedSource(), "give overlap"),
        (
            lambda: rmt.Transfer(p=3, n=5, gamma=1, mu_target=1, source=rmt.FixedSource(vector=np.ones(3))),
            "use GaussianTransfer",
        ),
        (lambda: rmt.Spectrum(np.ones((2, 2))), r"values must have shape \(p,\)"),
        (lambda: rmt.Spectrum(-np.ones(2)), "values must be ≥ 0"),
        (lambda: rmt.Spectrum(np.ones(2), np.ones((2, 2))), "orthonormal columns"),
        (lambda: rmt.Spectrum(np.ones(2), np.eye(3)), r"vectors must have shape \(2, 2\)"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_compare_by_value():
    assert gaussian() == gaussian(covariance=[1.0, 1.0, 1.0])
    assert gaussian() != gaussian(gamma=2.0)
    pair = [rmt.FixedSource(vector=np.ones(3)), ridge_source()]
    assert gaussian(source=pair) == gaussian(source=tuple(pair))
    assert len({gaussian(), gaussian(), gaussian(source=pair)}) == 2


def test_a_ridge_source_of_infinitely_many_samples_has_no_noise():
    endless = ridge_source(N=np.inf)
    weights, spread = endless.law
    np.testing.assert_allclose(weights, 1 / (1 + 1) / (1 + 3 / 2))
    assert (spread == 0).all()


WILD = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(-1.0, 50.0), st.integers(0, 20))


@given(
    n=WILD,
    gamma=WILD,
    label_noise=st.one_of(st.just(0.0), WILD),
    values=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=4),
    mean=st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=4),
    weights=st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=4),
    ridge=st.booleans(),
    loss=st.sampled_from(["square", "logistic"]),
)
def test_any_input_is_refused_by_name_or_answered(n, gamma, label_noise, values, mean, weights, ridge, loss):
    try:
        source = (
            rmt.RidgeSource(mean=weights, covariance=np.ones(len(weights)), N=7, gamma=0.5)
            if ridge
            else rmt.FixedSource(vector=weights)
        )
        score = rmt.theory(
            rmt.GaussianTransfer(
                n=n, gamma=gamma, mean=mean, covariance=values, source=source, label_noise=label_noise
            ),
            loss=loss,
        )
        accuracy = score.accuracy([-1.0, 0.0, 2.0])
    except ValueError as error:
        names = ("n ", "gamma", "label_noise", "covariance", "mean", "source", "fixed point")
        assert any(name in str(error) for name in names), error
    else:
        assert ((accuracy >= 0) & (accuracy <= 1)).all()
        assert (score.variance([0.0, 1.0]) >= 0).all()
