"""Timing of what is to be compared, in turns, and the machine it is done on."""

import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

from fastnn.kernels._tile import VECTOR_BITS

TURN = 5e-4  # seconds that a turn takes at the least, many times what the clock resolves


def machine() -> str:
    """Say in one line what the figures depend on."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    cpu = model[1] if model else platform.processor() or platform.machine()
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return (
        f"{cpu}, {VECTOR_BITS}-bit vectors, one thread; numba {numba.__version__}, "
        f"numpy {np.__version__} with {blas['name']} {blas['version']}"
    )


def interleaved(
    calls: dict[str, Callable], seconds: float = 1.0, least: int = 5
) -> dict[str, np.ndarray]:
    """Time callables in turns, A B A B ..., so that what disturbs one disturbs the others.

    Parameters
    ----------
    calls : dict of str to callable
        Called without arguments.
    seconds : float
        How long all rounds together should take.
    least : int
        Rounds even if that takes longer.

    Returns
    -------
    dict of str to array
        Seconds for one call, in every round. A turn makes several calls where one is short.
    """
    numbers = {}
    for name, call in calls.items():
        call()  # compiles, loads, faults pages in
        number = 1
        while (spent := _turn(call, number)) < TURN:
            number = max(2 * number, int(number * TURN / spent))
        numbers[name] = number
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < least or time.perf_counter() < end:
        rounds.append([_turn(call, numbers[name]) / numbers[name] for name, call in calls.items()])
    return dict(zip(calls, np.array(rounds).T, strict=True))


def _turn(call: Callable, number: int) -> float:
    began = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - began


def speedup(times: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """How many times as fast as the other: best against best, and the median over the rounds."""
    return other.min() / times.min(), float(np.median(other / times))
