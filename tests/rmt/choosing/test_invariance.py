"""What must not change a choice: units, the size of a source, rotations, features that say nothing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
import rmt

P = 24


def data(classes, K):
    rng = np.random.default_rng(7)
    count = 1 if classes == 2 else classes
    n = 30
    y = np.arange(n) % classes
    means = 0.7 * rng.standard_normal((classes, P))
    spread = 1.0 / np.sqrt(np.arange(1, P + 1))
    X, test = (means[labels] + spread * rng.standard_normal((n, P)) for labels in (y, y))
    sources = [rng.standard_normal((count, P)) + (means[1] - means[0] if classes == 2 else means) for _ in range(K)]
    return X, y, test, sources


def units(X, sources):
    return 1e4 * X, [1e-7 * source for source in sources]


def rotated(X, sources):
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((X.shape[1],) * 2))[0]
    return X @ turn, [source @ turn for source in sources]


def zeros(X, sources):
    def wide(array):
        return np.hstack([array, np.zeros((len(array), 60))])

    return wide(X), [wide(source) for source in sources]


def zeros_rotated(X, sources):
    return rotated(*zeros(X, sources))


def faint_noise(X, sources):
    X, sources = zeros(X, sources)
    noise = 1e-6 * np.random.default_rng(2).standard_normal(X.shape)
    noise[:, :P] = 0.0
    return X + noise, sources


# A rotation alone is that of features that are zero in part.
CHANGES = [(units, 1e-8), (zeros, 1e-8), (zeros_rotated, 1e-8), (faint_noise, 1e-4)]


def cases():
    for method in ("auto", "loo", "plugin"):
        for covariance in ("ledoit-wolf", "empirical", "identity") if method == "plugin" else ("ledoit-wolf",):
            for intercept in (True, False):
                yield method, covariance, intercept


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize(("method", "covariance", "intercept"), list(cases()))
def test_predictions_do_not_change(classes, K, method, covariance, intercept):
    X, y, test, sources = data(classes, K)

    def decide(rows, new, weights):
        model = rmt.AlphaRidgeClassifier(source=weights, method=method, covariance=covariance, intercept=intercept)
        model.fit(rows, y)
        scores = model.decision_function(new)
        return scores / np.abs(scores).max(), model.predicted_accuracy_

    scores, accuracy = decide(X, test, sources)
    for change, tolerance in CHANGES:
        both, weights = change(np.vstack([X, test]), sources)
        other, same = decide(both[: len(X)], both[len(X) :], weights)
        np.testing.assert_allclose(other, scores, atol=tolerance, err_msg=change.__name__)
        assert same == pytest.approx(accuracy, abs=max(tolerance, 1e-8)), change.__name__


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_a_source_of_any_size(size):
    X, y, test, sources = data(2, 1)
    plain = rmt.AlphaRidgeClassifier(source=sources[0]).fit(X, y)
    other = rmt.AlphaRidgeClassifier(source=size * sources[0]).fit(X, y)
    assert np.isfinite(other.coef_).all()
    np.testing.assert_allclose(other.decision_function(test), plain.decision_function(test), atol=1e-8)


def test_features_that_are_zero_do_not_hide_the_signal():
    real = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        m = np.r_[np.full(5, 0.9), np.zeros(795)]
        spread = np.r_[np.ones(40), np.zeros(760)]
        y = np.array([-1, 1] * 5)
        X = y[:, None] * m + spread * rng.standard_normal((10, 800))
        source = spread * rng.standard_normal(800)
        model = rmt.AlphaRidgeClassifier(source=source, intercept=False).fit(X, y)
        labels = np.where(rng.random(1000) < 0.5, -1, 1)
        real.append(model.score(labels[:, None] * m + spread * rng.standard_normal((1000, 800)), labels))
    assert np.mean(real) > 0.75  # 56 % when the prior's scale knew p


def test_a_source_turned_against_the_mean_gives_weights_that_are_numbers():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = np.array([-1, 1] * 5)
        X = (y[:, None] + rng.standard_normal((10, 5))) / np.arange(1, 6)
        model = rmt.AlphaRidgeClassifier(source=-1.0 / np.arange(1, 6), intercept=False).fit(X, y)
        assert np.isfinite(model.coef_).all()
        assert len(set(model.predict(X))) == 2


def test_the_source_alone_is_a_state():
    X, y, _, sources = data(2, 1)
    model = rmt.AlphaRidgeClassifier(source=sources[0] / 1e4, alpha=np.inf, intercept=False).fit(1e4 * X, y)
    cosine = model.coef_[0] @ sources[0][0] / np.linalg.norm(model.coef_) / np.linalg.norm(sources[0])
    assert cosine == pytest.approx(1.0)
    assert np.isinf(model.alpha_).all()
