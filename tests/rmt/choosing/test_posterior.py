from __future__ import annotations

import numpy as np
import pytest

from rmt.choosing.posterior import PRIOR_MEAN, PRIOR_VARIANCE, THRESHOLDS, Posterior, Rows, Scores, penalties


def problem(n, p, K, classes, centred, seed=0):
    rng = np.random.default_rng(seed)
    X, index = rng.standard_normal((n, p)) + 1.5 * centred, np.arange(n) % classes
    if classes == 2:
        outputs = np.where(index == 1, 1.0, -1.0)[:, None]
    else:
        outputs = 2.0 * ((index[:, None] == np.arange(classes)) - 1.0 / classes)
    M = outputs.shape[1]
    rows = Rows(X, centred=centred)
    scores = Scores(rows, rng.standard_normal((K, M, p)), centred * rng.standard_normal((K, M)))
    return X, outputs, rows, scores


def dense(X, y, s, n, gamma, v, centred):
    """Evidence, and the score of a new row as a function of its features and source scores, from p(y) itself."""
    count = len(y)
    K, centre = len(s), X.mean(axis=0) if centred else 0.0
    Z = X - centre
    A = np.eye(count) + Z @ Z.T / (n * gamma) + (v if centred else 0.0)
    inverse = np.linalg.inv(A)
    start = np.full(K, PRIOR_MEAN / max(K, 1))
    e = y - np.einsum("k,knm->nm", start, s)
    F = np.einsum("knm,nj,ljm->kl", s, inverse, s) + np.eye(K) / PRIOR_VARIANCE
    g = np.einsum("knm,nj,jm->k", s, inverse, e)
    rest = np.einsum("nm,nj,jm->", e, inverse, e) - g @ np.linalg.solve(F, g)
    log = np.linalg.slogdet(A)[1] + np.linalg.slogdet(F)[1] + count * np.log(rest)
    alpha = start + np.linalg.solve(F, g)
    dual = inverse @ (y - np.einsum("k,knm->nm", alpha, s))

    def score(x, own):
        return alpha @ own + (x - centre) @ Z.T @ dual / (n * gamma) + (v if centred else 0.0) * dual.sum(axis=0)

    return -0.5 * log, score


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("n", "p", "K", "classes"), [(12, 30, 1, 2), (30, 12, 2, 2), (12, 30, 2, 3), (12, 30, 0, 2)])
def test_the_rule_and_its_left_out_scores_against_dense_algebra(n, p, K, classes, centred):
    X, outputs, rows, scores = problem(n, p, K, classes, centred)
    gammas = np.array([0.3, 5.0, np.inf])
    posterior = Posterior(rows, outputs, scores, gammas)
    every = scores.about + scores.level[:, None]
    grid = [(gamma, v) for gamma in gammas for v in (THRESHOLDS if centred else [0.0])]

    def mean(kept, i):
        fits = [dense(X[kept], outputs[kept], every[:, kept], n, *one, centred) for one in grid]
        log = np.array([fit[0] for fit in fits])
        weight = np.exp(log - log.max())
        return weight / weight.sum(), np.array([score(X[i], every[:, i]) for _, score in fits])

    weight, score = mean(np.arange(n) >= 0, 0)
    np.testing.assert_allclose(posterior.weight.ravel(), weight, rtol=1e-6)
    whole = posterior.averaged()
    np.testing.assert_allclose((X[0] - rows.centre) @ whole.weights.T + whole.level, weight @ score, rtol=1e-6)
    for i in (0, n // 2):  # refitted without the row: centre, thresholds, α and the evidence anew
        weight, score = mean(np.arange(n) != i, i)
        np.testing.assert_allclose(whole.left_out[i], weight @ score, rtol=1e-6)


def test_a_given_scale_and_one_penalty_are_the_ridge_of_the_theory():
    X, outputs, rows, scores = problem(20, 8, 1, 2, False)
    fit = Posterior(rows, outputs, scores, np.array([0.7]), alpha=np.array([1.3])).averaged()
    expected = np.linalg.solve(
        X.T @ X / 20 + 0.7 * np.eye(8), X.T @ outputs[:, 0] / 20 + 0.7 * 1.3 * scores.weights[0, 0]
    )
    np.testing.assert_allclose(fit.weights[0], expected)


def test_the_path_is_the_classifier_of_each_penalty():
    _, outputs, rows, scores = problem(15, 30, 2, 2, True)
    posterior = Posterior(rows, outputs, scores, penalties(rows.scale))
    alpha, left_out = posterior.path()
    one = posterior.averaged(4)
    np.testing.assert_allclose(alpha[4], one.alpha)
    np.testing.assert_allclose(left_out[4], one.left_out)


def test_a_good_source_is_kept_and_a_useless_one_is_left():
    rng = np.random.default_rng(0)
    n, p = 60, 200
    m = np.r_[1.5, np.zeros(p - 1)]
    y = np.tile([-1.0, 1.0], n // 2)
    rows = Rows(y[:, None] * m + rng.standard_normal((n, p)), centred=False)

    def posterior(source, caution=0.0):
        scores = Scores(rows, source[None, None], np.zeros((1, 1)))
        return Posterior(rows, y[:, None], scores, penalties(rows.scale), caution=caution)

    good, useless = posterior(m), posterior(rng.standard_normal(p))
    assert good.averaged().alpha[0] > 0.5
    assert abs(useless.averaged().alpha[0]) < 0.3
    assert good.by_penalty[-1] > useless.by_penalty[-1]
    assert posterior(m, caution=500.0).by_penalty[-1] > 0.99


def test_left_out_accuracy_of_pure_noise_is_chance():
    # Balanced classes in isotropic noise: centring with the left-out row would tell its class.
    right = []
    for seed in range(30):
        _, outputs, rows, scores = problem(20, 400, 1, 10, True, seed)
        left_out = Posterior(rows, outputs, scores, penalties(rows.scale)).averaged().left_out
        right.append(np.mean(left_out.argmax(axis=1) == outputs.argmax(axis=1)))
    assert np.mean(right) < 0.1 + 3 * np.sqrt(0.09 / 600)
