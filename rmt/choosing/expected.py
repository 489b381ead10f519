"""The accuracy to expect of a fitted rule, from exact left-out scores and the Gaussian law of a new one.

A left-out share of right answers jumps by 1/n and favours whatever was chosen by it. Here the left-out scores only
give the mean of each class and their common covariance within classes, with n − (number of classes) degrees of
freedom; a new row of class a has the score N(mean_a, (1 + 1/n_a) V), the predictive law of one more row, and is
right where its own class wins.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from rmt._checks import FloatArray

#: Normal draws of the K-class integral (fixed, so that a fit is a function of its data).
_DRAWS = 500
UNKNOWN = (float("nan"), (0.0, 1.0))


def two_classes(groups: list[FloatArray], level: float) -> tuple[float, tuple[float, float]]:
    """Expected accuracy and its interval from signed scores, right where positive, one array a group of one mean.

    The interval is symmetric on the scale of Φ⁻¹. The error of a mean of left-out scores lies between that of free
    scores (1/n) and of a target-only fit, whose rows are each other's training set (2/n): the larger is taken.
    """
    n = sum(len(group) for group in groups)
    freedom = n - len(groups)
    means = np.array([group.mean() for group in groups])
    squares = sum(float(np.sum((group - mean) ** 2)) for group, mean in zip(groups, means, strict=True))
    if freedom < 1 or not squares > 1e-24 * float(np.sum(means**2)):
        return UNKNOWN
    t, counts = means / np.sqrt(squares / freedom), np.array([len(group) for group in groups])
    share = counts / n
    accuracy = float(share @ ndtr(t / np.sqrt(1.0 + 1.0 / counts)))
    density = share * np.exp(-0.5 * t**2) / np.sqrt(2.0 * np.pi)
    spread = float(np.sum(density**2 * 2.0 / counts) + np.sum(density * t) ** 2 / (2.0 * freedom))
    inside = float(np.clip(accuracy, 1e-12, 1.0 - 1e-12))
    centre = float(ndtri(inside))
    slope = np.exp(-0.5 * centre**2) / np.sqrt(2.0 * np.pi)
    width = float(ndtri(0.5 + level / 2.0)) * np.sqrt(spread) / max(slope, 1e-300)
    return accuracy, (float(ndtr(centre - width)), float(ndtr(centre + width)))


def many_classes(scores: FloatArray, index: FloatArray, level: float) -> tuple[float, tuple[float, float]]:
    """Expected accuracy of the largest of (n, M) scores and Wilson's interval at that share of n rows."""
    n, M = scores.shape
    counts = np.bincount(index, minlength=M)
    means = np.stack([scores[index == k].mean(axis=0) for k in range(M)])
    rest = scores - means[index]
    if n <= M or not float(np.sum(rest**2)) > 1e-24 * float(np.sum(means**2)):
        return UNKNOWN
    noise = np.random.default_rng(0).standard_normal((_DRAWS, n)) @ rest / np.sqrt(n - M)  # N(0, V) of any rank
    right = [np.mean((means[k] + np.sqrt(1.0 + 1.0 / counts[k]) * noise).argmax(axis=1) == k) for k in range(M)]
    accuracy = float(counts / n @ np.array(right))
    return accuracy, wilson(accuracy, n, level)


def wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """Wilson's interval for a proportion."""
    z2 = float(ndtri(0.5 + level / 2.0)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2) / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))
