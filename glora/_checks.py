"""Checks of settings: each raises a ValueError that names the setting, what it must be and what it got."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

#: What annotations of a section's fields ask for: types that a TOML value may have, and the words for them.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "Mapping[str, Any]": ((Mapping,), "a table"),
}


def choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """`value` is one of a few words."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def whole(name: str, value: Any, low: int) -> None:
    """`value` is a whole number from `low` on."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
        raise ValueError(f"{name} must be a whole number ≥ {low}, got {value!r}")


def number(name: str, value: Any, low: float) -> None:
    """`value` is a finite number from `low` on."""
    if not is_number(value) or value < low:
        raise ValueError(f"{name} must be a finite number ≥ {low:g}, got {value!r}")


def positive(name: str, value: Any) -> None:
    """`value` is a finite number above 0."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def fraction(name: str, value: Any) -> None:
    """`value` lies between 0 and 1, both excluded."""
    if not is_number(value) or not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number (True and False are none)."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def table(name: str, value: Any) -> None:
    """`value` has keys."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a table, got {value!r}")


def of_kind(name: str, value: Any, annotation: Any) -> None:
    """`value` has the type that a dataclass field's annotation ("str | None") says; other annotations say nothing."""
    kind, _, rest = str(annotation).partition(" | ")
    if kind not in _KINDS or (rest == "None" and value is None):
        return
    types, words = _KINDS[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(f"{name} must be {words}, got {value!r}")
