"""How much of the work each thread of a team does.

Processors are not equally fast: one has small cores beside large ones, another shares a core with
somebody else's program. Where all had as much to do, all would wait for the slowest at every
meeting. So each seat notes how long its share of a phase of training took, and between two calls
(``balance``) the shares follow: whoever had to wait does more. Nobody's results depend on where the
work is cut.
"""

import sys
import time
from itertools import accumulate, pairwise
from typing import NamedTuple

import llvmlite.binding
import numpy as np
from numba import types

from ._kernel import JIT, part
from ._memory import cube, pointer, pointer_at, shifted, vector

ROWS, WEIGHTS, PHASES = np.int64(0), np.int64(1), 2  # of a step of training
# What a seat has of a phase's array: how long it took, where its share begins, room for the clock.
SPENT, BEGIN, TIME, SEAT = (np.int64(place) for place in (0, 1, 2, 8))  # a line of the cache
WHOLE = np.int64(1 << 20)  # what all shares add up to
LEAST = 8  # a share is hardly less than such a part of an even one
START, STOP = np.int64(-1), np.int64(1)  # what the time counts, when a share begins and ends
PACE = 1 / 4  # of the way to what the last call says, which may have been disturbed


class Stretch(NamedTuple):
    """The part of a whole from ``begin`` to ``end``, for one seat."""

    begin: int
    end: int
    whole: int


def even(members: int) -> np.ndarray:
    """Shares to begin with, (phases, members + 1, 8): each seat's line, and where the last ends."""
    shares = np.zeros((PHASES, members + 1, SEAT), np.int64)
    shares[:, :, BEGIN] = WHOLE * np.arange(members + 1) // members
    return shares


def balance(shares: np.ndarray) -> None:
    """Move the shares towards those with which all would have been done at once."""
    members = shares.shape[1] - 1
    for lines in shares if members > 1 else ():
        spent, begins = lines[:-1, SPENT].tolist(), lines[:, BEGIN].tolist()
        if not all(spent):  # no clock, or no such phase
            continue
        did = [end - begin for begin, end in pairwise(begins)]
        speeds = [size / time for size, time in zip(did, spent, strict=True)]
        goals = [WHOLE * speed / sum(speeds) for speed in speeds]
        sizes = [size + PACE * (goal - size) for size, goal in zip(did, goals, strict=True)]
        sizes = [max(size, WHOLE / (LEAST * members)) for size in sizes]
        ends = list(accumulate(WHOLE * size / sum(sizes) for size in sizes))
        lines[1:-1, BEGIN], lines[:, SPENT] = ends[:-1], 0


@part(inline=True)
def evenly(seat, members):
    """The stretch of a seat where all have as much."""
    return Stretch(seat, seat + 1, members)


@part(inline=True)
def nobodys():
    """In place of shares, where one does it all."""
    return cube(pointer_at(np.int64(0), np.int64(0)), 0, 0, 0, 0)


@part(inline=True)
def share(n, grain, stretch):
    """The part ``lo..hi`` of ``0..n`` in a stretch; ``lo`` is a multiple of ``grain``."""
    units = (n + grain - 1) // grain
    lo = units * stretch.begin // stretch.whole * grain
    return lo, min(n, units * stretch.end // stretch.whole * grain)


@part(inline=True)
def planned(shares, members):
    """Whether the shares are those of so many members; else some thread did not come."""
    return members > 1 and shares.shape[1] == members + 1


@part(inline=True)
def line(shares, phase, seat):
    """What a seat has of a phase's array."""
    return vector(pointer(shares), (phase * shares.shape[1] + seat) * SEAT, SEAT)


@part(inline=True)
def stretch_of(shares, phase, seat, members):
    """What a seat does in a phase."""
    if planned(shares, members):
        begin, end = line(shares, phase, seat)[BEGIN], line(shares, phase, seat + 1)[BEGIN]
        return Stretch(begin, end, WHOLE)
    return evenly(seat, members)


_NAME = "clock_gettime"  # of POSIX; seconds and nanoseconds are two int64 where addresses are
CLOCK = (
    JIT
    and hasattr(time, _NAME)
    and llvmlite.binding.address_of_symbol(_NAME) is not None
    and sys.maxsize > 1 << 32
)

if CLOCK:
    _clock_gettime = types.ExternalFunction(
        _NAME, types.int32(types.int32, types.CPointer(types.int64))
    )
    _STEADY = np.int32(time.CLOCK_MONOTONIC)

    @part
    def stopwatch(shares, phase, seat, members, sign):
        """``START`` or ``STOP`` counting the nanoseconds that a seat spends on its share."""
        if planned(shares, members):
            own = line(shares, phase, seat)
            _clock_gettime(_STEADY, shifted(pointer(own), TIME))
            own[SPENT] += sign * (own[TIME] * np.int64(1_000_000_000) + own[TIME + 1])

else:

    @part
    def stopwatch(shares, phase, seat, members, sign):
        """Nothing is counted: shares stay even."""
