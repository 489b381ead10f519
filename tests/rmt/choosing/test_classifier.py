from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.covariance import OAS
from sklearn.datasets import load_iris, make_blobs
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import rmt

P = 100


def task(n, seed=0, beta=0.8):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.5, -1, 1)
    y[:2] = -1, 1
    m = np.r_[1.2 * beta, 1.2 * np.sqrt(1 - beta**2), np.zeros(P - 2)]
    return y[:, None] * m + rng.standard_normal((n, P)), y


SOURCE = np.r_[0.4, 0.0, 0.05 * np.ones(P - 2)]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_it():
    from sklearn.utils.estimator_checks import check_estimator

    check_estimator(rmt.AlphaRidgeClassifier())


@pytest.mark.parametrize("alpha", [0.0, 1.7])
def test_fixed_values_give_the_textbook_weights(alpha):
    X, y = task(40)
    model = rmt.AlphaRidgeClassifier(source=SOURCE, alpha=alpha, gamma=0.5, intercept=False).fit(X, y)
    S, mean = X.T @ X / 40, X.T @ y / 40
    np.testing.assert_allclose(model.coef_[0], np.linalg.solve(S + 0.5 * np.eye(P), mean + 0.5 * alpha * SOURCE))
    limit = rmt.AlphaRidgeClassifier(source=SOURCE, alpha=alpha, gamma=np.inf, intercept=False).fit(X, y)
    np.testing.assert_allclose(limit.coef_[0], mean + alpha * SOURCE)
    assert (model.predict(X) == np.where(X @ model.coef_[0] > 0, 1, -1)).all()


@pytest.mark.parametrize("method", ["auto", "plugin", "loo"])
@pytest.mark.parametrize("intercept", [False, True])
def test_every_method_beats_its_parts_on_a_clear_task(method, intercept):
    X, y = task(150)
    Xt, yt = task(4000, seed=1)
    model = rmt.AlphaRidgeClassifier(source=SOURCE, method=method, intercept=intercept).fit(X, y)
    alone = np.mean((Xt @ SOURCE > 0) == (yt > 0))
    target = rmt.AlphaRidgeClassifier(method=method, intercept=intercept).fit(X, y).score(Xt, yt)
    real = model.score(Xt, yt)
    assert real > max(alone, target) - 0.005
    assert model.predicted_accuracy_ == pytest.approx(real, abs=0.06)
    low, high = model.predicted_accuracy_interval_
    assert low < model.predicted_accuracy_ < high
    assert model.alpha_path_.alpha.shape == (17, 1)
    assert model.gamma_ in model.alpha_path_.gamma


@pytest.mark.parametrize("covariance", ["empirical", "identity", OAS(), np.eye(P), FrozenEstimator(OAS())])
def test_covariances(covariance):
    X, y = task(60)
    if isinstance(covariance, FrozenEstimator):
        covariance.estimator.fit(X - np.outer(y, y @ X / 60))
    for method in ("auto", "plugin"):
        model = rmt.AlphaRidgeClassifier(source=SOURCE, covariance=covariance, method=method, intercept=False)
        # The empirical covariance is singular here, and the plug-in rule believes it.
        assert model.fit(X, y).score(*task(2000, seed=1)) > (0.6 if method == "plugin" else 0.7)


def test_labels_and_feature_offsets():
    X, y = task(80)
    plain = rmt.AlphaRidgeClassifier(source=FrozenEstimator(RidgeClassifier().fit(*task(400, seed=3)))).fit(X, y)
    named = rmt.AlphaRidgeClassifier(source=SOURCE).fit(X + 50.0, np.where(y > 0, "yes", "no"))
    assert set(named.predict(X + 50.0)) <= {"yes", "no"}
    assert named.score(X + 50.0, np.where(y > 0, "yes", "no")) > 0.8
    assert plain.score(*task(2000, seed=1)) > 0.8


def test_a_fitted_source_brings_its_intercept():
    X, y = task(2000, seed=2)
    shifted = 3.0 * np.eye(P)[0]
    source = LogisticRegression().fit(X + shifted, y)
    few, labels = task(6, seed=5)
    model = rmt.AlphaRidgeClassifier(source=FrozenEstimator(source), caution=20.0).fit(few + shifted, labels)
    Xt, yt = task(2000, seed=1)
    assert model.score(Xt + shifted, yt) == pytest.approx(source.score(Xt + shifted, yt), abs=0.02)


def test_many_classes():
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(150)
    train, test = order[:40], order[40:]
    source = LogisticRegression(max_iter=500).fit(X[order[:60]], y[order[:60]])
    model = make_pipeline(StandardScaler(), rmt.AlphaRidgeClassifier())
    assert model.fit(X[train], y[train]).score(X[test], y[test]) > 0.75
    model = rmt.AlphaRidgeClassifier(source=FrozenEstimator(source)).fit(X[train], y[train])
    assert model.score(X[test], y[test]) > 0.85
    assert model.alpha_.shape == (3, 1)
    assert model.gamma_.shape == (3,)
    assert abs(model.predicted_accuracy_ - model.score(X[test], y[test])) < 0.15
    assert model.decision_function(X).shape == (150, 3)


def test_several_sources():
    X, y = task(60)
    model = rmt.AlphaRidgeClassifier(source=[SOURCE, np.eye(P)[1]], intercept=False).fit(X, y)
    assert model.alpha_.shape == (2,)
    fixed = rmt.AlphaRidgeClassifier(source=[SOURCE, np.eye(P)[1]], alpha=[1.0, 0.5], gamma=1.0).fit(X, y)
    np.testing.assert_allclose(fixed.alpha_, [1.0, 0.5])


def test_pipeline_and_grid_search_keep_the_source():
    X, y = task(60)
    source = FrozenEstimator(RidgeClassifier().fit(*task(400, seed=3)))
    pipeline = make_pipeline(StandardScaler(), rmt.AlphaRidgeClassifier(source=source))
    search = GridSearchCV(pipeline, {"alpharidgeclassifier__gamma": [0.1, 1.0, "auto"]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.7


def test_wide_data():
    rng = np.random.default_rng(0)
    y = np.tile([-1, 1], 15)
    X = rng.standard_normal((30, 20_000)) + 0.02 * y[:, None]
    model = rmt.AlphaRidgeClassifier(source=np.ones(20_000), intercept=False).fit(X, y)
    assert model.coef_.shape == (1, 20_000)
    assert model.score(X, y) > 0.9


def test_too_few_rows_fall_back_with_a_warning():
    X, y = task(2)
    with pytest.warns(UserWarning, match="at least 3 rows.*source is used untouched"):
        model = rmt.AlphaRidgeClassifier(source=SOURCE, intercept=False).fit(X, y)
    cosine = model.coef_[0] @ SOURCE / np.linalg.norm(model.coef_) / np.linalg.norm(SOURCE)
    assert cosine == pytest.approx(1.0)
    assert np.isnan(model.predicted_accuracy_)
    with pytest.warns(UserWarning, match="mean difference"):
        rmt.AlphaRidgeClassifier(intercept=False).fit(X, y)
    with pytest.warns(UserWarning, match="do not vary"):
        rmt.AlphaRidgeClassifier(source=SOURCE, intercept=False).fit(np.outer([1, -1, 1, -1], X[0]), [1, -1, 1, -1])


def test_constant_features_and_few_dimensions():
    X, y = make_blobs(60, 2, centers=2, random_state=0)
    X = np.column_stack([X, np.ones(60), np.zeros(60)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rmt.AlphaRidgeClassifier().fit(X, y).score(X, y) > 0.9


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "guess"}, "method must be one of"),
        ({"covariance": "diagonal"}, "covariance must be one of"),
        ({"covariance": np.eye(3)}, "covariance must be"),
        ({"alpha": "best"}, 'alpha must be "auto" or a number'),
        ({"alpha": [1.0, 2.0]}, "one for each of the 1 sources"),
        ({"gamma": 0.0}, "gamma must be"),
        ({"gamma": [1.0]}, "gamma must be"),
        ({"caution": -1.0}, "caution must be ≥ 0"),
        ({"confidence": 1.0}, "confidence must lie"),
        ({"source": np.ones(3)}, "source must have shape"),
        ({"source": np.zeros(P)}, "source is zero"),
        ({"source": np.full(P, np.nan)}, "source must not contain NaN"),
        ({"source": RidgeClassifier()}, "not fitted .*FrozenEstimator"),
        ({"source": FrozenEstimator(StandardScaler())}, "no coef_"),
    ],
)
def test_refusals_say_what_to_do(parameters, message):
    X, y = task(20)
    with pytest.raises(ValueError, match=message):
        rmt.AlphaRidgeClassifier(**{"source": SOURCE, **parameters}).fit(X, y)


def test_data_refusals():
    X, y = task(20)
    with pytest.raises(ValueError, match="one class only"):
        rmt.AlphaRidgeClassifier().fit(X, np.ones(20))
    with pytest.raises(ValueError, match="NaN"):
        rmt.AlphaRidgeClassifier().fit(np.where(X > 2, np.nan, X), y)
    with pytest.raises(ValueError, match="3 classes"):
        three = LogisticRegression().fit(X, np.arange(20) % 3)
        rmt.AlphaRidgeClassifier(source=FrozenEstimator(three)).fit(X, y)


def test_missing_scikit_learn_is_explained():
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.base'] = None\n"
        "import rmt\ntry:\n    rmt.AlphaRidgeClassifier\nexcept ModuleNotFoundError as e:\n    print(e)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "rescale-and-adapt[learn]" in out.stdout, out.stderr
