"""From a setting to its score: ``theory`` dispatches on the kind of the setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from rmt.features import RandomFeatures
from rmt.kinds import KINDS, Setting, kind_of, named
from rmt.losses import SQUARE, Loss, find_loss
from rmt.scores.quadratic import Quadratic, TransferScore
from rmt.scores.score import Score
from rmt.settings.elliptical import EllipticalTransfer
from rmt.settings.filters import FilteredTransfer
from rmt.settings.gaussian import GaussianTransfer
from rmt.settings.isotropic import Transfer
from rmt.settings.subspace import SubspaceTransfer

if TYPE_CHECKING:
    from rmt.beyond.classes import ClassScore
    from rmt.beyond.many_classes import MulticlassScore
    from rmt.linear.gaussian import GaussianScore
    from rmt.linear.regression import RegressionRisk
    from rmt.settings.classes import ClassTransfer
    from rmt.settings.many_classes import MulticlassTransfer
    from rmt.settings.regression import Regression


@overload
def theory(setting: Regression, loss: Loss | str = "square") -> RegressionRisk: ...
@overload
def theory(setting: MulticlassTransfer, loss: Loss | str = "square") -> MulticlassScore: ...
@overload
def theory(setting: ClassTransfer, loss: Loss | str = "square") -> ClassScore: ...
@overload
def theory(setting: GaussianTransfer, loss: Literal["square"] = "square") -> GaussianScore: ...
@overload
def theory(setting: Transfer, loss: Literal["square"] = "square") -> TransferScore: ...
@overload
def theory(setting: Transfer | GaussianTransfer, loss: Literal["square"] = "square") -> TransferScore: ...
@overload
def theory(
    setting: Transfer | GaussianTransfer | SubspaceTransfer | FilteredTransfer | EllipticalTransfer,
    loss: Literal["square"] = "square",
) -> Quadratic: ...
@overload
def theory(setting: Setting, loss: Loss | str = "square") -> Score: ...
def theory(setting: Setting, loss: Loss | str = "square") -> Any:
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
    kind = kind_of(setting)
    if kind is None:
        *most, last = (one.__name__ for one in KINDS)
        raise ValueError(f"setting must be a {', '.join(most)} or {last}, got {type(setting).__name__}")
    return named(kind.theory)(setting, loss)


def isotropic(setting: Transfer, loss: Loss | str) -> Score:
    """Isotropic noise: closed forms for the square loss, a fixed point for any other."""
    from rmt.linear.blocks import isotropic_score
    from rmt.linear.isotropic import SeveralSourcesScore

    loss = find_loss(loss)
    if loss is not SQUARE:
        return _convex(setting, loss)
    return isotropic_score(setting) if setting.source_count is None else SeveralSourcesScore(setting)


def gaussian(setting: GaussianTransfer, loss: Loss | str) -> Score:
    """Noise of any covariance: closed forms for the square loss, a fixed point for any other."""
    from rmt.linear.gaussian import GaussianScore

    loss = find_loss(loss)
    return GaussianScore(setting) if loss is SQUARE else _convex(setting, loss)


def _convex(setting: Transfer | GaussianTransfer, loss: Loss) -> Score:
    from rmt.beyond.several import several_score
    from rmt.convex.fixed_point import convex_score

    return convex_score(setting, loss) if setting.source_count is None else several_score(setting, loss)


def random_features(setting: RandomFeatures, loss: Loss | str) -> Score:
    """Random features: the theory of their linear equivalent."""
    return theory(setting.linear, loss)
