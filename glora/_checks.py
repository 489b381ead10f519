"""Checks of settings: each raises a ValueError that names the setting, what it must be and what it got."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

#: What annotations ask for: types that a TOML value may have, and the words for them.
_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    Mapping: ((Mapping,), "a table"),
}


def choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """`value` is one of a few words."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    """`value` is a whole number from `low` on, up to `high` if there is a limit."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
        raise ValueError(f"{name} must be a whole number ≥ {low}, got {value!r}")
    if high is not None and int(value) > high:
        raise ValueError(f"{name} must be at most {high:,}, got {value!r}")


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


def fits_memory(what: str, size: float, remedy: str) -> None:
    """Raise ValueError if so many bytes are more than this machine's memory; nothing is allocated."""
    try:
        have = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # not on Windows
        return
    if size > have:
        raise ValueError(f"{what} needs about {1e-9 * size:,.3g} GB, this machine has {1e-9 * have:,.3g} GB; {remedy}")


def table(name: str, value: Any) -> None:
    """`value` has keys."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a table, got {value!r}")


def of_kind(name: str, value: Any, annotation: Any) -> None:
    """`value` has the type that an annotation says: str, bool, int, float, a Mapping, or None if it allows that.

    Other annotations say nothing. Texts stand for no other type: "False" would be true.
    """
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if value is None and type(None) in choices:
        return
    kinds = [get_origin(kind) or kind for kind in choices if kind is not type(None)]
    if len(kinds) != 1 or _found_kind(kinds[0]) is None:
        return
    types, words = _KINDS[_found_kind(kinds[0])]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(f"{name} must be {words}, got {value!r}")


def options_of_kind(section: str, owner: Any, options: Mapping[str, Any]) -> None:
    """Options have the types that the signature or the fields of `owner` (a function or a class) say."""
    hints = get_type_hints(owner)
    for key, value in options.items():
        if key in hints:
            of_kind(f"{section}.{key}" if section else key, value, hints[key])


def _found_kind(kind: Any) -> Any:
    """The key of `_KINDS` for a type, or None."""
    return next((known for known in _KINDS if kind is known), None)
