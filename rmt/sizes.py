"""Is theory's error only that of a finite size? A setting of twice the size has the same limit and half the error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt.features import RandomFeatures
from rmt.losses import SQUARE, find_loss
from rmt.predict import theory
from rmt.scores.estimates import Comparison
from rmt.settings.classes import ClassTransfer
from rmt.settings.elliptical import EllipticalTransfer
from rmt.settings.filters import FilteredTransfer
from rmt.settings.gaussian import GaussianTransfer, RidgeSource
from rmt.settings.isotropic import FixedSource, Transfer
from rmt.settings.many_classes import MulticlassTransfer
from rmt.settings.regression import Regression
from rmt.settings.spectrum import Spectrum
from rmt.settings.subspace import SubspaceTransfer
from rmt.simulators.simulation import simulate

#: Settings whose square-loss fits give every scale at once.
_AFFINE = (Transfer, GaussianTransfer, SubspaceTransfer, FilteredTransfer, RandomFeatures)


def doubled(setting: Any) -> Any:
    """``setting`` at twice the dimension and twice the samples: another experiment with the same theory.

    Settings in coordinates keep every form: C becomes C ⊗ I₂, and each vector v becomes v ⊗ (1, 1)/√2.

    >>> import rmt
    >>> setting = rmt.Transfer(p=40, n=20, gamma=1.0, mu_target=1.5, source=rmt.FixedSource(overlap=0.6, norm2=0.5))
    >>> larger = rmt.doubled(setting)
    >>> int(larger.p), int(larger.n), bool(rmt.theory(larger).accuracy(1.0) == rmt.theory(setting).accuracy(1.0))
    (80, 40, True)

    Raises:
        ValueError: a setting of an unknown type.
    """
    if isinstance(setting, Transfer):
        sizes: dict[str, Any] = {name: 2 * np.asarray(getattr(setting, name))[()] for name in ("p", "n")}
        if setting.N is not None:
            sizes["N"] = 2 * np.asarray(setting.N)[()]
        return replace(setting, **sizes)
    if isinstance(setting, EllipticalTransfer | FilteredTransfer):
        return replace(setting, base=doubled(setting.base))
    if isinstance(setting, SubspaceTransfer):
        if setting.rank is not None:
            return replace(setting, base=doubled(setting.base), rank=2 * np.asarray(setting.rank))
        return replace(setting, base=doubled(setting.base), basis=np.kron(np.asarray(setting.basis), np.eye(2)))
    source: Any
    n: dict[str, Any] = {"n": 2 * np.asarray(getattr(setting, "n", 0))[()]}
    if isinstance(setting, RandomFeatures):
        source = setting.source
        source = _source(source) if isinstance(source, FixedSource) else (_vectors(source[0]), 2 * source[1], source[2])
        weights = np.kron(np.asarray(setting.weights), np.eye(2))
        return replace(setting, **n, weights=weights, mean=_vectors(setting.mean), source=source)
    if isinstance(setting, GaussianTransfer):
        several = isinstance(setting.source, tuple)
        sources = tuple(map(_source, setting.sources))
        return replace(
            setting,
            **n,
            mean=_vectors(setting.mean),
            covariance=_spectrum(setting.spectrum),
            source=sources if several else sources[0],
        )
    if isinstance(setting, ClassTransfer | MulticlassTransfer):
        made = {id(one): _spectrum(one) for one in setting.spectra}
        source = _source(setting.source) if isinstance(setting, ClassTransfer) else _vectors(setting.source)
        covariances = [made[id(one)] for one in setting.spectra]
        return replace(setting, **n, means=_vectors(setting.means), covariances=covariances, source=source)
    if isinstance(setting, Regression):
        return replace(
            setting,
            **n,
            target=_vectors(setting.target),
            source=_vectors(setting.source),
            covariance=_spectrum(setting.spectrum),
        )
    raise ValueError(f"doubled takes a setting of rmt, got {type(setting).__name__}")


def _vectors(rows: Any) -> FloatArray:
    """(…, p) → (…, 2p): every coordinate twice, norms and products kept."""
    return np.repeat(np.asarray(rows, dtype=float), 2, axis=-1) / np.sqrt(2.0)


def _spectrum(spectrum: Spectrum) -> Spectrum:
    """C ⊗ I₂."""
    values = np.repeat(np.asarray(spectrum.values, dtype=float), 2)
    return Spectrum(values, None if spectrum.vectors is None else np.kron(np.asarray(spectrum.vectors), np.eye(2)))


def _source(source: FixedSource | RidgeSource) -> FixedSource | RidgeSource:
    if isinstance(source, FixedSource):
        return FixedSource(vector=_vectors(source.vector))
    return replace(source, mean=_vectors(source.mean), covariance=_spectrum(source.spectrum), N=2.0 * source.N)


def agreement(
    setting: Any, alpha: ArrayLike, draws: int = 1000, seed: int = 0, *, loss: Any = "square", **options: Any
) -> Comparison:
    """Theory of ``setting`` against simulations of it and of :func:`doubled`: does the error halve?

    Args:
        setting: one scalar setting of any type but :class:`rmt.Regression`.
        alpha: scales to compare at. draws: of each of the two simulations. seed: the second one has seed + 1.
        loss, options: as in :func:`rmt.simulate`.

    Returns:
        A :class:`rmt.Comparison` whose z tests that what is left of the error after extrapolation in 1/p is noise,
        with the raw z at both sizes. A wrong setting keeps its error at twice the size and fails.

    >>> import rmt
    >>> setting = rmt.Transfer(p=40, n=20, gamma=1.0, mu_target=1.5, source=rmt.FixedSource(overlap=0.6, norm2=0.5))
    >>> rmt.agreement(setting, [0.0, 1.0], draws=200).worst < 4
    True
    """
    if isinstance(setting, Regression):
        raise ValueError("agreement takes settings with an accuracy; compare a Regression by RegressionSimulation.risk")
    alpha = _checks.real("alpha", alpha)
    larger = doubled(setting)
    score = theory(setting, loss)
    linear = isinstance(setting, _AFFINE) and find_loss(loss) is SQUARE
    given = options if linear else {**options, "alpha": alpha}
    pair = [simulate(one, draws, seed + k, loss=loss, **given) for k, one in enumerate((setting, larger))]
    if linear:
        return pair[0].compare(score, alpha, doubled=pair[1])
    return pair[0].compare(score, doubled=pair[1])
