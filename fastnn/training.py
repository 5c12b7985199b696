"""The training loop: slices of many batches, and what happens between them.

One call into the compiled interpreter runs as many whole batches as fit in
about `SLICE_SECONDS`; then Python shows progress, keeps the history, sees
Ctrl-C. What all that costs does not depend on the size of a batch.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

import numpy as np

from fastnn.callbacks import Chain

__all__ = ["SLICE_SECONDS", "DivergenceError", "History", "Slice", "slices"]

SLICE_SECONDS = 0.03


class DivergenceError(FloatingPointError):
    """Training produced a number that is not finite: epoch, batch and layer are in the text."""


class History:
    """What `Network.fit` returns: loss and metrics of every epoch.

    Attributes
    ----------
    history : dict of str to list of float
        ``loss``, the metric (``accuracy``), and both with ``val_`` in front if
        there was validation data; one number for each epoch. Training figures are means
        over the epoch's samples, each taken before the update that its batch made. Where
        layers have penalties, ``loss`` includes them, and ``data_loss`` and
        ``regularization_loss`` show the two apart; ``val_loss`` is of the data alone.
    epoch : list of int
        Numbers of the epochs, from 0.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def extend(self, figures: dict[str, list[float]]) -> None:
        """Append epochs: one number of each figure for every epoch."""
        for name, values in figures.items():
            self.history.setdefault(name, []).extend(values)
        self.epoch.extend(range(len(self.epoch), len(self.history["loss"])))

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.history.items())
        return f"History({len(self.epoch)} epochs{': ' if last else ''}{last})"


class Slice(NamedTuple):
    """Some batches in a row: part of one epoch, or several whole ones."""

    epoch: int
    batch: int  # number of the first batch in its epoch
    order: np.ndarray  # rows of the user's arrays
    starts: np.ndarray  # batch i holds the rows order[starts[i]:stops[i]]
    stops: np.ndarray


class Pace:
    """How many batches fit into a slice, learnt from the last one."""

    def __init__(self) -> None:
        self.batches = 1.0

    def learn(self, batches: int, seconds: float) -> None:
        """Aim at `SLICE_SECONDS`, growing fourfold at the most: the first slice compiles."""
        fitting = batches * SLICE_SECONDS / max(seconds, 1e-9)
        self.batches = max(1.0, min(fitting, 4 * max(batches, self.batches)))


def slices(
    samples: int,
    batch_size: int,
    epochs: int,
    rng: np.random.Generator | None,
    pace: Pace,
    whole_epochs: bool,
) -> Iterator[Slice]:
    """Cut the training into slices as long as ``pace`` says when each is asked for.

    Parameters
    ----------
    samples, batch_size, epochs : int
        The last batch of an epoch holds what is left.
    rng : numpy.random.Generator or None
        Draws a fresh permutation for each epoch; None keeps the order of the rows. A
        single batch has no order, so none is drawn for it.
    pace : Pace
        Read before each slice.
    whole_epochs : bool
        Whether a slice may hold several epochs.
    """
    starts = np.arange(0, samples, batch_size)
    stops = np.minimum(starts + batch_size, samples)
    batches = len(starts)
    shuffled = rng is not None and batches > 1
    epoch = 0
    while epoch < epochs:
        several = min(int(pace.batches) // batches, epochs - epoch) if whole_epochs else 1
        if several > 1:
            # Without shuffling every epoch reads the same rows, which are then listed once.
            copies = [permutation(samples, rng) for _ in range(several)] if shuffled else []
            order = np.concatenate(copies) if shuffled else np.arange(samples)
            shift = np.arange(several)[:, None] * (samples if shuffled else 0)
            yield Slice(epoch, 0, order, (starts + shift).ravel(), (stops + shift).ravel())
            epoch += several
            continue
        order = permutation(samples, rng) if shuffled else np.empty(0, np.int64)
        batch = 0
        while batch < batches:
            after = min(batch + int(pace.batches), batches)
            low, high = starts[batch], stops[after - 1]
            rows = order[low:high] if shuffled else np.arange(low, high)
            yield Slice(epoch, batch, rows, starts[batch:after] - low, stops[batch:after] - low)
            batch = after
        epoch += 1


def permutation(samples: int, rng: np.random.Generator | None) -> np.ndarray:
    """Row numbers in a fresh random order."""
    assert rng is not None
    return rng.permutation(samples)


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
    """

    WIDTH = 24

    def __init__(self, verbose: int | str, epochs: int, output: TextIO | None = None) -> None:
        self.output = output or sys.stdout
        terminal = self.output.isatty()
        self.bar = verbose == 1 or (verbose == "auto" and terminal)
        self.every = max(1, epochs // 10) if verbose == "auto" and not terminal else 0
        self.every = 1 if verbose == 2 else self.every
        self.epochs = epochs
        self.began = time.perf_counter()
        self.drawn = 0

    def line(self, epochs: int, values: dict[str, float]) -> str:
        """Epochs done, seconds and figures."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        seconds = time.perf_counter() - self.began
        return f"epoch {epochs}/{self.epochs}  {seconds:.1f} s  {figures}"

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

    def ended(self, history: History, epochs: int) -> None:
        """Print the lines of the last so many epochs, where lines are wanted."""
        last = len(history.epoch)
        for number in range(last - epochs + 1, last + 1) if self.every else ():
            if number % self.every == 0 or number == self.epochs:
                values = {name: value[number - 1] for name, value in history.history.items()}
                print(self.line(number, values), file=self.output, flush=True)

    def close(self) -> None:
        """Leave the bar on its line."""
        if self.bar and self.drawn:
            self.output.write("\n")
            self.output.flush()


def figure(name: str, total: Any, rows: int) -> Any:
    """A loss or a metric, from its sum over the rows: their mean, or the root of that."""
    return np.sqrt(total / rows) if name == "rmse" else total / rows


def run(
    *,
    train: Callable[[Slice, np.ndarray], int],
    diverged: Callable[[bool], str],
    validate: Callable[[], dict[str, float]] | None,
    samples: int,
    batch_size: int,
    epochs: int,
    rng: np.random.Generator | None,
    metric: str,
    penalized: bool,
    reporter: Reporter,
    callbacks: Chain,
) -> History:
    """Train slice by slice.

    Parameters
    ----------
    train : callable
        ``train(slice, scores)`` runs a slice, writes the sum of each batch's losses, metrics
        and penalties to the three rows of ``scores``, and returns how many batches went well.
    diverged : callable
        ``diverged(finite_loss)`` says in which layer the first number that is not finite
        lies.
    validate : callable or None
        Called after every epoch, for figures of other data.
    samples, batch_size, epochs, rng
        See `slices`.
    metric : str
        Name of the metric, empty where there is none.
    penalized : bool
        Whether to show penalties.
    reporter : Reporter
        Shows progress.
    callbacks : Chain
        The user's, then those of the optimizer; any of them may end the training.

    Raises
    ------
    DivergenceError
        Where a loss or a parameter is no longer finite.
    """
    history = History()
    pace = Pace()
    batches = -(-samples // batch_size)
    parts: list[np.ndarray] = []  # losses and metrics of the batches of the epoch so far
    running = np.zeros(3)  # their sums, near enough to show along the way
    whole_epochs = validate is None and not callbacks.members
    stop, shown = False, dict[str, float]()

    def means(sums: np.ndarray, rows: int) -> dict[str, Any]:
        values = {"loss": sums[0] + sums[2], metric: sums[1]}
        if penalized:
            values |= {"data_loss": sums[0], "regularization_loss": sums[2]}
        return {name: figure(name, value, rows).tolist() for name, value in values.items() if name}

    try:
        callbacks.tell("on_train_begin", {})
        for piece in slices(samples, batch_size, epochs, rng, pace, whole_epochs):
            if piece.batch == 0:
                callbacks.tell("on_epoch_begin", piece.epoch, {})
            count = len(piece.starts)
            scores = np.zeros((3, count))
            began = time.perf_counter()
            done = train(piece, scores)
            pace.learn(count, time.perf_counter() - began)
            if done < count:
                epochs_on, batch = divmod(piece.batch + done, batches)
                raise DivergenceError(
                    f"training diverged in epoch {piece.epoch + epochs_on + 1}, batch "
                    f"{batch + 1} of {batches}: {diverged(bool(np.isfinite(scores[0, done])))}; "
                    "a smaller learning rate may help"
                )
            parts.append(scores)
            running += scores.sum(axis=1)
            reached = piece.batch + count
            if reached < batches:
                shown = means(running, reached * batch_size)
                callbacks.tell("on_slice_end", reached, shown)
            else:
                # Exact sums: where an epoch was cut into slices, a matter of time, must not show
                # in the history.
                whole = np.concatenate(parts, axis=1).reshape(3, -1, batches)
                sums = np.zeros(whole.shape[:2])
                for row in range(3 if penalized else 2):
                    sums[row] = [math.fsum(epoch) for epoch in whole[row].tolist()]
                figures = means(sums, samples)
                if validate is not None:
                    figures |= {f"val_{name}": [value] for name, value in validate().items()}
                history.extend(figures)
                shown = {name: values[-1] for name, values in figures.items()}
                callbacks.tell("on_slice_end", batches, shown)
                callbacks.tell("on_epoch_end", piece.epoch, shown)
                if callbacks.stop:
                    stop, epochs = True, len(history.epoch)
                    reporter.epochs = epochs
                reporter.ended(history, len(figures["loss"]))
                parts.clear()
                running[:] = 0
            position = piece.epoch * batches + piece.batch + count
            reporter.progress(position / (epochs * batches), len(history.epoch), shown)
            if stop:
                break
        callbacks.tell("on_train_end", shown)
    finally:
        callbacks.tell("close")
        reporter.close()
    return history
