"""The kinds of setting: one line each says who predicts it and who simulates it.

A new kind is a frozen dataclass with the :attr:`Setting.shape` of its fields, and its line in ``KINDS``. Functions are
named here, not imported: neither theory nor simulators come to know each other, and a setting loads only its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from rmt.features import RandomFeatures
from rmt.settings.classes import ClassTransfer
from rmt.settings.elliptical import EllipticalTransfer
from rmt.settings.filters import FilteredTransfer
from rmt.settings.gaussian import GaussianTransfer
from rmt.settings.isotropic import Transfer
from rmt.settings.many_classes import MulticlassTransfer
from rmt.settings.regression import Regression
from rmt.settings.subspace import SubspaceTransfer


class Setting(Protocol):
    """What is known of the data: a frozen dataclass that stands for ``shape`` many settings."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Broadcast shape of its fields; () for one setting."""


@dataclass(frozen=True)
class Kind:
    """Who answers for a kind of setting, each as "module:function" within ``rmt``."""

    theory: str  #: (setting, loss) → its score
    draw: str  #: (setting, :class:`rmt.simulators.drawing.Order`) → :class:`rmt.simulators.drawing.Drawing`
    model: str = ""  #: setting → :class:`rmt.simulators.model.Model`, where ``draw`` is one of ``simulators.fits``


KINDS: dict[type, Kind] = {
    Transfer: Kind("predict:isotropic", "simulators.simulation:transfer", "simulators.model:isotropic"),
    GaussianTransfer: Kind("predict:gaussian", "simulators.fits:every_alpha", "simulators.model:gaussian"),
    ClassTransfer: Kind("beyond.classes:class_score", "simulators.fits:given_alpha", "simulators.model:classes"),
    EllipticalTransfer: Kind(
        "beyond.elliptical:elliptical_score", "simulators.fits:given_alpha", "simulators.model:elliptical"
    ),
    SubspaceTransfer: Kind(
        "beyond.subspace:subspace_score", "simulators.fits:every_alpha", "simulators.model:subspace"
    ),
    MulticlassTransfer: Kind("beyond.many_classes:multiclass_score", "simulators.many_classes:classes"),
    FilteredTransfer: Kind("linear.filters:filtered_score", "simulators.fits:square_only", "simulators.model:filtered"),
    RandomFeatures: Kind("predict:random_features", "simulators.fits:every_alpha", "simulators.model:random_features"),
    Regression: Kind("linear.regression:regression_risk", "simulators.direct:regression"),
}


def kind_of(setting: object) -> Kind | None:
    """The kind of ``setting`` or of its nearest base class; None for what is no setting."""
    return next((KINDS[base] for base in type(setting).__mro__ if base in KINDS), None)


def named(function: str) -> Callable[..., Any]:
    """The function called "module:function" within ``rmt``."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(f"rmt.{module}"), name)
