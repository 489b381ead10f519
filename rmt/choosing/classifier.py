"""A scikit-learn classifier that chooses α (and γ) on the training sample: :class:`AlphaRidgeClassifier`.

Needs scikit-learn (``pip install "rescale-and-adapt[learn]"``); ``import rmt`` does not import it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray
from rmt.choosing.direction import scales
from rmt.choosing.expected import UNKNOWN, many_classes, two_classes
from rmt.choosing.leave_one_out import moment_direction
from rmt.choosing.moments import dimension, free_shrinkage
from rmt.choosing.plug_in import PlugIn
from rmt.choosing.posterior import Posterior, penalties
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
#: Prior variance of the source's threshold error, in units of the scores' own.
_THRESHOLD = 0.5
#: Rows that the prior of balanced classes counts for.
_BALANCE = 8.0


@dataclass(frozen=True)
class AlphaPath:
    """The best classifier at each penalty, before the choice among them."""

    gamma: FloatArray  #: (G,) penalties, inf last
    alpha: FloatArray  #: (G, K) best scales at each; ±inf: the source alone
    accuracy: FloatArray  #: (G,) predicted accuracy of each


@dataclass(frozen=True)
class _Fit:
    """One (γ, α) for some outputs: weights, and scores of the rows about their centre."""

    gamma: float
    alpha: FloatArray  #: (K,) in the source's own units, ±inf for the source alone
    carried: FloatArray  #: (K,) weight of w̃_k in ``weights``, 0 where the threshold is the target's own
    weights: FloatArray  #: (M, p)
    left_out: FloatArray  #: (n, M)


class AlphaRidgeClassifier(ClassifierMixin, BaseEstimator):
    """Ridge fine-tuning of α times a source, with α and γ chosen on the training sample.

    Binary labels are coded y = ±1 (+1 for ``classes_[1]``) and u = yx. With S the second moment of the u_i and ū
    their mean (theory.md §0)::

        w = (S+γ)⁻¹(ū + γ Σ_k α_k w̃_k),     γ = inf:  w = ū + Σ_k α_k w̃_k,     α = ±inf:  w = ±Σ w̃_k (the source alone)

    More than two classes have one such w each, all of the same α and γ (method "auto"). ``fit`` costs one
    eigendecomposition of size min(n, p), whatever the number of classes and penalties.

    The choice is unchanged, to rounding, by the unit of the features, the size of a source, rotations, and features
    that are zero: it is made from inner products alone.

    Args:
        source: what was learned elsewhere. ``None`` (target-only); an array (p,), or (n_classes, p) for more than two
            classes; a fitted linear classifier wrapped in :class:`sklearn.frozen.FrozenEstimator` (unwrapped, cloning
            in pipelines and searches would unfit it), whose intercept is used too and whose classes are matched by
            label; or a list of K of these.
        alpha: ``"auto"``, one number for every source, K numbers, or inf: the sources alone.
        gamma: ``"auto"`` (16 penalties and infinity), a positive number, or inf.
        method: how "auto" is decided. ``"auto"``: by the evidence for each γ, see :mod:`rmt.choosing.posterior`.
            ``"plugin"``: theory with estimated moments (:mod:`rmt.choosing.plug_in`); ``"loo"``: leave-one-out moments
            (:mod:`rmt.choosing.leave_one_out`); these two choose for each of several classes apart.
        covariance: noise of u for the method "plugin" (the others need none): ``"ledoit-wolf"``, ``"empirical"``,
            ``"identity"``, a (p, p) matrix, or a scikit-learn covariance estimator (fitted to the centred u_i, or
            frozen: used as it is).
        intercept: centre the features by the training mean and fit a threshold, drawn towards the source's own and
            towards balanced classes as far as the sample is small. ``False``: the setting of the theory, classes at ±m.
        caution: how much the prior distrusts what the source does not see: log-odds a factor e of tr S/γ. 0 lets the
            sample decide; a large number keeps the source.
        confidence: probability of ``predicted_accuracy_interval_``.

    Attributes:
        classes_, n_features_in_: as in scikit-learn.
        coef_, intercept_: (1 or n_classes, p) weights w and (1 or n_classes,) intercepts.
        alpha_: (K,) scales, (n_classes, K) for more than two classes. ±inf is the source alone.
        gamma_: penalty, (n_classes,) for more than two classes.
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
        outputs = np.where(index[:, None] == (np.ones(1) if count == 2 else np.arange(count)), 1.0, -1.0)
        coefficients, offsets = read_sources(self.source, self.classes_, X.shape[1])  # (M, p, K), (M, K)
        sources = np.ascontiguousarray(np.moveaxis(coefficients, -1, 0))  # (K, M, p)
        fixed = self._fixed_alpha(len(sources))
        if isinstance(self.covariance, np.ndarray) and self.covariance.shape != (X.shape[1],) * 2:
            raise ValueError(
                f"covariance must be ({X.shape[1]}, {X.shape[1]}) like the features, got {self.covariance.shape}"
            )

        centre = X.mean(axis=0) if self.intercept else np.zeros(X.shape[1])
        middle = outputs.mean(axis=0) if self.intercept else np.zeros(outputs.shape[1])
        X = X - centre
        check_features(X)
        posterior = Posterior(X, outputs - middle, sources, centred=bool(self.intercept))
        groups = self._groups(index, outputs)
        reason = _unusable(X, index if self.intercept or count > 2 else None, outputs)
        if reason:
            fits, chosen, law = [self._fallback(posterior, fixed, reason)], 0, [UNKNOWN]
        else:
            fits, chosen = self._choose(posterior, outputs, fixed)
            law = []
        b = np.zeros(outputs.shape[1])
        everything = []
        for fit in fits if not reason else fits[:1]:
            b = self._threshold(fit, X, outputs, centre, sources, offsets) if self.intercept else b
            everything.append(b)
            if not reason:
                law.append(groups(fit.left_out + b))
        best = fits[chosen]
        self.coef_ = best.weights
        self.intercept_ = everything[chosen] - self.coef_ @ centre
        path = AlphaPath(
            np.array([one.gamma for one in fits]),
            np.array([np.mean(one.alpha, axis=0) if one.alpha.ndim > 1 else one.alpha for one in fits]),
            np.array([accuracy for accuracy, _ in law]),
        )
        self.predicted_accuracy_, self.predicted_accuracy_interval_ = law[chosen]
        if count == 2:
            self.alpha_, self.gamma_, self.alpha_path_ = best.alpha, best.gamma, path
        else:
            self.alpha_ = np.broadcast_to(best.alpha, (count, len(sources))).copy()
            self.gamma_ = np.broadcast_to(np.asarray(best.gamma, dtype=float), (count,)).copy()
            self.alpha_path_ = [path] * count
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

    def _choose(self, posterior: Posterior, outputs: FloatArray, fixed: FloatArray | None) -> tuple[list[_Fit], int]:
        """The fits along the penalties, and which of them is chosen."""
        gammas = penalties(posterior.scale) if isinstance(self.gamma, str) else np.array([float(self.gamma)])
        if fixed is not None and np.isinf(fixed).any():
            return [_alone(posterior, np.sign(fixed))], 0
        if fixed is None and self.method != "auto" and posterior.K + 1 > 0:
            return self._moments(posterior, outputs, gammas)
        given = None if fixed is None else fixed * posterior.units
        if len(gammas) == 1:
            return [_at(posterior, gammas[0], given, chosen_alone=False)], 0
        weight = posterior.probabilities(gammas, self.caution, given)
        chosen = int(np.searchsorted(np.cumsum(weight), 0.5))
        return [_at(posterior, gamma, given, chosen_alone=True) for gamma in gammas], chosen

    def _moments(self, posterior: Posterior, outputs: FloatArray, gammas: FloatArray) -> tuple[list[_Fit], int]:
        """Methods "loo" and "plugin": at each γ the best direction of each class, and the best γ of each class."""
        columns = [self._column(posterior, outputs, m, gammas) for m in range(outputs.shape[1])]
        if len(columns) == 1:
            return columns[0]
        best = [fits[chosen] for fits, chosen in columns]
        # Comparable scores: each times its best least-squares factor, mean/(mean² + variance) of left-out scores.
        signed = outputs * np.column_stack([one.left_out[:, 0] for one in best])
        factor = np.maximum(signed.mean(axis=0), 1e-6 * signed.std(axis=0)) / np.mean(signed**2, axis=0)
        joined = _Fit(
            gamma=np.array([one.gamma for one in best]),  # type: ignore[arg-type]
            alpha=np.array([one.alpha for one in best]),
            carried=np.zeros(posterior.K),
            weights=np.vstack([one.weights for one in best]) * factor[:, None],
            left_out=np.column_stack([one.left_out[:, 0] for one in best]) * factor,
        )
        return [joined], 0

    def _column(self, posterior: Posterior, outputs: FloatArray, m: int, gammas: FloatArray) -> tuple[list[_Fit], int]:
        sign = outputs[:, m]
        rows = sign[:, None] * posterior.X
        path = RidgePath(rows, posterior.unit_sources[:, m].T)
        if self.method == "loo":
            directions = [moment_direction(path, gamma) for gamma in gammas]
        else:
            plug_in = self._plug_in(rows, path.sources)
            directions = [plug_in.direction(gamma) for gamma in gammas]
        fits = []
        for gamma, direction in zip(gammas, directions, strict=True):
            alpha = scales(direction.q)
            fits.append(
                _Fit(
                    gamma=float(gamma),
                    alpha=alpha / posterior.largest,
                    carried=direction.q[1:] / posterior.largest,
                    weights=(path.weights(gamma) @ direction.q)[None],
                    left_out=(sign * (path.loo_scores(gamma) @ direction.q))[:, None],
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

    def _threshold(
        self,
        fit: _Fit,
        X: FloatArray,
        outputs: FloatArray,
        centre: FloatArray,
        sources: FloatArray,
        offsets: FloatArray,
    ) -> FloatArray:
        """(M,) what is added to the scores about the centre of the rows.

        Two classes: the sample's threshold, the middle of the class means plus what unequal classes (drawn towards
        balance) move it in least squares, has variance 1/n₊ + 1/n₋ in units of the scores' own; the source's is taken
        to be off by ``_THRESHOLD``, or by what is seen of it beyond chance. Both are weighed.
        More: that of least squares or of the source, whichever decides more left-out rows rightly.
        """
        n, positive = len(X), outputs > 0
        counts = np.maximum(positive.sum(axis=0), 0.5)
        chance = 1.0 / counts + 1.0 / np.maximum(n - counts, 0.5)
        carried = np.where(np.isfinite(fit.carried), fit.carried, 0.0)
        theirs = np.einsum("k,mk->m", carried, np.einsum("kmp,p->mk", sources, centre) + offsets)
        bare = not len(sources) or not carried.any()
        if outputs.shape[1] > 1:
            ours = outputs.mean(axis=0)
            right = [np.sum((fit.left_out + b).argmax(axis=1) == outputs.argmax(axis=1)) for b in (ours, theirs)]
            return ours if bare or right[0] > right[1] else theirs
        fitted, side = X @ fit.weights[0], positive[:, 0]
        middle = 0.5 * (fitted[side].mean() + fitted[~side].mean())
        distance = 0.5 * float(fit.left_out[side].mean() - fit.left_out[~side].mean())
        tilt = (2.0 * side.sum() - n) / (n + _BALANCE)
        ours = np.atleast_1d(tilt * max(1.0 - distance, 0.0) - middle)
        return ours if bare else _between(ours, theirs, fit.left_out, positive, chance, self.caution)

    def _groups(self, index: FloatArray, outputs: FloatArray) -> Any:
        """A function from (n, M) left-out scores to the expected accuracy and its interval."""
        if outputs.shape[1] > 1:
            return lambda scores: many_classes(scores, index, self.confidence)
        sign = outputs[:, 0]
        if not self.intercept:
            return lambda scores: two_classes([sign * scores[:, 0]], self.confidence)
        return lambda scores: two_classes([scores[sign > 0, 0], -scores[sign < 0, 0]], self.confidence)

    def _fallback(self, posterior: Posterior, fixed: FloatArray | None, reason: str) -> _Fit:
        """The untouched sources; without sources the mean difference; or the given α."""
        warnings.warn(
            f"accuracy cannot be predicted: {reason}. "
            + ("The source is used untouched." if posterior.K else "The mean difference is used."),
            UserWarning,
            stacklevel=3,
        )
        if fixed is None or np.isinf(fixed).any():
            sign = np.ones(posterior.K) if fixed is None else np.sign(fixed)
            return _alone(posterior, sign) if posterior.K else _at(posterior, np.inf, fixed, chosen_alone=False)
        gamma = np.inf if isinstance(self.gamma, str) else float(self.gamma)
        return _at(posterior, gamma, fixed * posterior.units, chosen_alone=False)


def _between(
    ours: FloatArray, theirs: FloatArray, scores: FloatArray, positive: FloatArray, chance: FloatArray, caution: float
) -> FloatArray:
    """(M,) the sample's threshold and the source's, each with the weight that its error leaves it."""
    inside = np.zeros(len(ours))
    for side in (positive, ~positive):
        count = np.maximum(side.sum(axis=0), 1)
        inside += np.sum(np.where(side, scores - np.sum(np.where(side, scores, 0.0), axis=0) / count, 0.0) ** 2, axis=0)
    variance = np.maximum(inside / max(len(scores) - 2, 1), np.finfo(float).tiny)
    seen = (ours - theirs) ** 2 / variance
    trust = np.maximum(_THRESHOLD / (1.0 + caution), seen - chance)
    return np.where(np.isfinite(seen), theirs + (ours - theirs) * trust / (trust + chance), ours)


def _alone(posterior: Posterior, sign: FloatArray) -> _Fit:
    """The sources as they are, ±1 each; of several, each counts alike."""
    alpha = sign if posterior.K > 1 else sign * posterior.size
    own = alpha / posterior.units
    return _Fit(np.inf, sign * np.inf, own, posterior.weights(np.inf, alpha), posterior.left_out(np.inf, alpha))


def _at(posterior: Posterior, gamma: float, given: FloatArray | None, *, chosen_alone: bool) -> _Fit:
    """The fit at γ with the α given (standardised) or expected.

    On a path γ = ∞ is the source alone; asked for by the user it is the limit of large γ, w = ū + αw̃, with γα kept.
    """
    gamma = float(gamma)
    if np.isinf(gamma) and not (chosen_alone and posterior.K and given is None):
        weights = posterior.outputs.T @ posterior.X / posterior.n
        Gram = posterior.X @ weights.T  # (n, M)
        own = np.einsum("ij,ij->i", posterior.X, posterior.X)[:, None] * posterior.outputs / posterior.n
        alpha = given
        if alpha is None:
            far = 1e3 * posterior.scale
            alpha = posterior.weigh(far)[1] * far
        scores = posterior.left_out(np.inf, alpha)
        weights = weights + posterior.weights(np.inf, alpha)
        in_units = alpha / posterior.units
        return _Fit(gamma, in_units, in_units, weights, Gram - own + scores)
    alpha = posterior.weigh(gamma)[1] if given is None else given
    if np.isinf(gamma):
        return _Fit(
            gamma,
            np.sign(alpha) * np.inf,
            alpha / posterior.units,
            posterior.weights(gamma, alpha),
            posterior.left_out(gamma, alpha, refit=True),
        )
    return _Fit(
        gamma,
        alpha / posterior.units,
        alpha / posterior.units,
        posterior.weights(gamma, alpha),
        posterior.left_out(gamma, alpha, refit=given is None),
    )


def _unusable(X: FloatArray, index: FloatArray | None, outputs: FloatArray) -> str:
    """Why the rows cannot show their own noise; empty where they can. Groups of one mean: classes, or signed rows."""
    if len(X) < 3:
        return f"the posterior needs at least 3 rows, got {len(X)}; collect more target samples"
    if index is None:
        rows, index = outputs[:, :1] * X, np.zeros(len(X), dtype=int)
    else:
        rows = X
    count = int(index.max()) + 1
    means = np.zeros((count, X.shape[1]))
    np.add.at(means, index, rows)
    means /= np.bincount(index, minlength=count)[:, None]
    inside = float(np.sum((rows - means[index]) ** 2))
    if not inside > 1e-20 * float(np.sum(X**2)) and len(X) > count:
        return "the rows do not vary, so their noise cannot be estimated; check for repeated samples"
    return ""
