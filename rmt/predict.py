"""From a setting to its score: ``theory`` dispatches on the type of the setting."""

from __future__ import annotations

from typing import Any

from rmt.losses import SQUARE, find_loss
from rmt.settings.isotropic import Transfer


def theory(setting: Any, loss: Any = "square") -> Any:
    """The high-dimensional prediction for ``setting``.

    Args:
        setting: what is known of the data.

            - :class:`rmt.Transfer`: isotropic noise, by norms. :class:`rmt.GaussianTransfer`: any covariance, means
              as vectors, one or several sources. :class:`rmt.ClassTransfer`: classes that differ.
            - :class:`rmt.EllipticalTransfer`, :class:`rmt.SubspaceTransfer`, :class:`rmt.FilteredTransfer`: one of
              the first two with elliptical noise, an adapter in a subspace, a spectral filter instead of ridge.
            - :class:`rmt.MulticlassTransfer`: K classes, one score a class; loss ``"square"`` (one-vs-rest) or
              ``"softmax"``.
            - :class:`rmt.RandomFeatures`: a random layer, by its linear equivalent.
            - :class:`rmt.Regression`.
        loss: what the adapter is trained with: ``"square"``, ``"logistic"``, ``"squared_hinge"``, or any
            :class:`rmt.Loss`. A ridge source is always trained with the square loss.

    Returns:
        A :class:`rmt.Score`; for a MulticlassTransfer a :class:`rmt.MulticlassScore`, for a Regression a
        :class:`rmt.RegressionRisk`.

    Raises:
        ValueError: unknown loss, a setting of an unknown type, or a loss that the setting has no theory for.

    >>> import rmt
    >>> setting = rmt.Transfer(p=400, n=200, N=5000, mu=1.5, mu_perp=1.0, beta=0.8, gamma=1.0, gamma_source=1.0)
    >>> score = rmt.theory(setting)
    >>> score.accuracy([0.0, 1.0, 2.0]).round(4)
    array([0.7997, 0.8559, 0.8627])
    """
    from rmt.beyond.classes import ClassScore
    from rmt.beyond.elliptical import elliptical_score
    from rmt.beyond.many_classes import multiclass_score
    from rmt.beyond.subspace import subspace_score
    from rmt.convex.fixed_point import convex_score
    from rmt.features import RandomFeatures
    from rmt.linear.blocks import isotropic_score
    from rmt.linear.filters import filtered_score
    from rmt.linear.gaussian import GaussianScore
    from rmt.linear.isotropic import several_sources
    from rmt.linear.regression import RegressionRisk
    from rmt.settings.classes import ClassTransfer
    from rmt.settings.elliptical import EllipticalTransfer
    from rmt.settings.filters import FilteredTransfer
    from rmt.settings.gaussian import GaussianTransfer
    from rmt.settings.many_classes import MulticlassTransfer
    from rmt.settings.regression import Regression
    from rmt.settings.subspace import SubspaceTransfer

    if isinstance(setting, RandomFeatures):
        return theory(setting.linear, loss)
    if isinstance(setting, MulticlassTransfer):
        return multiclass_score(setting, loss)
    loss = find_loss(loss)
    if isinstance(setting, Transfer | GaussianTransfer) and loss is not SQUARE:
        return convex_score(setting, loss)
    if isinstance(setting, Transfer):
        return isotropic_score(setting) if setting.source_count is None else several_sources(setting)
    if isinstance(setting, GaussianTransfer):
        return GaussianScore(setting)
    if isinstance(setting, ClassTransfer):
        return ClassScore(setting, loss)
    if isinstance(setting, EllipticalTransfer):
        return elliptical_score(setting, loss)
    if isinstance(setting, SubspaceTransfer):
        return subspace_score(setting, loss)
    if isinstance(setting, FilteredTransfer | Regression) and loss is not SQUARE:
        raise ValueError(f"a {type(setting).__name__} is fitted with loss='square', got {loss.name!r}")
    if isinstance(setting, FilteredTransfer):
        return filtered_score(setting)
    if isinstance(setting, Regression):
        return RegressionRisk(setting)
    raise ValueError(
        "setting must be a Transfer, GaussianTransfer, ClassTransfer, EllipticalTransfer, SubspaceTransfer, "
        f"MulticlassTransfer, FilteredTransfer, RandomFeatures or Regression, got {type(setting).__name__}"
    )
