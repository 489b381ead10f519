"""A scikit-learn classifier that chooses α (and γ) on the training sample: :class:`AlphaRidgeClassifier`.

Needs scikit-learn (``pip install "rescale-and-adapt[learn]"``); ``import rmt`` does not import it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt.choosing.direction import ALONE, Direction, scales
from rmt.choosing.leave_one_out import moment_direction
from rmt.choosing.moments import shrinkage
from rmt.choosing.plug_in import PlugIn
from rmt.choosing.posterior import Expected, NoiseModel, Posterior
from rmt.choosing.ridge_path import RidgePath, penalty_grid
from rmt.choosing.source_input import check_features, read_sources

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, clone
    from sklearn.frozen import FrozenEstimator
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rmt.AlphaRidgeClassifier needs scikit-learn; pip install 'rescale-and-adapt[learn]'", name=error.name
    ) from None

_METHODS = ("auto", "plugin", "loo")
_COVARIANCES = ("ledoit-wolf", "empirical", "identity")


@dataclass(frozen=True)
class AlphaPath:
    """The best classifier at each penalty, before the choice among them."""

    gamma: FloatArray  #: (G,) penalties, inf last
    alpha: FloatArray  #: (G, K) best scales at each; at γ = ∞ the weights beside the mean difference
    accuracy: FloatArray  #: (G,) predicted accuracy of each


@dataclass(frozen=True)
class _Choice:
    """One binary problem solved: score(x) = wᵀx in the coordinates of its rows."""

    weights: FloatArray
    gamma: float
    alpha: FloatArray
    scale: float
    expected: Expected | None
    path: AlphaPath
    left_out: FloatArray  #: (n,) signed scores of the training rows by the fits without them
    rows: RidgePath


class AlphaRidgeClassifier(ClassifierMixin, BaseEstimator):
    """Ridge fine-tuning of α times a source, with α and γ chosen on the training sample.

    Binary labels are coded y = ±1 (+1 for ``classes_[1]``) and u = yx. With S the second moment of the u_i and ū
    their mean (theory.md §0)::

        w = (S+γ)⁻¹(ū + γ Σ_k α_k w̃_k),     γ = inf:  w = ū + Σ_k α_k w̃_k

    More than two classes are fitted one against the rest. ``fit`` costs one eigendecomposition of size min(n, p).

    Args:
        source: what was learned elsewhere. ``None`` (target-only); an array (p,), or (n_classes, p) for more than two
            classes; a fitted linear classifier wrapped in :class:`sklearn.frozen.FrozenEstimator` (unwrapped, cloning
            in pipelines and searches would unfit it), whose intercept is used too; or a list of K of these.
        alpha: ``"auto"``, one number for every source, or K numbers.
        gamma: ``"auto"`` (16 penalties from .01 to 1000 mean eigenvalues, and infinity), a positive number, or inf.
        method: how "auto" is decided. ``"auto"``: by the accuracy expected under the posterior, see
            :mod:`rmt.choosing.posterior`; it knows its own uncertainty and stays near the source when n is small.
            ``"plugin"``: theory with estimated moments (:mod:`rmt.choosing.plug_in`); ``"loo"``: leave-one-out moments
            (:mod:`rmt.choosing.leave_one_out`).
        covariance: model of the noise of u: ``"ledoit-wolf"``, ``"empirical"``, ``"identity"``, a (p, p) matrix, or a
            scikit-learn covariance estimator (fitted to the centred u_i, or frozen: used as it is). With ``intercept``,
            matrices and frozen estimators have p + 1 rows, the constant last, so give ``intercept=False`` with them.
        intercept: centre the features by the training mean and add a constant feature of typical size to x; the
            source enters with its own intercept. ``False``: the setting of the theory, classes at ±m.
        caution: standard errors by which the gain over the untouched source must be sure (method "auto"). 1 loses
            almost nothing to the source where it is good; with 0 a useless source is dropped sooner.
        confidence: probability of ``predicted_accuracy_interval_``.

    Attributes:
        classes_, n_features_in_: as in scikit-learn.
        coef_, intercept_: (1 or n_classes, p) weights w and (1 or n_classes,) intercepts.
        alpha_: (K,) scales, (n_classes, K) for more than two classes. 1e6 in size stands for the source alone.
        gamma_: penalty, (n_classes,) for more than two classes.
        alpha_path_: :class:`AlphaPath`, a list of them for more than two classes.
        predicted_accuracy_: expected accuracy on new data, from the training sample alone. For more than two classes
            it is the share of training rows classified rightly by the fits without them.
        predicted_accuracy_interval_: (low, high).

    Examples:
        >>> import numpy as np, rmt
        >>> rng = np.random.default_rng(0)
        >>> y = rng.choice([-1, 1], size=40)
        >>> X = y[:, None] * np.r_[1.0, np.zeros(99)] + rng.standard_normal((40, 100))
        >>> source = np.r_[1.0, np.ones(9), np.zeros(90)]
        >>> model = rmt.AlphaRidgeClassifier(source=source, intercept=False).fit(X, y)
        >>> bool(0.6 < model.predicted_accuracy_ < 0.9)
        True
    """

    def __init__(
        self,
        source: Any = None,
        *,
        alpha: Any = "auto",
        gamma: Any = "auto",
        method: str = "auto",
        covariance: Any = "ledoit-wolf",
        intercept: bool = True,
        caution: float = 1.0,
        confidence: float = 0.95,
    ) -> None:
        self.source = source
        self.alpha = alpha
        self.gamma = gamma
        self.method = method
        self.covariance = covariance
        self.intercept = intercept
        self.caution = caution
        self.confidence = confidence

    def fit(self, X: Any, y: Any) -> AlphaRidgeClassifier:
        """Choose (α, γ) and fit.

        Args:
            X: (n, p) dense finite features. y: (n,) labels of at least two classes.

        Raises:
            ValueError: a parameter, the data or a source is not usable; the message says what to do.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]!r}); the classifier needs at least 2 classes")
        problems = 1 if count == 2 else count
        coefficients, offsets = read_sources(self.source, self.classes_, X.shape[1])

        centre = X.mean(axis=0) if self.intercept else np.zeros(X.shape[1])
        X = X - centre
        check_features(X)
        constant = np.sqrt(np.mean(X**2)) if self.intercept else 0.0  # a feature of typical size
        constant = constant if constant > 0 or not self.intercept else 1.0
        choices = []
        for k in range(problems):
            sign = np.where(index == (1 if problems == 1 else k), 1.0, -1.0)
            rows, sources = sign[:, None] * X, coefficients[k]
            if self.intercept:
                rows = np.column_stack([rows, sign * constant])
                sources = np.vstack([sources, (centre @ sources + offsets[k]) / constant])
            choices.append(self._choose(rows, sources))

        signs = np.where(index[:, None] == np.arange(problems), 1.0, -1.0)  # of the one-against-the-rest problems
        if problems > 1:
            choices = self._keep_better_source(choices, signs)
        weights = np.array([choice.weights for choice in choices])  # (problems, p or p+1)
        self.coef_ = weights[:, : X.shape[1]]
        shift = constant * weights[:, -1] if self.intercept else 0.0
        self.intercept_ = shift - self.coef_ @ centre
        self._scale = _comparable(choices)
        self._collect(choices, signs)
        return self

    def decision_function(self, X: Any) -> FloatArray:
        """Scores (n,), or (n, n_classes): x·coef_ + intercept_ times a positive factor that makes classes comparable.

        The factor is 1/(mean of α) where every α is positive, so that the source's scores keep their relative sizes
        and the untouched source decides as it did; otherwise that of the best least-squares predictor of y = ±1,
        mean/(mean² + variance) as expected after training.
        """
        check_is_fitted(self, "coef_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        scores = (X @ self.coef_.T + self.intercept_) * self._scale
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> Any:
        """The class of each row, (n,)."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return self.classes_[(scores > 0).astype(int)]
        return self.classes_[scores.argmax(axis=1)]

    def _check_parameters(self) -> None:
        _checks.one_of("method", self.method, _METHODS)
        if isinstance(self.covariance, str):
            _checks.one_of("covariance", self.covariance, _COVARIANCES)
        for name in ("alpha", "gamma"):
            value = getattr(self, name)
            if isinstance(value, str) and value != "auto":
                raise ValueError(f'{name} must be "auto" or a number, got {value!r}')
        if not isinstance(self.gamma, str) and not (isinstance(self.gamma, Real) and float(self.gamma) > 0):
            raise ValueError(f'gamma must be "auto", a positive number or inf, got {_checks.shown(self.gamma)}')
        _checks.at_least("caution", self.caution, 0.0)
        _checks.flag("intercept", self.intercept)
        if not isinstance(self.confidence, Real) or not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie strictly between 0 and 1, got {self.confidence!r}")

    def _noise(self, rows: FloatArray) -> NoiseModel:
        if isinstance(self.covariance, str):
            weight = {"ledoit-wolf": None, "empirical": 0.0, "identity": 1.0}[self.covariance]
            return NoiseModel(weight=weight)
        matrix = self.covariance
        if hasattr(matrix, "fit"):
            matrix = matrix if isinstance(matrix, FrozenEstimator) else clone(matrix).fit(rows - rows.mean(axis=0))
            matrix = matrix.covariance_
        matrix = _checks.finite("covariance", matrix)
        if matrix.shape != (rows.shape[1],) * 2:
            hint = "; give intercept=False with it" if self.intercept else ""
            raise ValueError(
                f"covariance must be ({rows.shape[1]}, {rows.shape[1]}) like the rows, got {matrix.shape}{hint}"
            )
        return NoiseModel(covariance=matrix)

    def _choose(self, rows: FloatArray, sources: FloatArray) -> _Choice:
        """Solve one binary problem with rows u_i (n, p) and sources (p, K)."""
        path = RidgePath(rows, sources)
        gammas = penalty_grid(path.scale) if isinstance(self.gamma, str) else np.array([float(self.gamma)])
        fixed = self._fixed_direction(sources.shape[1])
        noise = self._noise(rows)
        posterior = self._posterior(path, gammas, noise)
        if posterior is None:
            return self._fallback(path, gammas, fixed)
        if fixed is not None:
            candidates = [Direction(fixed, posterior.expect(g, fixed).merit) for g in range(len(gammas))]
        elif self.method == "auto":
            candidates = [Direction(expected.q, expected.merit) for expected in posterior.choose()]
        elif self.method == "loo":
            candidates = [moment_direction(path, gamma) for gamma in gammas]
        else:
            weight = shrinkage(rows) if noise.weight is None else noise.weight
            plug_in = PlugIn(rows, sources, weight if noise.covariance is None else noise.covariance)
            candidates = [plug_in.direction(gamma) for gamma in gammas]
        best = int(np.argmax([candidate.snr for candidate in candidates]))
        expected = [posterior.expect(g, one.q, self.confidence) for g, one in enumerate(candidates)]
        return self._fitted(path, gammas, [one.q for one in candidates], expected, best)

    def _fitted(
        self, path: RidgePath, gammas: FloatArray, q: list[FloatArray], expected: list[Expected], best: int
    ) -> _Choice:
        alphas = np.array([scales(one) for one in q])  # (G, K)
        gamma, alpha, chosen = float(gammas[best]), alphas[best], expected[best]
        combination = np.append(1.0, alpha)
        # The chosen q may be any positive multiple of (1, α); bring its moments to that scale.
        factor = np.linalg.norm(combination) / max(float(np.linalg.norm(chosen.q)), np.finfo(float).tiny)
        mean, variance = factor * chosen.mean, factor**2 * chosen.variance
        floor = 1e-6 * np.sqrt(variance) if variance > 0 else 1.0  # keeps the sign of a score below chance
        scale = max(mean, floor) / max(mean**2 + variance, floor**2)
        return _Choice(
            weights=path.weights(gamma) @ combination,
            gamma=gamma,
            alpha=alpha,
            scale=float(scale),
            expected=chosen,
            path=AlphaPath(gammas, alphas, np.array([one.accuracy for one in expected])),
            left_out=path.loo_scores(gamma) @ combination,
            rows=path,
        )

    def _posterior(self, path: RidgePath, gammas: FloatArray, noise: NoiseModel) -> Posterior | None:
        """The posterior, or None (with a warning) where the rows cannot show their own noise."""
        try:
            return Posterior(path, list(gammas), noise, caution=self.caution)
        except ValueError as reason:
            warnings.warn(
                f"accuracy cannot be predicted: {reason}. "
                + ("The source is used untouched." if path.sources.shape[1] else "The mean difference is used."),
                UserWarning,
                stacklevel=5,
            )
            return None

    def _fallback(self, path: RidgePath, gammas: FloatArray, fixed: FloatArray | None) -> _Choice:
        """The untouched sources, each direction weighted alike; without sources the mean difference; or the given α."""
        gamma = float(gammas[-1])
        if fixed is None:
            norms = np.linalg.norm(path.sources, axis=0)
            fixed = np.append(0.0 if len(norms) else 1.0, 1.0 / norms)
        alpha = scales(fixed)
        combination = np.append(1.0, alpha)
        weights = path.weights(gamma) @ combination
        size = float(np.linalg.norm(weights)) or 1.0
        unknown = AlphaPath(np.array([gamma]), alpha[None], np.array([np.nan]))
        return _Choice(weights, gamma, alpha, 1.0 / size, None, unknown, np.full(path.n, np.nan), path)

    def _fixed_direction(self, K: int) -> FloatArray | None:
        """(1, α) when α is given."""
        if isinstance(self.alpha, str):
            return None
        alpha = _checks.finite("alpha", self.alpha)
        if alpha.ndim > 1 or (alpha.ndim == 1 and alpha.shape != (K,)):
            raise ValueError(f"alpha must be one number or one for each of the {K} sources, got shape {alpha.shape}")
        return np.append(1.0, np.broadcast_to(alpha, (K,)))

    def _keep_better_source(self, choices: list[_Choice], signs: FloatArray) -> list[_Choice]:
        """The choices for many classes, or an untouched source that decides at least as well.

        One problem may gain by leaving the source while the decision among all classes, which compares their scores,
        loses. The source has not seen the rows, so its share of right decisions stands beside the left-out share of
        the choices.
        """
        K = choices[0].rows.sources.shape[1]
        if not K or not isinstance(self.alpha, str):
            return choices
        right = [
            _right(signs * np.column_stack([one.rows.source_scores[:, k] for one in choices]), signs) for k in range(K)
        ]
        left_out = np.column_stack([choice.left_out for choice in choices])
        k = int(np.argmax(right))
        if right[k] < _right(signs * _comparable(choices) * left_out, signs):
            return choices
        alone = ALONE * np.eye(K)[k]
        return [
            replace(
                one,
                weights=ALONE * one.rows.sources[:, k],
                gamma=np.inf,
                alpha=alone,
                left_out=ALONE * one.rows.source_scores[:, k],
            )
            for one in choices
        ]

    def _collect(self, choices: list[_Choice], signs: FloatArray) -> None:
        """Set the attributes that describe the choice."""
        binary = len(choices) == 1
        self.alpha_ = choices[0].alpha if binary else np.array([choice.alpha for choice in choices])
        self.gamma_ = choices[0].gamma if binary else np.array([choice.gamma for choice in choices])
        self.alpha_path_ = choices[0].path if binary else [choice.path for choice in choices]
        if any(choice.expected is None for choice in choices):
            self.predicted_accuracy_, self.predicted_accuracy_interval_ = float("nan"), (0.0, 1.0)
        elif binary:
            expected = choices[0].expected
            assert expected is not None
            self.predicted_accuracy_, self.predicted_accuracy_interval_ = expected.accuracy, expected.interval
        else:
            scores = signs * self._scale * np.column_stack([choice.left_out for choice in choices])
            right = _right(scores, signs)
            self.predicted_accuracy_ = right / len(signs)
            self.predicted_accuracy_interval_ = _wilson(right, len(signs), self.confidence)


def _right(scores: FloatArray, signs: FloatArray) -> int:
    """Rows (n, classes) whose largest score is that of their class (sign +1)."""
    return int(np.sum(scores.argmax(axis=1) == signs.argmax(axis=1)))


def _comparable(choices: list[_Choice]) -> FloatArray:
    """(problems,) positive factors that make the scores of one-against-the-rest problems comparable."""
    alphas = np.array([choice.alpha for choice in choices])  # (problems, K)
    if alphas.size and (alphas > 0).all():
        return 1.0 / alphas.mean(axis=1)
    return np.array([choice.scale for choice in choices])


def _wilson(right: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's interval for a proportion."""
    from scipy.special import ndtri

    z2 = float(ndtri(0.5 + level / 2.0)) ** 2
    share = right / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2) / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))
