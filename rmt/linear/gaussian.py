"""Square loss with noise of any covariance, explicit means, and one or several sources (theory.md §3).

One eigendecomposition of the covariance serves every γ, n and α: in the eigenbasis each (γ, n) costs O(pK²).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from rmt._checks import FloatArray
from rmt.linear.forms import assemble
from rmt.resolvent import inverse_of, spectral
from rmt.scores.quadratic import QuadraticScore
from rmt.scores.score import ratio
from rmt.settings.gaussian import GaussianTransfer
from rmt.settings.spectrum import BLOCK


class GaussianScore(QuadraticScore):
    """The score for noise of covariance C and the square loss (theory.md §3).

    Attributes:
        setting: what it was computed from.
        overlap: (K,) g = mᵀq̃. source_variance: (K,) E w̃ᵀCw̃, the variance of each source's own score.

    >>> import rmt
    >>> setting = rmt.GaussianTransfer(
    ...     n=50,
    ...     gamma=0.5,
    ...     mean=[1.0, 0.5],
    ...     covariance=[[1.0, 0.3], [0.3, 2.0]],
    ...     source=rmt.FixedSource(vector=[0.6, 0.1]),
    ... )
    >>> score = rmt.theory(setting)
    >>> type(score).__name__, round(float(score.alpha_star), 4)
    ('GaussianScore', 1.9071)
    """

    def __init__(self, setting: GaussianTransfer) -> None:
        self.setting = setting
        values = np.asarray(setting.spectrum.values, dtype=float)
        mean, weights, spread = setting.in_eigenbasis
        self.overlap = weights @ mean
        self.source_variance = (weights**2 + spread) @ values
        count, shape = len(weights), setting.shape
        n, gamma, noise = (
            np.broadcast_to(np.asarray(x, dtype=float), shape).ravel()
            for x in (setting.n, setting.gamma, setting.label_noise)
        )
        pairs = (weights[:, None, :] * weights[None, :, :]).reshape(-1, values.size)
        pairs[:: count + 1] += spread  # the diagonal pairs carry the sources' own noise
        linear = np.stack([mean**2, *(mean * weights)])  # for A and B
        forms = values * np.concatenate([linear, pairs])  # for mᵀHCHm, W̃ᵀHCHm, W̃ᵀHCHW̃
        c, V = np.empty((n.size, count + 1)), np.empty((n.size, count + 1, count + 1))
        step = max(1, BLOCK // values.size)
        for start in range(0, n.size, step):
            part = slice(start, start + step)
            r = spectral(values, n[part], gamma[part])
            inverse = inverse_of(values, r.theta, "gamma")
            first, second = inverse @ linear.T, inverse**2 @ forms.T
            theta = r.theta[:, None]
            c[part], V[part] = assemble(
                gain=first[:, 0],
                pull=theta * first[:, 1:],
                mean_form=second[:, 0],
                cross_form=theta * second[:, 1 : count + 1],
                source_form=(theta**2 * second[:, count + 1 :]).reshape(-1, count, count),
                h=r.h,
                excess=r.excess,
                kappa=1.0 - 2.0 * noise[part],
            )
        vector_alpha = setting.source_count is not None
        super().__init__(
            c.reshape(*shape, count + 1), V.reshape(*shape, count + 1, count + 1), vector_alpha=vector_alpha
        )

    @property
    def accuracy_source_only(self) -> FloatArray:
        """Φ(g/√E w̃ᵀCw̃): the source used on the target as it is; (K,) for a sequence of sources."""
        accuracy = ndtr(ratio(self.overlap, np.sqrt(self.source_variance)))
        return accuracy if self.vector_alpha else accuracy[0]
