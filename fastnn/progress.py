"""What the user sees of a training that runs."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from fastnn.training import History

__all__ = ["Reporter"]


class Reporter:
    """Shows how far the training is: a bar in a terminal, a line for each epoch, or nothing.

    Parameters
    ----------
    verbose : {"auto", 0, 1, 2}
        0 nothing; 1 a bar that is drawn over itself; 2 a line for each epoch; "auto" a
        bar where the output is a terminal, elsewhere a line for about every tenth of the
        training.
    epochs : int
        How many there will be.
    unit : str
        What is counted, if not epochs.
    """

    WIDTH = 24

    def __init__(
        self, verbose: int | str, epochs: int, unit: str = "epoch", output: TextIO | None = None
    ) -> None:
        self.output = output or sys.stdout
        terminal = self.output.isatty()
        self.bar = verbose == 1 or (verbose == "auto" and terminal)
        self.every = max(1, epochs // 10) if verbose == "auto" and not terminal else 0
        self.every = 1 if verbose == 2 else self.every
        self.epochs, self.unit = epochs, unit
        self.counted = 0  # of the units, at the last line
        self.began = time.perf_counter()
        self.drawn = 0

    def line(self, epochs: int, values: dict[str, float]) -> str:
        """Epochs done, seconds and figures."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        seconds = time.perf_counter() - self.began
        return f"{self.unit} {epochs}/{self.epochs}  {seconds:.1f} s  {figures}"

    def progress(self, share: float, epochs: int, values: dict[str, float]) -> None:
        """Draw the bar anew; ``share`` of the whole training is done."""
        if not self.bar:
            return
        full = int(share * self.WIDTH)
        bar = f"[{'=' * full}{' ' * (self.WIDTH - full)}]"
        width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be drawn over
        text = f"{bar} {self.line(epochs, values)}"[:width]
        self.output.write("\r" + text.ljust(self.drawn))
        self.output.flush()
        self.drawn = len(text)

    def ended(self, history: History, epochs: int, most: int) -> None:
        """Print the lines of the last so many epochs, where lines are wanted."""
        self.epochs = most
        for place in range(-epochs, 0) if self.every else ():
            number = history.epoch[place] + 1
            if number % self.every == 0 or number == most:
                values = {name: value[place] for name, value in history.history.items()}
                print(self.line(number, values), file=self.output, flush=True)

    def reached(self, share: float, count: int, values: dict[str, float]) -> None:
        """As `progress`, where there is no history: a line for what has been counted since."""
        self.progress(share, count, values)
        if self.every and (
            count // self.every > self.counted // self.every or self.counted < count == self.epochs
        ):
            print(self.line(count, values), file=self.output, flush=True)
            self.counted = count

    def close(self) -> None:
        """Leave the bar on its line."""
        if self.bar and self.drawn:
            self.output.write("\n")
            self.output.flush()
