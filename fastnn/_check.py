"""What every public entry checks before anything changes: one line of error, or clean values."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from numbers import Integral, Real
from typing import Any


def one_of(argument: str, value: Any, known: Iterable[str]) -> str:
    """A known name, or an error that lists the known ones, nearest first."""
    names = sorted(known)
    if not isinstance(value, str):
        raise TypeError(
            f"{argument} must be one of {', '.join(names)}, got {type(value).__name__}: {value!r}"
        )
    if value in names:
        return value

    def likeness(name: str) -> float:
        return SequenceMatcher(None, value.lower(), name).ratio()

    ordered = sorted(names, key=likeness, reverse=True)
    raise ValueError(f"{argument} must be one of {', '.join(ordered)}; got {value!r}")


def whole(argument: str, value: Any, least: int = 1) -> int:
    """A whole number, at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{argument} must be a whole number, got {type(value).__name__}: {value!r}")
    if value < least:
        raise ValueError(f"{argument} must be at least {least}, got {value}")
    return int(value)


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
        raise TypeError(f"{argument} must be a number, got {type(value).__name__}: {value!r}")
    if not (least <= float(value) and above < float(value) < below):
        limits = [
            *([f"at least {least:g}"] if least > float("-inf") else []),
            *([f"above {above:g}"] if above > float("-inf") else []),
            *([f"below {below:g}"] if below < float("inf") else []),
        ]
        raise ValueError(f"{argument} must be {' and '.join(limits) or 'finite'}, got {value}")
    return float(value)
