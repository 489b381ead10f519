"""The score of many isotropic settings at once, in blocks: answers need the memory of their result and little more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmt import _checks
from rmt._checks import FloatArray
from rmt.linear.isotropic import IsotropicScore
from rmt.settings.isotropic import FixedSource, Transfer

#: Settings computed at once; intermediate arrays of a block stay in the cache.
BLOCK = 1 << 16


def isotropic_score(setting: Transfer) -> IsotropicScore:
    """The score of an isotropic setting with one source; of many settings in blocks."""
    return BlockedScore(setting) if np.prod(setting.shape, dtype=float) > BLOCK else IsotropicScore(setting)


class BlockedScore(IsotropicScore):
    """An :class:`IsotropicScore` whose answers are computed block by block, with the same numbers.

    Its inner arrays (``c``, ``V``, ``resolvent`` …) are there as well, and are computed for all settings when asked.
    """

    def __init__(self, setting: Transfer) -> None:
        self.setting = setting
        self.vector_alpha = False
        self.sources = 1

    def __getattr__(self, name: str) -> Any:  # what `IsotropicScore` computes at once
        if name.startswith("__") or name == "setting":
            raise AttributeError(name)
        whole = vars(IsotropicScore(self.setting))
        if name not in whole:
            raise AttributeError(name)
        vars(self).update(whole)
        return whole[name]

    def _blocks(self) -> Iterator[tuple[int, slice, Transfer]]:
        """Pieces of the settings along their longest axis: the axis from the right, where, and the settings there."""
        shape = self.setting.shape
        axis = int(np.argmax(shape)) - len(shape)
        step = max(1, BLOCK * shape[axis] // int(np.prod(shape)))
        for start in range(0, shape[axis], step):
            place = slice(start, start + step)
            source = self.setting.source
            changes = {
                name: _cut(value, axis, place)
                for name, value in vars(self.setting).items()
                if name in Transfer.__dataclass_fields__ and name != "source" and value is not None
            }
            if source is not None:
                source = FixedSource(overlap=_cut(source.overlap, axis, place), norm2=_cut(source.norm2, axis, place))
            yield axis, place, replace(self.setting, **changes, source=source)

    def _answer(self, ask: Callable[[IsotropicScore, Any], FloatArray], alpha: ArrayLike = 0.0) -> FloatArray:
        scales = _checks.real("alpha", alpha)
        found = np.empty(np.broadcast_shapes(self.setting.shape, scales.shape))
        for axis, place, part in self._blocks():
            found[_index(axis, place)] = ask(isotropic_score(part), _cut(scales, axis, place))
        return found


def _cut(value: Any, axis: int, place: slice) -> Any:
    """The part of an array that belongs to a part of the settings; what broadcasts along the axis stays whole."""
    array = np.asarray(value)
    if array.ndim < -axis or array.shape[axis] == 1:
        return value
    return array[_index(axis, place)]


def _index(axis: int, place: slice) -> tuple[Any, ...]:
    return (..., place, *(slice(None) for _ in range(-axis - 1)))


def _property(name: str) -> property:
    return property(
        lambda self: self._answer(lambda score, _: getattr(score, name)), doc=getattr(IsotropicScore, name).__doc__
    )


def _method(name: str) -> Callable[..., FloatArray]:
    def method(self: BlockedScore, alpha: ArrayLike, **options: Any) -> FloatArray:
        return self._answer(lambda score, scales: getattr(score, name)(scales, **options), alpha)

    method.__doc__ = getattr(IsotropicScore, name).__doc__
    return method


for _name in ("mean", "variance", "second_moment", "risk", "snr", "accuracy"):
    setattr(BlockedScore, _name, _method(_name))
for _name in ("alpha_star", "alpha_bar", "alpha_risk", "best_snr", "best_accuracy", "supremum_snr", "scaled_star"):
    setattr(BlockedScore, _name, _property(_name))
setattr(BlockedScore, "accuracy_source_only", _property("accuracy_source_only"))  # noqa: B010
