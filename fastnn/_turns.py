"""Who may move a network's parameters, and when others may look."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

__all__ = ["Turns"]

# How long a training waits at most, between two slices, for threads that want a copy.
_PATIENCE = 0.005
_gate = threading.Lock()  # in front of who trains which network, held for a moment
_T = TypeVar("_T")


def _new_gate() -> None:
    """In a forked child nobody may be left who would open it."""
    global _gate
    _gate = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_gate)


class Turns:
    """Of one network.

    Attributes
    ----------
    version : int
        Odd while parameters move, another one after. Whoever sees the same even number before
        and after a look has seen parameters at rest, and needs no lock: looks are many and short.
    busy : (int, int)
        Process and thread that train.
    taken : array (1,) of int64
        Not 0 while anybody trains, in Python or in compiled code, which knows this number alone.
    """

    def __init__(self) -> None:
        self.version = 0
        self.busy = 0, 0
        self.taken = np.zeros(1, np.int64)
        self.waiting: dict[int, bool] = {}  # threads that want to see the parameters at rest

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one training at a time.

        Raises
        ------
        RuntimeError
            Where there is another one.
        """
        me = os.getpid(), threading.get_ident()
        with _gate:
            if self.busy[0] == me[0]:  # else the other process has it, not this one
                raise RuntimeError("the network is being fitted; wait for that, or fit a copy")
            self.refuse_halves()
            if self.taken[0] and not self.busy[0]:
                raise RuntimeError(
                    "the network is being trained by compiled code in another thread; wait for "
                    "that, or fit a copy"
                )
            self.busy, self.taken[0] = me, 1
        try:
            yield
        finally:
            self.busy, self.taken[0] = (0, 0), 0

    def refuse_others(self) -> None:
        """Let nobody change, copy or save a network that another thread trains."""
        process, thread = self.busy
        if process == os.getpid() and thread != threading.get_ident():
            raise RuntimeError("the network is being fitted by another thread; wait for that")

    def refuse_halves(self) -> None:
        """In a process that was forked in the middle of a step, the parameters are half moved."""
        if self.version % 2 and self.busy[0] not in (0, os.getpid()):
            raise RuntimeError(
                "the network was being fitted when this process was forked; "
                "load its parameters from a file, or build it anew"
            )

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Surrounds what moves parameters: other threads see them before or after it."""
        self.version |= 1
        try:
            yield
        finally:
            self.version += 1
        patience = time.monotonic() + _PATIENCE
        while self.waiting and time.monotonic() < patience:
            time.sleep(1e-4)

    def steadily(self, look: Callable[[np.ndarray], _T], params: np.ndarray) -> _T:
        """``look(params)`` at parameters that stay as they are meanwhile.

        Where another thread trains, what was seen of moving ones is thrown away, and a copy is
        taken between two of its slices.
        """
        version = self.version
        if version % 2 == 0:
            result = look(params)
            if self.version == version:
                return result
        me = threading.get_ident()
        self.waiting[me] = True
        try:
            while True:
                self.refuse_halves()
                version = self.version
                if version % 2 == 0:
                    copy = params.copy()
                    if self.version == version:
                        break
                time.sleep(1e-4)
        finally:
            del self.waiting[me]
        return look(copy)
