"""A scikit-learn classifier that chooses α (and γ) on the training sample: :class:`AlphaRidgeClassifier`.

Needs scikit-learn (``pip install "rescale-and-adapt[learn]"``); ``import rmt`` does not import it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt.choosing.direction import scales
from rmt.choosing.expected import UNKNOWN, expected_accuracy, margins
from rmt.choosing.leave_one_out import moment_direction
from rmt.choosing.moments import dimension, free_shrinkage
from rmt.choosing.plug_in import PlugIn
from rmt.choosing.posterior import Posterior, Rows, Scores, penalties
from rmt.choosing.ridge_path import RidgePath
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
    """The classifiers of each penalty, from which the fitted one is averaged or chosen."""

    gamma: FloatArray  #: (G,) penalties; inf, the source alone, last
    alpha: FloatArray  #: (G, K) scales at each
    accuracy: FloatArray  #: (G,) predicted accuracy of each


@dataclass(frozen=True)
class _Fit:
    """One classifier for some outputs."""

    gamma: Any  #: penalty, one or (M,)
    alpha: FloatArray  #: (K,) or (M, K) scales of the sources as given, ±inf for the source alone
    weights: FloatArray  #: (M, p)
    level: FloatArray  #: (M,) scores at the centre of the rows
    left_out: FloatArray  #: (n, M) scores of the rows under fits without them


class _Step(NamedTuple):
    """What a path says of one penalty."""

    gamma: float
    alpha: FloatArray  #: (K,)
    left_out: FloatArray  #: (n, M)


class AlphaRidgeClassifier(ClassifierMixin, BaseEstimator):
    """Ridge fine-tuning of α times a source, with α and γ chosen on the training sample.

    Binary labels are coded y = ±1 (+1 for ``classes_[1]``) and u = yx. With S the second moment of the u_i and ū
    their mean (theory.md §0)::

        w = (S+γ)⁻¹(ū + γ Σ_k α_k w̃_k),     γ = inf:  w = ū + Σ_k α_k w̃_k,     α = ±inf:  w = ±Σ w̃_k (the source alone)

    Neither γ nor α is picked: the weights are the mean of such w over the posterior of γ
    (:mod:`rmt.choosing.posterior`), unless both are given. More than two classes have one w each, all of the same α
    and γ. ``fit`` costs one eigendecomposition of size min(n, p), whatever the number of classes and penalties.

    What is fitted and predicted is unchanged, to rounding, by the unit of the features, the size of a source,
    rotations, and features that are zero: it comes from inner products alone.

    Args:
        source: what was learned elsewhere. ``None`` (target-only); an array (p,), or (n_classes, p) for more than two
            classes; a fitted linear classifier wrapped in :class:`sklearn.frozen.FrozenEstimator` (unwrapped, cloning
            in pipelines and searches would unfit it), whose intercept is used too and whose classes are matched by
            label; or a list of K of these.
        alpha: ``"auto"``, one number for every source, K numbers, or inf: the sources alone.
        gamma: ``"auto"`` (16 penalties and infinity), a positive number, or inf.
        method: how "auto" is decided. ``"auto"``: averaged by the evidence for each γ. ``"plugin"``: theory with
            estimated moments (:mod:`rmt.choosing.plug_in`); ``"loo"``: leave-one-out moments
            (:mod:`rmt.choosing.leave_one_out`); these two pick one (γ, α), for each of several classes apart, and
            their predicted accuracy does not account for the choice.
        covariance: noise of u for the method "plugin" (the others need none): ``"ledoit-wolf"``, ``"empirical"``,
            ``"identity"``, a (p, p) matrix, or a scikit-learn covariance estimator (fitted to the centred u_i, or
            frozen: used as it is).
        intercept: centre the features by the training mean and fit a threshold, drawn towards the source's own (0 for
            an array) as far as the evidence for that goes. ``False``: the setting of the theory, classes at ±m.
        caution: how much the prior distrusts what the source does not see: log-odds a factor e of tr S/γ. 0 lets the
            sample decide; a large number keeps the source.
        confidence: probability of ``predicted_accuracy_interval_``.

    Attributes:
        classes_, n_features_in_: as in scikit-learn.
        coef_, intercept_: (1 or n_classes, p) weights w and (1 or n_classes,) intercepts.
        alpha_: (K,) scales of the sources as given, (n_classes, K) for more than two classes: the posterior mean,
            or the one chosen or given. ±inf is the source alone (asked for, or chosen by "loo" or "plugin").
        gamma_: penalty, (n_classes,) for more than two classes: the posterior median, or the one chosen or given.
        alpha_path_: :class:`AlphaPath`, a list of them for more than two classes.
        predicted_accuracy_: expected accuracy on new data, from the training sample alone
            (:mod:`rmt.choosing.expected`).
        predicted_accuracy_interval_: (low, high).

    Examples:
        >>> import numpy as np, rmt
        >>> rng = np.random.default_rng(0)
        >>> y = rng.choice([-1, 1], size=40)
        >>> X = y[:, None] * np.r_[1.0, np.zeros(99)] + rng.standard_normal((40, 100))
        >>> source = np.r_[1.0, np.ones(9), np.zeros(90)]
        >>> model = rmt.AlphaRidgeClassifier(source=source, intercept=False).fit(X, y)
        >>> low, high = model.predicted_accuracy_interval_
        >>> bool(low < model.predicted_accuracy_ < high)
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
        caution: float = 0.0,
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
        outputs = np.where(index == 1, 1.0, -1.0)[:, None]
        if count > 2:  # columns that sum to 0: what all classes have in common decides nothing
            outputs = 2.0 * ((index[:, None] == np.arange(count)) - 1.0 / count)
        coefficients, offsets = read_sources(self.source, self.classes_, X.shape[1])  # (M, p, K), (M, K)
        sources = np.ascontiguousarray(np.moveaxis(coefficients, -1, 0))  # (K, M, p)
        fixed = self._fixed_alpha(len(sources))
        if isinstance(self.covariance, np.ndarray) and self.covariance.shape != (X.shape[1],) * 2:
            raise ValueError(
                f"covariance must be ({X.shape[1]}, {X.shape[1]}) like the features, got {self.covariance.shape}"
            )

        check_features(X - X.mean(axis=0) if self.intercept else X)
        rows = Rows(X, centred=bool(self.intercept))
        scores = Scores(rows, sources, offsets.T * bool(self.intercept))
        reason = _unusable(rows.X, index if self.intercept or count > 2 else None, outputs)
        if reason:
            best = self._fallback(rows, outputs, scores, fixed, reason)
            path: list[_Fit] | list[_Step] = [best]
        else:
            best, path = self._choose(rows, outputs, scores, fixed)
        self.coef_ = best.weights
        self.intercept_ = best.level - best.weights @ rows.centre if self.intercept else 0.0 * best.level

        def law(fit: _Fit | _Step) -> tuple[float, tuple[float, float]]:
            return UNKNOWN if reason else expected_accuracy(margins(fit.left_out, index), self.confidence)

        self.predicted_accuracy_, self.predicted_accuracy_interval_ = law(best)
        accuracy = np.array([law(one)[0] for one in path])

        def steps(m: int) -> AlphaPath:
            gamma = np.array([np.broadcast_to(one.gamma, (count,))[m] for one in path], dtype=float)
            return AlphaPath(
                gamma, np.array([one.alpha[m] if one.alpha.ndim > 1 else one.alpha for one in path]), accuracy
            )

        self.gamma_: Any
        self.alpha_path_: Any
        if count == 2:
            self.alpha_, self.gamma_, self.alpha_path_ = np.ravel(best.alpha), float(np.ravel(best.gamma)[0]), steps(0)
        else:
            self.alpha_ = np.broadcast_to(best.alpha, (count, len(sources))).copy()
            self.gamma_ = np.broadcast_to(np.asarray(best.gamma, dtype=float), (count,)).copy()
            self.alpha_path_ = [steps(m) for m in range(count)]
        return self

    def decision_function(self, X: Any) -> FloatArray:
        """Scores (n,), or (n, n_classes): x·coef_ + intercept_."""
        check_is_fitted(self, "coef_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        scores = X @ self.coef_.T + self.intercept_
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

    def _fixed_alpha(self, K: int) -> FloatArray | None:
        """(K,) α when it is given; all of it infinite for the sources alone."""
        if isinstance(self.alpha, str):
            return None
        alone = not isinstance(self.alpha, Real | bool) or not np.isinf(float(self.alpha))
        if not alone:
            if not K:
                raise ValueError("alpha = inf stands for the source alone, and no source is given; pass source")
            return np.full(K, float(self.alpha))
        alpha = _checks.finite("alpha", self.alpha)
        if alpha.ndim > 1 or (alpha.ndim == 1 and alpha.shape != (K,)):
            raise ValueError(f"alpha must be one number or one for each of the {K} sources, got shape {alpha.shape}")
        return np.broadcast_to(alpha, (K,)).astype(float)

    def _choose(
        self, rows: Rows, outputs: FloatArray, scores: Scores, fixed: FloatArray | None
    ) -> tuple[_Fit, list[_Fit] | list[_Step]]:
        """The classifier, and those along the penalties."""
        automatic = isinstance(self.gamma, str)
        if fixed is not None and np.isinf(fixed).any():
            alone = _alone(scores, outputs, np.sign(fixed))
            return alone, [alone]
        if fixed is None and self.method != "auto":
            return self._moments(rows, outputs, scores)
        if not automatic and np.isinf(self.gamma):
            limit = _limit(rows, outputs, scores, fixed)
            return limit, [limit]
        gammas = penalties(rows.scale) if automatic else np.array([float(self.gamma)])
        if not scores.K:
            gammas = gammas[np.isfinite(gammas)]  # no source that could stand alone
        given = None if fixed is None else fixed * scores.units
        posterior = Posterior(rows, outputs, scores, gammas, alpha=given, caution=self.caution)

        mean = posterior.averaged()
        median = float(gammas[np.searchsorted(np.cumsum(posterior.by_penalty), 0.5)])
        best = _Fit(median, mean.alpha / scores.units, mean.weights, mean.level, mean.left_out)
        path = zip(gammas, *posterior.path(), strict=True)
        return best, [_Step(float(gamma), alpha / scores.units, left_out) for gamma, alpha, left_out in path]

    def _moments(self, rows: Rows, outputs: FloatArray, scores: Scores) -> tuple[_Fit, list[_Fit]]:
        """Methods "loo" and "plugin": the best of the penalties, chosen for each class apart."""
        columns = [self._column(rows, outputs, scores, m) for m in range(outputs.shape[1])]
        if len(columns) == 1:
            fits, chosen = columns[0]
            return fits[chosen], fits
        best = [fits[chosen] for fits, chosen in columns]
        joined = _Fit(
            gamma=np.array([one.gamma for one in best]),
            alpha=np.array([one.alpha for one in best]),
            weights=np.vstack([one.weights for one in best]),
            level=np.concatenate([one.level for one in best]),
            left_out=np.column_stack([one.left_out for one in best]),
        )
        return joined, [joined]

    def _column(self, rows: Rows, outputs: FloatArray, scores: Scores, m: int) -> tuple[list[_Fit], int]:
        sign = np.where(outputs[:, m] > 0, 1.0, -1.0)
        path = RidgePath(sign[:, None] * rows.X, scores.weights[:, m].T)
        gammas = penalties(rows.scale) if isinstance(self.gamma, str) else np.array([float(self.gamma)])
        if self.method == "loo":
            directions = [moment_direction(path, gamma) for gamma in gammas]
        else:
            plug_in = self._plug_in(path.rows, path.sources)
            directions = [plug_in.direction(gamma) for gamma in gammas]
        fits = []
        for gamma, direction in zip(gammas, directions, strict=True):
            left_out = sign * (path.loo_scores(gamma) @ direction.q)
            weights = path.weights(gamma) @ direction.q
            factor, level = _calibrated(left_out, outputs[:, m], rows.centred)
            fits.append(
                _Fit(
                    gamma=float(gamma),
                    alpha=scales(direction.q) / scores.units,
                    weights=factor * weights[None],
                    level=np.array([level]),
                    left_out=(level + factor * left_out)[:, None],
                )
            )
        return fits, int(np.argmax([direction.snr for direction in directions]))

    def _plug_in(self, rows: FloatArray, sources: FloatArray) -> PlugIn:
        matrix = self.covariance
        if isinstance(matrix, str):
            weight = {"ledoit-wolf": free_shrinkage(rows), "empirical": 0.0, "identity": 1.0}[matrix]
            return PlugIn(rows, sources, weight, dimension=dimension(rows))
        if hasattr(matrix, "fit"):
            matrix = matrix if isinstance(matrix, FrozenEstimator) else clone(matrix).fit(rows - rows.mean(axis=0))
            matrix = matrix.covariance_
        return PlugIn(rows, sources, _checks.finite("covariance", matrix))

    def _fallback(self, rows: Rows, outputs: FloatArray, scores: Scores, fixed: FloatArray | None, reason: str) -> _Fit:
        """The untouched sources; without sources the mean difference; or the given α."""
        warnings.warn(
            f"accuracy cannot be predicted: {reason}. "
            + ("The source is used untouched." if scores.K else "The mean difference is used."),
            UserWarning,
            stacklevel=3,
        )
        if scores.K and (fixed is None or np.isinf(fixed).any()):
            return _alone(scores, outputs, np.ones(scores.K) if fixed is None else np.sign(fixed))
        return _limit(rows, outputs, scores, fixed)


def _calibrated(left_out: FloatArray, outputs: FloatArray, centred: bool) -> tuple[float, float]:
    """Factor and level of the least-squares prediction of the coded outputs from left-out scores; factor > 0."""
    middle = left_out.mean() if centred else 0.0
    about = left_out - middle
    square = float(about @ about)
    factor = float(about @ outputs) / square if square > 0 else 1.0
    factor = max(factor, 1e-6 / np.sqrt(square / len(about)) if square > 0 else 1.0)
    return factor, float(outputs.mean() - factor * middle) if centred else 0.0


def _alone(scores: Scores, outputs: FloatArray, sign: FloatArray) -> _Fit:
    """The sources as they are, ±1 each, with their own thresholds; of several, each counts alike."""
    alpha = sign if scores.K > 1 else sign * scores.units
    level = alpha @ scores.level
    left_out = level + np.einsum("k,knm->nm", alpha, scores.about)
    return _Fit(np.inf, sign * np.inf, np.einsum("k,kmp->mp", alpha, scores.weights), level, left_out)


def _limit(rows: Rows, outputs: FloatArray, scores: Scores, fixed: FloatArray | None) -> _Fit:
    """γ → ∞ with γα kept: the mean difference beside α times the sources, w = ū + Σ α_k w̃_k."""
    n, M = outputs.shape
    if fixed is None:
        far = 1e3 * rows.scale
        mean = Posterior(rows, outputs, scores, np.array([far])).averaged()
        alpha = far * mean.alpha
    else:
        alpha = fixed * scores.units
    coded = outputs - outputs.mean(axis=0) if rows.centred else outputs
    difference = coded.T @ rows.X / n
    own = np.einsum("ij,ij->i", rows.X, rows.X)[:, None] * coded / n
    left_out = rows.X @ difference.T - own + np.einsum("k,knm->nm", alpha, scores.about)
    level = np.zeros(M)
    for m in range(M):
        factor, one = _calibrated(left_out[:, m], outputs[:, m], rows.centred)
        level[m] = one / factor
    weights = difference + np.einsum("k,kmp->mp", alpha, scores.weights)
    return _Fit(np.inf, alpha / scores.units, weights, level, left_out + level)


def _unusable(X: FloatArray, index: Any, outputs: FloatArray) -> str:
    """Why the rows cannot show their own noise; empty where they can. Groups of one mean: classes, or signed rows."""
    if len(X) < 3:
        return f"the posterior needs at least 3 rows, got {len(X)}; collect more target samples"
    rows = outputs[:, :1] * X if index is None else X
    index = np.zeros(len(X), dtype=int) if index is None else index
    count = int(index.max()) + 1
    means = np.zeros((count, X.shape[1]))
    np.add.at(means, index, rows)
    means /= np.bincount(index, minlength=count)[:, None]
    inside = float(np.sum((rows - means[index]) ** 2))
    if not inside > 1e-20 * float(np.sum(X**2)) and len(X) > count:
        return "the rows do not vary, so their noise cannot be estimated; check for repeated samples"
    return ""
