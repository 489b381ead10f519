import numpy as np
import pytest

import rmt
from paper_checks.checks.alpha_lora.histograms import effective_size, ks_distance
from paper_checks.studies import real_data
from rmt.datasets import Domain

P, GAMMA = 12, 0.7


@pytest.fixture(scope="module")
def target() -> Domain:
    rng = np.random.default_rng(3)
    labels = np.where(np.arange(50) % 2, 1.0, -1.0)
    return Domain("target", labels[:, None] * 0.6 + rng.standard_normal((50, P)), labels).standardised()


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(4).standard_normal(P) / 3


def fitted(domain: Domain, rows: np.ndarray, weights: np.ndarray, alpha: float, ridge: float) -> np.ndarray:
    """The definition: the adapter a minimises Σ(y − xᵀ(αw̃ + a))² + ridge·‖a‖²."""
    x, y = domain.features[rows], domain.labels[rows]
    adapter = np.linalg.solve(x.T @ x + ridge * np.eye(P), x.T @ (y - alpha * x @ weights))
    return alpha * weights + adapter


@pytest.mark.parametrize("n", [5, 30])
@pytest.mark.parametrize("alpha", [0.0, 1.0, -2.5])
def test_split_scores_are_those_of_the_definition(target, weights, n, alpha):
    train, test = np.arange(n), np.arange(n, 50)
    split = real_data.Adaptation(target, weights).split(train, test)
    w = fitted(target, train, weights, alpha, n * GAMMA)
    start, slope = split.test_scores(GAMMA)
    expected = target.labels[test] * (target.features[test] @ w)
    np.testing.assert_allclose(start + alpha * slope, expected, atol=1e-12)
    assert split.accuracy(alpha, GAMMA) == np.mean(expected > 0)
    np.testing.assert_allclose(split.source_test, target.labels[test] * (target.features[test] @ weights))


@pytest.mark.parametrize("n", [6, 25])
def test_leave_one_out_is_that_of_refitting(target, weights, n):
    rows = np.arange(n)
    split = real_data.Adaptation(target, weights).split(rows, np.arange(n, 50))
    start, slope = split.leave_one_out(GAMMA)
    for left in rows:
        w = fitted(target, np.delete(rows, left), weights, 1.3, n * GAMMA)  # the others keep the penalty nγ
        expected = target.labels[left] * (target.features[left] @ w)
        assert start[left] + 1.3 * slope[left] == pytest.approx(expected, abs=1e-10)


def test_choices_minimise_what_they_say(target, weights):
    split = real_data.Adaptation(target, weights).split(np.arange(20), np.arange(20, 50))
    gammas = np.array([0.1, 1.0, 10.0])
    alpha, gamma = real_data.choose_squared(split, gammas)
    errors = {
        (a, g): np.mean((1 - z0 - a * z1) ** 2)
        for g in gammas
        for z0, z1 in [split.leave_one_out(g)]
        for a in [alpha, *np.linspace(-3, 3, 121)]
    }
    assert min(errors, key=lambda pair: errors[pair]) == (alpha, gamma)
    alpha, gamma = real_data.choose_moment(split, gammas)
    ratios = {}
    for g in gammas:
        z0, z1 = split.leave_one_out(g)
        for a in [alpha, *np.linspace(-3, 3, 121)]:
            ratios[a, g] = np.mean(z0 + a * z1) / np.std(z0 + a * z1)
    assert max(ratios, key=lambda pair: ratios[pair]) == (alpha, gamma)


@pytest.mark.parametrize(("size", "n"), [(1999, 20), (1998, 40), (2000, 20), (1999, 40)])
def test_paper_splits_are_those_of_scikit_learn(size, n):
    from sklearn.model_selection import train_test_split

    np.random.seed(123)  # noqa: NPY002 (the paper's code seeds the global generator)
    for train, test in real_data.paper_splits(123, size, n, 3):
        expected = train_test_split(np.arange(size), train_size=n / size)
        np.testing.assert_array_equal(train, expected[0])
        np.testing.assert_array_equal(test, expected[1])


def test_fresh_splits_are_partitions_that_depend_on_the_seed():
    splits = list(real_data.fresh_splits(0, 30, 7, 2))
    for train, test in splits:
        assert len(train) == 7
        assert sorted([*train, *test]) == list(range(30))
    assert not np.array_equal(splits[0][0], splits[1][0])
    again = next(real_data.fresh_splits(0, 30, 7, 1))
    np.testing.assert_array_equal(splits[0][0], again[0])


def test_pair_moments_and_the_two_readings_of_the_residual(target):
    rng = np.random.default_rng(9)
    noise = rng.standard_normal(target.features.shape)
    source = Domain("s", target.labels[:, None] * 0.8 + 0.5 * target.features + noise, target.labels)
    pair = real_data.DomainPair(source.standardised(), target)
    options = {"N": 50, "gamma_source": 1.0}
    right = pair.setting(20, 1.0, as_in_code=False, **options)
    code = pair.setting(20, 1.0, as_in_code=True, **options)
    np.testing.assert_allclose(right.m2, np.sum(target.signed_mean**2), rtol=1e-6)
    assert code.m2 < right.m2
    weights = real_data.ridge_weights(pair.source, 1.0, 50)
    measured = rmt.theory(pair.measured_setting(20, 1.0, weights))
    np.testing.assert_allclose(measured.overlap, weights @ target.signed_mean)
    np.testing.assert_allclose(measured.norm2, weights @ weights)


def test_ks_distance_and_effective_size():
    from scipy.stats import kstest

    rng = np.random.default_rng(0)
    values = np.sort(rng.normal(0.3, 2.0, 500))
    expected = kstest(values, "norm", args=(0.2, 2.1)).statistic
    assert ks_distance(values, 0.2, 2.1) == pytest.approx(expected, rel=1e-12)
    independent = rng.standard_normal((400, 10))
    assert effective_size(independent) == pytest.approx(4000, rel=0.2)
    shared = np.repeat(rng.standard_normal((400, 1)), 10, axis=1) + 1e-9 * independent
    assert effective_size(shared) == pytest.approx(400, rel=1e-6)
