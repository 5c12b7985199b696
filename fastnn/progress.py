"""What the user sees of a training that runs: a bar, for which there is tqdm, or lines."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

from fastnn._check import shown
from fastnn.training import Progress, Watcher

__all__ = ["watcher_of"]

PAUSE = 0.1  # seconds between two lines in a terminal
DRAW = 0.2  # seconds between two drawings of a bar: each takes about half a millisecond
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"


def watcher_of(verbose: int | str, unit: str = "epoch") -> Watcher:
    """What shows as much as ``verbose`` asks for, see `Network.fit`; ``unit`` is what is counted.

    Raises
    ------
    ValueError
        Where there is no such ``verbose``.
    ImportError
        Where a bar is asked for, without tqdm.
    """
    if not isinstance(verbose, str | int) or verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose must be 'auto', 0, 1 or 2, got {shown(verbose)}")
    if verbose == 0:
        return Silent()
    if verbose == 2:
        return Lines(unit)
    notebook = type(sys.stdout).__module__.startswith("ipykernel")
    if verbose == "auto" and not (sys.stdout.isatty() or notebook):
        return Lines(unit, tenths=True)
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        if verbose == 1:
            raise ImportError("a bar needs tqdm: install 'fastnn-numba[progress]'") from error
        return Lines(unit, pause=PAUSE)
    return Bar(tqdm, notebook, unit)


class Silent:
    """Shows nothing; see `fastnn.training.Watcher`."""

    def begin(self, training: Progress) -> None:
        """Hear how far it is."""

    def progress(self, values: dict[str, float]) -> None:
        """Hear the figures so far."""

    def ended(self, epochs: int) -> None:
        """Hear of the end of so many epochs."""

    def close(self) -> None:
        """Hear that it is over."""


class Lines(Silent):
    """Prints a line for an epoch, and for the last one in any case.

    Parameters
    ----------
    unit : str
        What is counted.
    tenths : bool, default False
        Only for about every tenth of the training.
    pause : float, default 0
        Not within so many seconds of the last line.
    """

    def __init__(self, unit: str, tenths: bool = False, pause: float = 0.0) -> None:
        self.unit, self.tenths, self.pause = unit, tenths, pause

    def begin(self, training: Progress) -> None:
        """Look at the clock."""
        self.training, self.began = training, time.perf_counter()
        self.every = max(1, training.epochs // 10) if self.tenths else 1
        self.next = self.began

    def ended(self, epochs: int) -> None:
        """Print what is to be seen of them."""
        history, end, now = self.training.history, self.training.end, time.perf_counter()
        for place in range(-epochs, 0):
            number = history.epoch[place] + 1
            if number == end or (number % self.every == 0 and now >= self.next):
                shown = "  ".join(f"{n} {v[place]:.4f}" for n, v in history.history.items())
                seconds = f"{now - self.began:.1f} s"
                print(f"{self.unit} {number}/{end}  {seconds}  {shown}", flush=True)
                self.next = now + self.pause


class Bar(Silent):
    """Draws a bar over the whole training, with the time that is left and the figures so far.

    Parameters
    ----------
    tqdm : type
        The class of tqdm's bars that suits the place.
    notebook : bool
        Whether that is one.
    unit : str
        What is counted.
    """

    def __init__(self, tqdm: Any, notebook: bool, unit: str) -> None:
        class Own(tqdm):
            monitor_interval = 0  # no thread that watches it: slices come often

        self.kind: Any = Own
        self.notebook, self.unit = notebook, unit
        self.bar: Any = None
        self.values: dict[str, float] = {}

    def begin(self, training: Progress) -> None:
        """Draw it, at 0 or where the training goes on."""
        self.training, self.next = training, time.perf_counter() + DRAW
        self.bar = self.kind(
            total=1.0,
            initial=training.share,
            desc=self.place(),
            bar_format=FORMAT,
            smoothing=0,  # what is left follows from the mean pace: validation comes in lumps
            dynamic_ncols=self.notebook,
            leave=None,  # within a bar of the user's own it makes room
            file=sys.stdout,
        )

    def place(self) -> str:
        """Where in the training this is."""
        training = self.training
        number, end = min(training.epoch + 1, training.end), training.end
        batch = f", batch {training.batch:,}" if training.samples == 0 and training.batch else ""
        return f"{self.unit} {number:{len(str(end))}}/{end}{batch}"

    def progress(self, values: dict[str, float]) -> None:
        """Draw it anew, if the last time is long enough ago."""
        self.values = values
        if time.perf_counter() >= self.next:
            self.describe()
            self.bar.refresh()
            self.next = time.perf_counter() + DRAW

    def describe(self) -> None:
        """Tell the bar how far it is, and how wide the terminal is now."""
        if not self.notebook:  # tqdm would draw nothing where the terminal says 0
            columns, rows = shutil.get_terminal_size()
            self.bar.ncols, self.bar.nrows = columns - 1, rows - 1
        self.bar.n = self.training.share
        self.bar.set_description_str(self.place(), refresh=False)
        # Figures of the validation are those of the last epoch.
        self.bar.set_postfix(self.training.history.last() | self.values, refresh=False)

    def close(self) -> None:
        """Draw it for the last time and leave it on its line."""
        if self.bar is not None:
            self.describe()
            self.bar.close()
