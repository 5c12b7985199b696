"""What every public entry checks before anything changes: one line of error, or clean values."""

import os
from collections.abc import Iterable
from difflib import SequenceMatcher
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

_SHOWN = 80  # letters of a value that an error shows
_LARGEST = (1 << 63) - 1  # what sizes and counts may be: they go into 64 bits


def shown(value: Any) -> str:
    """What came, in one short line; of what Python does not print, the kind."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # anybody's class, or more digits than Python prints
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def got(value: Any) -> str:
    """The kind of what came, and what it was."""
    return f"got {type(value).__name__}: {shown(value)}"


def one_of(argument: str, value: Any, known: Iterable[str]) -> str:
    """A known name, or an error that lists the known ones, nearest first."""
    names = sorted(known)
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be one of {', '.join(names)}, {got(value)}")
    if value in names:
        return value

    def likeness(name: str) -> float:
        return SequenceMatcher(None, value.lower(), name).ratio()

    ordered = sorted(names, key=likeness, reverse=True)
    raise ValueError(f"{argument} must be one of {', '.join(ordered)}; got {shown(value)}")


def whole(argument: str, value: Any, least: int = 1, most: int = _LARGEST) -> int:
    """A whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{argument} must be a whole number, {got(value)}")
    result = int(value)
    if result < least:
        raise ValueError(f"{argument} must be at least {least}, got {shown(result)}")
    if result > most:
        raise ValueError(f"{argument} must be at most {most}, got {shown(result)}")
    return result


def flag(argument: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as one: ``"no"`` would count as True."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{argument} must be True or False, {got(value)}")
    return bool(value)


def text(argument: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a string, {got(value)}")
    return value


def file_path(argument: str, value: Any) -> Path:
    """A path, of text."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{argument} must be a path, {got(value)}")
    return Path(value)


def numbers(argument: str, value: Any) -> np.ndarray:
    """Any dense array-like of real numbers as an array, without a copy where there is one."""
    kind = type(value).__name__
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(
            f"{argument} must be a dense array, got {kind}; convert it: {argument}.toarray()"
        )
    rows = value if isinstance(value, list | tuple) else (value,)
    if masked := sum(np.ma.count_masked(row) for row in rows if np.ma.is_masked(row)):
        raise ValueError(
            f"{argument} must have no masked values, got {masked}; "
            f"fill them first: {argument}.filled(...)"
        )
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever its __array__ or __len__ raises
        raise ValueError(
            f"{argument} must be an array of numbers, got {kind}: {' '.join(str(error).split())}"
        ) from None
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{argument} must hold real numbers, got an array of {array.dtype}")
    return array


def parameter(argument: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """What a parameter is to become; what was a finite number must be one in ``dtype``, too."""
    array = numbers(argument, value)
    if array.shape != shape:
        raise ValueError(f"{argument} must have shape {shape}, got {array.shape}")
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        new = array.astype(dtype)
    if not np.isfinite(new).all() and (np.isinf(new) & np.isfinite(array)).any():
        raise ValueError(f"{argument} must hold numbers of {dtype}, got larger ones")
    return new


def number(
    argument: str,
    value: Any,
    *,
    least: float = float("-inf"),
    above: float = float("-inf"),
    below: float = float("inf"),
) -> float:
    """A finite number with ``least <= value``, ``above < value < below``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{argument} must be a number, {got(value)}")
    try:
        result = float(value)
    except OverflowError:  # a whole number or a fraction that no float is as large as
        result = float("inf") if value > 0 else float("-inf")  # type: ignore[operator]
    if not (least <= result and above < result < below):
        limits = [
            *([f"at least {least:g}"] if least > float("-inf") else []),
            *([f"above {above:g}"] if above > float("-inf") else []),
            *([f"below {below:g}"] if below < float("inf") else []),
        ]
        raise ValueError(
            f"{argument} must be {' and '.join(limits) or 'finite'}, got {shown(result)}"
        )
    return result
