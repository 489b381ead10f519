"""Elliptical target noise: every sample has its own scale, z√t with E t = 1 (theory.md §5 "Elliptical").

Heavy tails of this kind change every answer, for they do not average out over coordinates: a multivariate t of six
degrees of freedom has less aligned sample means and a test score that is not Gaussian.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from scipy.special import ndtr

from rmt._checks import FloatArray
from rmt.convex.fixed_point import SpectralSolver, check_convex, point_words, source_unit
from rmt.convex.mixture import Mixture
from rmt.losses import SQUARE, Loss
from rmt.scores.quadratic import QuadraticScore
from rmt.scores.score import Score
from rmt.scores.solved import SolvedScore, probe
from rmt.settings.elliptical import EllipticalTransfer


class _Elliptical(Score):
    """Accuracy E Φ(s/(σ√t)), which rises with s/σ: the best scale is still that of the best ratio."""

    _law: tuple[FloatArray, FloatArray]

    def _correct(self, snr: Any) -> Any:
        scales, weights = self._law
        return ndtr(np.asarray(snr)[..., None] / np.sqrt(scales)) @ weights


class EllipticalScore(_Elliptical, QuadraticScore):
    """Square loss: mean and variance stay affine and quadratic in α; only the accuracy is a mixture."""

    def __init__(self, setting: EllipticalTransfer, c: FloatArray, V: FloatArray) -> None:
        super().__init__(c, V)
        self.setting, self._law = setting, setting.law


class SolvedEllipticalScore(_Elliptical, SolvedScore):
    """Any other loss, solved one α at a time: e, v, τ are averaged over t, with κ → tκ and σ² → tσ²."""

    def __init__(self, setting: EllipticalTransfer, loss: Loss) -> None:
        base, (scales, weights) = setting.base, setting.law
        if base.source_count is not None:
            raise ValueError("elliptical noise takes one source, given plainly, not a sequence or a gram of sources")
        check_convex(base, loss)
        super().__init__(
            SpectralSolver(base, loss, Mixture(np.ones_like(scales), scales, weights[None])),
            shape=base.shape,
            unit=source_unit(base),
            describe=partial(point_words, base),
        )
        self.setting, self._law = setting, (scales, weights)


def elliptical_score(setting: EllipticalTransfer, loss: Loss) -> Score:
    """The score under elliptical noise; for the square loss three solved scales give them all."""
    solved = SolvedEllipticalScore(setting, loss)
    return EllipticalScore(setting, *probe(solved)) if loss is SQUARE else solved
