"""Checks of user input. Every message names the argument, the value and the remedy."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int_]
BoolArray = NDArray[np.bool_]


def shown(value: Any) -> str:
    """A short form of ``value`` for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def real(name: str, value: Any) -> FloatArray:
    """``value`` as a float array (any shape) without NaN; booleans are no numbers."""
    try:
        found = np.asarray(value)
        # NumPy would read texts and truth values as numbers.
        if found.dtype.kind not in "iufO" or (found.dtype.kind == "O" and any(map(_no_number, found.flat))):
            raise TypeError
        array = np.asarray(found, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number or an array of numbers, got {shown(value)}") from None
    if np.isnan(array).any():
        raise ValueError(f"{name} must not contain NaN, got {shown(value)}; drop or fill those entries")
    return array


def _no_number(value: Any) -> bool:
    return isinstance(value, bool | np.bool_ | str | bytes)


def line(name: str, array: FloatArray) -> FloatArray:
    """``array`` as one dimension: one number or a list of them."""
    if array.ndim > 1:
        raise ValueError(f"{name} must be a list of numbers, or one, got shape {array.shape}")
    return np.atleast_1d(array)


#: Largest size of a measured quantity: the theory works with squares of products of two of them, which must not
#: overflow. Largest count: beyond it a float no longer holds every whole number.
LARGEST, MOST = 1e75, 2.0**53


def finite(name: str, value: Any, *, largest: float = np.inf, remedy: str = "") -> FloatArray:
    """``value`` as a float array of finite numbers of size ≤ ``largest``."""
    array = real(name, value)
    if np.isinf(array).any():
        raise ValueError(f"{name} must be finite, got {shown(value)}{'; ' + remedy if remedy else ''}")
    if (array > largest).any() or (array < -largest).any():
        raise ValueError(
            f"{name} must not exceed {largest:g} in size, got {shown(value)}; "
            f"{remedy or 'choose units in which it is of moderate size'}"
        )
    return array


def at_least(
    name: str, value: Any, low: float, *, infinite: bool = False, largest: float = np.inf, remedy: str = ""
) -> FloatArray:
    """``value`` as a float array with every entry ≥ ``low`` and ≤ ``largest``; ``infinite`` admits +inf."""
    array = real(name, value) if infinite else finite(name, value, largest=largest, remedy=remedy)
    if (array < low).any():
        raise ValueError(f"{name} must be ≥ {low:g}, got {shown(value)}{'; ' + remedy if remedy else ''}")
    return array


def penalty(name: str, value: Any) -> FloatArray:
    """``value`` as a float array of ridge penalties, ≥ 0 and small enough to be squared."""
    remedy = "rmt.joint_optimum gives the limit of an infinite penalty"
    if (real(name, value) < 0).any():
        remedy = ""
    return at_least(name, value, 0.0, largest=LARGEST, remedy=remedy)


def count(name: str, value: Any, *, low: int = 1, infinite: bool = False) -> FloatArray:
    """``value`` as a float array of whole numbers ≥ ``low`` (and ≤ 2⁵³); ``infinite`` admits +inf."""
    array = at_least(name, value, low, infinite=infinite)
    if (np.isfinite(array) & (array > MOST)).any():
        raise ValueError(f"{name} must be ≤ 2^53, got {shown(value)}; {'use inf' if infinite else 'give a true count'}")
    if (np.isfinite(array) & (array != np.round(array))).any():
        raise ValueError(f"{name} counts things and must be a whole number, got {shown(value)}")
    return array


def whole(name: str, value: Any, *, low: int = 1) -> int:
    """``value`` as one Python integer ≥ ``low``."""
    array = count(name, value, low=low)
    if array.ndim:
        raise ValueError(f"{name} must be one whole number, got an array of shape {array.shape}")
    return int(value) if isinstance(value, int | np.integer) else int(array)  # a float keeps 53 bits only


def whole_within(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as one Python integer between ``low`` and ``high``."""
    found = whole(name, value, low=low)
    if found > high:
        raise ValueError(f"{name} must be at most {high:,}, got {shown(value)}")
    return found


def flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False; texts such as "no" would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def one(name: str, value: Any) -> float:
    """``value`` as one finite number."""
    array = finite(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be one number, got an array of shape {array.shape}")
    return float(array)


def listed(name: str, value: Any, what: str) -> list[Any]:
    """The members of ``value``, a list of ``what``; a text is none, whose letters would be its members."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list of {what}, got {shown(value)}")
    if getattr(value, "ndim", 1) == 0:
        raise ValueError(f"{name} must be a list of {what}, got one value; write [{shown(value)}]")
    return list(value)


def table(name: str, value: Any) -> Mapping[Any, Any]:
    """``value`` if it has keys."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a table of names and values, got {shown(value)}")
    return value


def of_type(name: str, value: Any, *types: type) -> None:
    """Raise ValueError unless ``value`` is of one of these types."""
    if not isinstance(value, types):
        raise ValueError(f"{name} must be a {' or '.join(one.__name__ for one in types)}, got {shown(value)}")


def fits_memory(what: str, numbers: float, remedy: str) -> None:
    """Raise ValueError if so many float64 numbers are more than this machine's memory; nothing is allocated."""
    have = memory()
    if 8.0 * numbers > have:
        raise ValueError(
            f"{what} needs about {8e-9 * numbers:,.3g} GB, this machine has {1e-9 * have:,.3g} GB; {remedy}"
        )


def memory() -> float:
    """Bytes of memory that this process can have: the machine's, or less if its control group says so."""
    try:
        found = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # not on Windows
        return math.inf
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            found = min(found, float(file.read()))
    return found


def one_of(name: str, value: Any, options: tuple[str, ...]) -> str:
    """``value`` if it is one of ``options``."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {shown(value)}")
    return value


def broadcast(**arrays: FloatArray) -> tuple[int, ...]:
    """The common shape of the named arrays, by NumPy's rules."""
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items() if array.ndim)
        raise ValueError(f"the shapes do not broadcast together: {shapes}; align them by NumPy's rules") from None
