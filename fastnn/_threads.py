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
from fastnn.interrupts import Interrupts
from fastnn.kernels import _shares, _team
from fastnn.plan import Plan

VARIABLE = "FASTNN_NUM_THREADS"
# Floating-point operations for each thread that may be worth two meetings in every step of
# training, and that are worth the start of the threads.
STEP, CALL = 1e5, 2e7
BEGIN = 2e7  # such operations for each thread to begin with: about 0.2 ms


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
        # Another system, another version, or "max".
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return None


class Crew:
    """How many threads train fastest, found out by trying.

    What a step gains from a second thread depends on the network, on how far the caches of the
    processors are from each other, and on who else is at work. As any number of threads gives
    the same bits, training tries: from a few on, one where steps are short, twice as many as
    long as that is faster. Numbers are tried in turns and the best turn of each counts, for the
    machine does other things as well. After a second of training, two seconds, four, ... it looks
    at the next numbers below and above, for the load may have changed.

    Parameters
    ----------
    first, most : int
        Threads to begin with, and how many there may be. Where it is one, single steps are too
        short to be worth the start of another.
    tries : bool
        Whether to try others than the first.
    """

    GAIN = 0.95  # more threads must bring the time of a step below this share
    LONG = 0.005  # seconds of a slice that say something
    TURNS = 2  # slices of each number that is tried; the first of all may have compiled
    FAR = 1.3  # times the best step of all: a number that takes so long is not tried again

    def __init__(self, first: int, most: int, tries: bool = True) -> None:
        self.first, self.best, self.most = first, first, most
        self.trained, self.pause = 0.0, 1.0  # seconds
        self.times: dict[int, float] = {}  # of a step, for each number that is tried
        self.trials: list[int] = []
        self.recent: list[float] = []  # times of a step in the last slices that tried nothing
        self._shares: dict[int, np.ndarray] = {}  # as they were, for each number of threads
        self.again = math.inf
        if tries and most > 1:
            self.again = self.pause
            if first < most:
                self._compare(first, 2 * first)

    def _compare(self, *numbers: int) -> None:
        """Try those of some numbers of threads that are possible, and not known yet."""
        possible = {min(number, self.most) for number in numbers} - {0, *self.times}
        self.trials = sorted(possible) * self.TURNS

    @property
    def threads(self) -> int:
        """For the next slice."""
        if not self.trials and self.trained > self.again:
            self.times = {self.best: min(self.recent)} if self.recent else {}
            self._compare(self.best // 2, self.best, 2 * self.best)
        return self.trials[0] if self.trials else self.best

    @property
    def shares(self) -> np.ndarray:
        """How much each thread does in the next slice, which moves it: see `kernels._shares`."""
        threads = self.threads
        if threads not in self._shares:
            self._shares[threads] = _shares.even(threads)
        return self._shares[threads]

    def learn(self, batches: int, seconds: float) -> None:
        """Take note of how long the last slice took, unless the start of the threads did."""
        self.trained += seconds
        if seconds < self.LONG:
            return
        step = seconds / batches
        if not self.trials:
            self.recent = [step, *self.recent][: self.TURNS]
            return
        tried = self.trials.pop(0)
        self.times[tried] = min(step, self.times.get(tried, math.inf))
        if self.times[tried] > self.FAR * min(self.times.values()):
            self.trials = [number for number in self.trials if number != tried]
        if self.trials:
            return
        self.recent.clear()
        self.best, *others = sorted(self.times)
        for number in others:
            if self.times[number] < self.GAIN * self.times[self.best]:
                self.best = number
        self._compare(self.best // 2, 2 * self.best)
        if not self.trials:
            self.again = self.trained + self.pause
            self.pause *= 2


def training(threads: int | None, plan: Plan, batch: int) -> Crew:
    """Threads for steps of so many rows: three products with every weight and row."""
    threads = _wanted(threads)
    if threads is not None:
        return Crew(threads, threads, tries=False)
    work = 6 * plan.products * batch
    most = _useful(work / STEP)
    return Crew(_useful(work / BEGIN), most)


def looking(threads: int | None, plan: Plan, rows: int) -> int:
    """Threads for one look at so many rows: one product."""
    return _wanted(threads) or _useful(2 * plan.products * rows / CALL)


def everyone(threads: int | None) -> int:
    """Threads for what needs no meetings."""
    return _wanted(threads) or processors()


def asked() -> str:
    """What the environment asks for, if anything."""
    return os.environ.get(VARIABLE, "")


def _wanted(threads: int | None) -> int | None:
    """What the user asks for, here or by the variable."""
    if threads is None and (text := asked()):
        threads = whole(VARIABLE, int(text) if text.isdecimal() else text)
    return threads if _team.AVAILABLE else 1


def _useful(number: float) -> int:
    """So many threads, if there are processors for them."""
    return max(1, min(processors(), int(number)))


def _team_of(threads: int, function: Any, arguments: tuple[Any, ...]) -> tuple[Any, bool]:
    """Call a function in so many threads; what the first one returned, and if they were a team."""
    team = np.zeros(_team.TEAM, np.int64)
    others: list[threading.Thread] = []
    try:
        for seat in range(1, threads):
            thread = threading.Thread(
                target=function, args=(*arguments, team, seat), name=f"fastnn-{seat}"
            )
            thread.daemon = True
            try:
                thread.start()
            except RuntimeError:  # the system has no more; those that are there will do
                break
            others.append(thread)
        team[_team.WANTED] = 1 + len(others)
        result = function(*arguments, team, 0)
    finally:
        if team[_team.MEMBERS] == 0:  # never joined: something failed first
            team[_team.MEMBERS] = _team.CALLED_OFF
        for thread in others:
            thread.join()
    return result, bool(team[_team.MEMBERS] != _team.CALLED_OFF)


def together(threads: int, function: Any, *arguments: Any) -> Any:
    """Call a function of `fastnn.kernels.run` in so many threads; what the first one returned."""
    # Code that is not compiled yet would be compiled by all of them, one after another.
    if threads > 1 and function.signatures:
        # Ctrl-C waits for the others: they work on memory that whoever is interrupted lets go.
        with Interrupts() as interrupts, interrupts.held():
            result, complete = _team_of(threads, function, arguments)
        if complete:
            return result
    alone = np.zeros(_team.TEAM, np.int64)
    alone[_team.WANTED] = 1
    return function(*arguments, alone, 0)
