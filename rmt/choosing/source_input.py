"""What was learned elsewhere, as arrays: weights and intercepts of one or several source classifiers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from rmt import _checks
from rmt._checks import FloatArray

#: Size of the largest usable feature: squares of products of two must not overflow.
LARGEST = 1e75


def check_features(X: FloatArray) -> None:
    """Warn of features that cannot tell classes apart, and raise ValueError of sizes whose squares overflow."""
    size = np.abs(X).max(initial=0.0)
    if size > LARGEST:
        raise ValueError(f"X holds numbers up to {size:g}, whose squares overflow; rescale it")
    if size == 0:
        warnings.warn("every feature is the same in all rows, so nothing can be learned from them", stacklevel=3)


def read_sources(given: Any, classes: Any, p: int) -> tuple[FloatArray, FloatArray]:
    """Coefficients (problems, p, K) and intercepts (problems, K); two classes are one problem, more one each.

    Args:
        given: None, an array, a fitted linear classifier (in a FrozenEstimator or not), or a list of these.
        classes: the classes of the target. p: its number of features.

    Raises:
        ValueError: a source of another shape or of other classes, not fitted, not linear, not finite, or zero.
    """
    problems = 1 if len(classes) == 2 else len(classes)
    if given is None:
        return np.zeros((problems, p, 0)), np.zeros((problems, 0))
    parts = [_read(one, classes) for one in (given if isinstance(given, list | tuple) else [given])]
    for weights, _ in parts:
        if weights.shape != (problems, p):
            need = f"({p},)" if problems == 1 else f"({problems}, {p}), one row a class,"
            raise ValueError(
                f"source must have shape {need} like the data, got {weights.shape}; give its weight vector"
            )
        if not np.any(weights, axis=1).all():
            raise ValueError("source is zero, which says nothing; give source=None for target-only training")
    return np.stack([w for w, _ in parts], axis=-1), np.stack([b for _, b in parts], axis=-1)


def _read(source: Any, classes: Any) -> tuple[FloatArray, FloatArray]:
    """Weights (problems, p) and intercepts (problems,) of one source."""
    if isinstance(source, np.ndarray) or not hasattr(source, "fit"):
        weights = np.atleast_2d(_checks.finite("source", source))
        if weights.ndim != 2:
            raise ValueError(f"source must have shape (p,) or (n_classes, p), got {weights.shape}")
        return weights, np.zeros(len(weights))
    if not hasattr(source, "coef_"):
        raise ValueError(
            f"source {type(source).__name__} has no coef_: it is not fitted (cloning unfits it) or not linear; "
            "fit a linear classifier and wrap it, source=sklearn.frozen.FrozenEstimator(model)"
        )
    theirs = getattr(source, "classes_", None)
    weights = np.atleast_2d(_checks.finite("source.coef_", source.coef_))
    intercept = _checks.finite("source.intercept_", getattr(source, "intercept_", 0.0))
    intercept = np.broadcast_to(np.atleast_1d(intercept), (len(weights),)).copy()
    return (weights, intercept) if theirs is None else _matched(weights, intercept, list(theirs), list(classes))


def _matched(
    weights: FloatArray, intercept: FloatArray, theirs: list[Any], classes: list[Any]
) -> tuple[FloatArray, FloatArray]:
    """Rows of a fitted source in the order of the data's classes, matched by label."""
    if len(theirs) != len(classes):
        raise ValueError(
            f"source knows {len(theirs)} classes and the data {len(classes)}; both must have the same classes"
        )
    if any(one not in theirs for one in classes):
        raise ValueError(
            f"source was fitted to the classes {_checks.shown(theirs)} and the data hold {_checks.shown(classes)}; "
            "rename the labels, or give source.coef_ as an array if their order is the same"
        )
    order = [theirs.index(one) for one in classes]
    if len(classes) == 2:
        sign = 1.0 if order == [0, 1] else -1.0
        return sign * weights, sign * intercept
    return weights[order], intercept[order]
