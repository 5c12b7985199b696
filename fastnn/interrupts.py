"""Ctrl-C, heard between steps and never within one.

Python raises KeyboardInterrupt wherever the program happens to be: between an update of the
parameters and the note that it was made, a training could not go on from there. So while a
training runs, the signal's handler waits until what belongs together is done, about 30 ms.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """Holds back the handler of SIGINT, whichever it is, while something must not be torn apart.

    Only in the main thread, where Python handles signals; elsewhere, and where the signal is
    ignored, there is nothing to hold back.

    Examples
    --------
    >>> import signal
    >>> with Interrupts() as interrupts:
    ...     try:
    ...         with interrupts.held():
    ...             signal.raise_signal(signal.SIGINT)
    ...             print("done")
    ...     except KeyboardInterrupt:
    ...         print("heard")
    done
    heard
    """

    def __init__(self) -> None:
        self.handler: Any = None  # the one that was there before
        self.depth, self.waiting = 0, False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self.handler = handler
                signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(self, *error: object) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGINT, self.handler)
            self._deliver()  # what came while something failed

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.depth:
            self.waiting = True
        else:
            self.handler(number, frame)

    def _deliver(self) -> None:
        if self.waiting and not self.depth:
            self.waiting = False
            self.handler(signal.SIGINT, None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal waits for the end of this block."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
        self._deliver()
