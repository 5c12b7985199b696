"""Timing of what is to be compared, in turns, and the machine it is done on."""

import os
import platform
import re
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fastnn._threads import processors
from fastnn.kernels._vectors import VECTOR_BITS

Call = Callable[[int], Any]  # does something so many times

# Threads that waited in a spin for more work have gone to sleep by then: nobody's are awake in
# another's turn.
PAUSE = 0.02
LIBRARIES = ("numpy", "numba", "torch", "jax", "scikit-learn", "onnxruntime")


def facts() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""  # not installed
    versions["BLAS of numpy"] = f"{blas['name']} {blas['version']}"
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "processors": processors(),
        "vector_bits": VECTOR_BITS,
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def machine() -> str:
    """The same in one line."""
    known = facts()
    versions = ", ".join(f"{name} {v}" for name, v in known["versions"].items() if v)
    return (
        f"{known['cpu']}, {known['processors']} processors, "
        f"{known['vector_bits']}-bit vectors; {versions}"
    )


def repeated(call: Callable[[], Any]) -> Call:
    """Call it so many times."""

    def calls(number: int) -> None:
        for _ in range(number):
            call()

    return calls


def interleaved(
    calls: dict[str, Call],
    turn: float = 0.05,
    rounds: int = 5,
    seconds: float = 0.0,
    least: int = 1,
) -> dict[str, np.ndarray]:
    """Time callables in turns, A B A B ..., so that what disturbs one disturbs the others.

    Parameters
    ----------
    calls : dict of str to callable
        Each takes how many times it shall do what it does.
    turn : float
        Seconds that a turn should take: as many times as that needs.
    rounds, seconds : int and float
        How many turns each has, and more until so much time has passed.
    least : int
        Times that a turn has at the least.

    Returns
    -------
    dict of str to array
        Seconds for one time, in every round.
    """
    numbers = {name: max(_number(call, turn), least) for name, call in calls.items()}
    times: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(times) < rounds or time.perf_counter() < end:
        times.append([])
        for name, call in calls.items():
            time.sleep(PAUSE)
            times[-1].append(_spent(call, numbers[name]) / numbers[name])
    return dict(zip(calls, np.array(times).T, strict=True))


def _number(call: Call, turn: float) -> int:
    """How many times fill a turn."""
    call(1)  # compiles, loads, faults pages in
    number = 1
    while (spent := _spent(call, number)) < turn / 2:
        number = max(2 * number, int(number * min(100, turn / spent)))
    return max(1, round(number * turn / spent))


def _spent(call: Call, number: int) -> float:
    began = time.perf_counter()
    call(number)
    return time.perf_counter() - began


def speedup(times: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """How many times as fast as the other: best against best, and the median over the rounds."""
    return other.min() / times.min(), float(np.median(other / times))
