"""What was asked of a simulation, and a simulation under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from rmt._checks import FloatArray
from rmt.losses import Loss


def _rows(part: tuple[FloatArray, ...]) -> int:
    return len(part[0])


class Drawing(NamedTuple):
    """Blocks of draws as they are made, and what makes the first ``count`` draws a result."""

    parts: Iterator[tuple[FloatArray, ...]]
    finish: Callable[[Sequence[tuple[FloatArray, ...]], int], Any]
    size: Callable[[tuple[FloatArray, ...]], int] = _rows  #: draws of a block


@dataclass(frozen=True)
class Order:
    """What was asked of :func:`rmt.simulate`; a kind of setting takes what makes sense for it and refuses the rest."""

    draws: int
    seed: int
    method: str | None = None
    loss: Loss | str = "square"
    alpha: ArrayLike | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def of(self, setting: object) -> str:
        """The words for ``setting`` and the loss."""
        return f"a {type(setting).__name__} with loss {getattr(self.loss, 'name', self.loss)!r}"

    def without_alpha(self, setting: object) -> None:
        """Raise ValueError if scales were given where every one comes from the same fits."""
        if self.alpha is not None:
            raise ValueError(
                f"{self.of(setting)} gives every alpha from the same fits; leave alpha out and ask the result"
            )

    def fitted(self, setting: object) -> None:
        """Raise ValueError unless the setting is to be drawn and fitted, without further options."""
        self.only_direct(setting)
        if self.options:
            names = ", ".join(sorted(self.options))
            raise ValueError(f"{names}: options of a Transfer with the square loss, not of {self.of(setting)}")

    def only_direct(self, setting: object) -> None:
        """Raise ValueError if the exact law was asked for, which only a Transfer has."""
        if self.method == "exact":
            raise ValueError(
                f"method 'exact' samples a Transfer with the square loss; {self.of(setting)} needs method 'direct'"
            )

    def scales(self, setting: object) -> ArrayLike:
        """The scales that were given.

        Raises:
            ValueError: there are none.
        """
        if self.alpha is None:
            raise ValueError(f"{self.of(setting)} is fitted at given scales; give alpha, for instance alpha=[0, 1, 2]")
        return self.alpha
