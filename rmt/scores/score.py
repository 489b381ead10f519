"""One interface for every answer: the law of the fine-tuned score of a test point as a function of the scale α.

For a test point of class y, ``y·w_αᵀx`` has mean s(α) and variance σ²(α), whatever the data, the loss and the number
of sources.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from rmt._checks import FloatArray

#: The methods of a score that tables and comparisons list.
QUANTITIES = ("mean", "variance", "second_moment", "accuracy", "risk")


class Score(ABC):
    """Mean and variance of the score, and what follows from them.

    Methods take ``alpha`` of any shape and broadcast it against the settings by NumPy's rules (with K sources the
    last axis of ``alpha`` has length K and is consumed). Everything returned is a float array; scalars give
    0-d arrays.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> score = rmt.theory(setting)
    >>> isinstance(score, rmt.Score), score.accuracy([0.0, 1.0, 2.0]).round(4)
    (True, array([0.7997, 0.8559, 0.8627]))
    """

    @abstractmethod
    def mean(self, alpha: ArrayLike) -> Any:
        """Mean score s(α) = mᵀw_α."""

    @abstractmethod
    def variance(self, alpha: ArrayLike) -> Any:
        """Score variance σ²(α) = w_αᵀCw_α."""

    @property
    @abstractmethod
    def alpha_star(self) -> Any:
        """The scale of the highest signed accuracy; ±inf where no finite scale attains the supremum."""

    @property
    @abstractmethod
    def alpha_bar(self) -> Any:
        """The scale at which the mean score is 0 and the accuracy 1/2."""

    @property
    @abstractmethod
    def alpha_risk(self) -> Any:
        """The scale of the lowest squared risk."""

    @property
    @abstractmethod
    def best_accuracy(self) -> Any:
        """The supremum over α of the signed accuracy."""

    def second_moment(self, alpha: ArrayLike) -> Any:
        """ν(α) = σ² + s²."""
        return self.variance(alpha) + self.mean(alpha) ** 2

    def risk(self, alpha: ArrayLike) -> Any:
        """Squared test risk E(1 − y·wᵀx)² = 1 − 2s + ν."""
        return self.variance(alpha) + (1.0 - self.mean(alpha)) ** 2

    def snr(self, alpha: ArrayLike) -> Any:
        """Signed signal-to-noise ratio s/σ; 0 where both vanish."""
        return ratio(self.mean(alpha), np.sqrt(self.variance(alpha)))

    def accuracy(self, alpha: ArrayLike, *, folded: bool = False) -> Any:
        """Test accuracy Φ(s/σ).

        Signed by default: a classifier that is wrong more often than right scores below 1/2. ``folded=True``
        gives the paper's max(acc, 1 − acc), which hides such failures.
        """
        signed = self._correct(self.snr(alpha))
        return np.maximum(signed, 1.0 - signed) if folded else signed

    def _repr_html_(self) -> str:
        from rmt._html import score_table

        return score_table(self)

    def _correct(self, snr: Any) -> Any:
        """Probability that a score of signal-to-noise ratio ``snr`` has the right sign; Φ for Gaussian scores."""
        return ndtr(snr)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    """numerator/denominator with 0/0 = 0 and x/0 = ±inf, silently."""
    numerator, denominator = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = numerator / denominator
    return np.where((numerator == 0) & (denominator == 0), 0.0, quotient)
