"""How many threads, and how they are started."""

from __future__ import annotations

import math
import os
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fastnn._check import whole
from fastnn.kernels import _team
from fastnn.plan import Plan

VARIABLE = "FASTNN_NUM_THREADS"
# Floating-point operations for each thread that are worth two meetings in every step of
# training, and the start of the threads.
STEP, CALL = 1e6, 2e7


@cache
def processors() -> int:
    """Processors that this process may use: its affinity, and the quota of its container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota(Path("/sys/fs/cgroup"))
    return max(1, min(count or 1, quota or sys.maxsize))


def _quota(root: Path) -> int | None:
    """Processors a Linux control group grants, or None."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((root / name).read_text() for name in names).split()
            return math.ceil(int(quota) / int(period)) if int(quota) > 0 else None
        except (OSError, ValueError):  # another system, another version, or "max"
            continue
    return None


def training(threads: int | None, plan: Plan, batch: int) -> int:
    """Threads for steps of so many rows: three products with every weight and row."""
    return _number(threads, 6 * plan.size * batch / STEP)


def looking(threads: int | None, plan: Plan, rows: int) -> int:
    """Threads for one look at so many rows: one product."""
    return _number(threads, 2 * plan.size * rows / CALL)


def _number(threads: int | None, useful: float) -> int:
    """What the user asks for, or the variable; else so many as are useful and exist."""
    if threads is None and os.environ.get(VARIABLE):
        text = os.environ[VARIABLE]
        threads = whole(VARIABLE, int(text) if text.isdecimal() else text)
    if threads is None:
        threads = max(1, min(processors(), int(useful)))
    return threads if _team.AVAILABLE else 1


def together(threads: int, function: Any, *arguments: Any) -> Any:
    """Call a function of `fastnn.kernels.run` in so many threads; what the first one returned."""
    team = np.zeros(_team.TEAM, np.int64)
    # Code that is not compiled yet would be compiled by all of them, one after another.
    ready = threads > 1 and bool(function.signatures)
    others = []
    try:
        for seat in range(1, threads if ready else 1):
            thread = threading.Thread(
                target=function, args=(*arguments, team, seat), name=f"fastnn-{seat}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the system has no more; those that are there will do
                break
            others.append(thread)
        team[_team.WANTED] = 1 + len(others)
        return function(*arguments, team, 0)
    finally:
        if team[_team.MEMBERS] == 0:  # never joined: an interrupt came first
            team[_team.MEMBERS] = _team.CALLED_OFF
        for thread in others:
            thread.join()
