"""From a setting to its score: ``theory`` dispatches on the type of the setting."""

from __future__ import annotations

from typing import Any

from rmt import validate
from rmt.setting import Transfer


def theory(setting: Any, loss: str = "square") -> Any:
    """The high-dimensional prediction for ``setting``.

    Args:
        setting: a :class:`rmt.Transfer` (gives a :class:`rmt.Score`) or a :class:`rmt.Regression`
            (gives a :class:`rmt.RegressionRisk`).
        loss: ``"square"``.

    Raises:
        ValueError: unknown loss, or a setting of an unknown type.
    """
    from rmt.regression import Regression, RegressionRisk
    from rmt.covariance import GaussianScore, GaussianTransfer
    from rmt.ridge import IsotropicScore, several_sources

    validate.one_of("loss", loss, ("square",))
    if isinstance(setting, Transfer):
        return IsotropicScore(setting) if setting.source_count is None else several_sources(setting)
    if isinstance(setting, GaussianTransfer):
        return GaussianScore(setting)
    if isinstance(setting, Regression):
        return RegressionRisk(setting)
    raise ValueError(f"setting must be a Transfer or a Regression, got {type(setting).__name__}")
