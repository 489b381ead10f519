from __future__ import annotations

import numpy as np
import pytest

from rmt.choosing.posterior import PRIOR_MEAN, PRIOR_VARIANCE, Posterior, penalties


@pytest.mark.parametrize(("n", "p", "centred"), [(12, 30, True), (30, 12, True), (12, 30, False), (30, 12, False)])
def test_evidence_and_left_out_scores_against_dense_algebra(n, p, centred):
    rng = np.random.default_rng(n)
    X, y, source = rng.standard_normal((n, p)), np.sign(rng.standard_normal(n)), rng.standard_normal(p)
    mean, middle = (X.mean(axis=0), y.mean()) if centred else (0.0, 0.0)
    Xc, yc = X - mean, y - middle
    posterior = Posterior(Xc, yc[:, None], source[None, None], centred=centred)
    s = Xc @ source
    s = s / np.sqrt(np.mean(s**2))
    # The same evidence from the covariance of y itself, α integrated out.
    values = []
    for gamma in (0.3, 5.0):
        cover = np.eye(n) + Xc @ Xc.T / (n * gamma) + PRIOR_VARIANCE * np.outer(s, s)
        e = yc - PRIOR_MEAN * s
        dense = -0.5 * np.linalg.slogdet(cover)[1] - 0.5 * (n - centred) * np.log(e @ np.linalg.solve(cover, e))
        values.append(posterior.weigh(gamma)[0] - dense)
    assert values[0] == pytest.approx(values[1])
    # Left-out scores from refits without the row, the penalty kept at nγ; α fixed.
    gamma, alpha = 0.7, np.array([0.4])
    found = posterior.left_out(gamma, alpha)[:, 0]
    for i in range(3):
        rest = np.arange(n) != i
        target = y - alpha[0] * s
        Z, t = X[rest], target[rest]
        shift, level = (Z.mean(axis=0), t.mean()) if centred else (0.0, 0.0)
        w = np.linalg.solve((Z - shift).T @ (Z - shift) + n * gamma * np.eye(p), (Z - shift).T @ (t - level))
        assert found[i] == pytest.approx(Xc[i] @ w + alpha[0] * s[i])


def test_a_good_source_is_kept_and_a_useless_one_is_left():
    rng = np.random.default_rng(0)
    n, p = 60, 200
    m = np.r_[1.5, np.zeros(p - 1)]
    y = np.tile([-1.0, 1.0], n // 2)
    X = y[:, None] * m + rng.standard_normal((n, p))
    good = Posterior(X, y[:, None], m[None, None], centred=False)
    useless = Posterior(X, y[:, None], rng.standard_normal((1, 1, p)), centred=False)
    grid = penalties(good.scale)
    assert good.weigh(grid[-2])[1][0] > 0.5
    assert abs(useless.weigh(grid[-2])[1][0]) < 0.3
    assert good.probabilities(grid)[-1] > useless.probabilities(grid)[-1]
    assert good.probabilities(grid, caution=500.0)[-1] > 0.99
