"""The training loop: slices of many batches, and what happens between them.

One call into the compiled interpreter runs as many whole batches as fit in
about `SLICE_SECONDS`; then Python shows progress, keeps the history, sees
Ctrl-C. What all that costs does not depend on the size of a batch.

Everything the loop must know to go on, beside the network itself, is in `Progress`: whoever keeps
that, in memory or in a file, can interrupt a training anywhere between two slices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastnn._callback import Chain, tell
from fastnn.interrupts import Interrupts

__all__ = [
    "SLICE_SECONDS",
    "Arrays",
    "Batches",
    "DivergenceError",
    "History",
    "Pace",
    "Progress",
    "Slice",
    "Training",
    "Watcher",
]

SLICE_SECONDS = 0.03
GROWTH = 64  # a slice has at most so many times the batches of the last one


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
        Numbers of the epochs, from 0 or from ``initial_epoch``.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def extend(self, first: int, figures: dict[str, list[float]]) -> None:
        """Append epochs from number ``first`` on: one number of each figure for every epoch."""
        for name, values in figures.items():
            self.history.setdefault(name, []).extend(values)
        self.epoch.extend(range(first, first + len(figures["loss"])))

    def last(self) -> dict[str, float]:
        """Figures of the last epoch."""
        return {name: values[-1] for name, values in self.history.items()}

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={value:.4g}" for name, value in self.last().items())
        return f"History({len(self.epoch)} epochs{': ' if last else ''}{last})"


@dataclass
class Progress:
    """How far a training is: what is needed to go on, beside parameters and optimizer."""

    epochs: int  # at which it ends
    batch_size: int  # 0 where batches come one by one
    shuffle: bool
    samples: int  # 0 where batches come one by one
    data: str | None = None  # fingerprint of the data, once somebody has asked for it
    epoch: int = 0  # that is under way
    batch: int = 0  # batches of it that are done
    rows: int = 0  # rows of these
    over: bool = False  # whether that were all
    told: int = 0  # callbacks that have heard so, or of the end of the training
    stopped: bool = False  # whether one of them ended the training
    ended: bool = False  # whether all have heard of that
    generator: Mapping[str, Any] = field(default_factory=dict)  # what shuffles, before this epoch's
    # permutation; where the epoch is over, before the next one's
    # Sums of losses, metrics and penalties of the epoch's batches so far, in pieces (3, batches).
    scores: list[np.ndarray] = field(default_factory=list)
    history: History = field(default_factory=History)
    callbacks: list[tuple[str, dict[str, Any]]] | None = None  # kind and state, once they began

    @property
    def unfinished(self) -> bool:
        """Whether epochs are left, or callbacks that have not heard of the end."""
        return self.going or not self.ended

    @property
    def going(self) -> bool:
        """Whether epochs are left."""
        return self.epoch < self.epochs and not self.stopped

    @property
    def end(self) -> int:
        """The number of the epoch at which it ends, as far as is known."""
        return self.epochs if self.going else self.epoch

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1; where batches come one by one, in whole epochs."""
        of_epoch = self.rows / self.samples if self.samples else 0.0
        return (self.epoch + of_epoch) / self.epochs if self.going else 1.0

    def next_epoch(self, several: int, stopped: bool) -> None:
        """Begin the epoch after so many."""
        self.epoch += several
        self.batch = self.rows = self.told = 0
        self.over, self.stopped = False, stopped
        self.scores.clear()


class Slice(NamedTuple):
    """Some batches in a row: part of one epoch, or several whole ones."""

    order: np.ndarray  # rows of the user's arrays
    starts: np.ndarray  # batch i holds the rows order[starts[i]:stops[i]]
    stops: np.ndarray
    over: bool  # whether an epoch ends here
    data: Any = None  # where each batch comes with data of its own

    @property
    def rows(self) -> int:
        """Rows in all batches."""
        return int((self.stops - self.starts).sum())


class Feed(Protocol):
    """Where slices come from."""

    rng: np.random.Generator

    def take(self, progress: Progress, most: int, whole_epochs: bool) -> Slice | None:
        """Return at most so many batches, at least one; None where no more come in this epoch."""


class Arrays:
    """Cuts the rows of arrays into slices.

    Parameters
    ----------
    samples, batch_size : int
        The last batch of an epoch holds what is left.
    rng : numpy.random.Generator
        Draws a fresh permutation for each epoch.
    shuffle : bool
        False keeps the order of the rows. A single batch has no order, so none is drawn for it.
    """

    def __init__(
        self, samples: int, batch_size: int, rng: np.random.Generator, shuffle: bool
    ) -> None:
        self.samples, self.rng = samples, rng
        self.starts = np.arange(0, samples, batch_size)
        self.stops = np.minimum(self.starts + batch_size, samples)
        self.shuffle = shuffle and len(self.starts) > 1
        self.order: np.ndarray | None = None  # of the epoch that is under way

    def take(self, progress: Progress, most: int, whole_epochs: bool) -> Slice:
        """As `Feed.take`; several epochs where they are whole and all of them fit."""
        batches, batch = len(self.starts), progress.batch
        several = min(most // batches, progress.epochs - progress.epoch) if whole_epochs else 1
        if several > 1 and batch == 0:
            # Without shuffling every epoch reads the same rows, which are then listed once.
            copies = [self._permutation() for _ in range(several)] if self.shuffle else []
            order = np.concatenate(copies) if copies else np.arange(self.samples)
            shift = np.arange(several)[:, None] * (self.samples if copies else 0)
            starts, stops = (self.starts + shift).ravel(), (self.stops + shift).ravel()
            return Slice(order, starts, stops, True)
        if self.shuffle and self.order is None:
            self.order = self._permutation()
        after = min(batch + most, batches)
        low, high = self.starts[batch], self.stops[after - 1]
        order = np.arange(low, high) if self.order is None else self.order[low:high]
        if after == batches:
            self.order = None
        return Slice(
            order, self.starts[batch:after] - low, self.stops[batch:after] - low, after == batches
        )

    def _permutation(self) -> np.ndarray:
        return self.rng.permutation(self.samples)


class Batches:
    """Takes batches from an iterable, a slice each.

    Parameters
    ----------
    batches : iterable of tuple
        ``(x, y)`` or ``(x, y, sample_weight)``; asked anew for each epoch, unless it is an
        iterator, which goes on where it was.
    per_epoch : int or None
        Batches of an epoch; by default all there are.
    rng : numpy.random.Generator
        Not asked: batches come in an order of their own.
    prepare : callable
        ``prepare(batch)`` checks one and gives its sources.
    """

    def __init__(
        self,
        batches: Any,
        per_epoch: int | None,
        rng: np.random.Generator,
        prepare: Callable[[Any], Any],
    ) -> None:
        self.batches, self.per_epoch, self.rng, self.prepare = batches, per_epoch, rng, prepare
        self.iterator: Iterator[Any] | None = None

    def take(self, progress: Progress, most: int, whole_epochs: bool) -> Slice | None:
        """As `Feed.take`."""
        if progress.batch == self.per_epoch:
            self.iterator = None
            return None
        if self.iterator is None:
            self.iterator = iter(self.batches)
            if self.iterator is not self.batches:  # what has been seen of it is passed over
                for _ in range(progress.batch):
                    next(self.iterator, None)
        try:
            batch = next(self.iterator)
        except StopIteration:
            if progress.batch == 0 or self.per_epoch is not None:
                wanted = "" if self.per_epoch is None else f" of {self.per_epoch}"
                raise ValueError(
                    f"x gave {progress.batch}{wanted} batches in epoch {progress.epoch + 1}; give "
                    "a list or another iterable that can be gone through again, or fewer epochs"
                ) from None
            self.iterator = None
            return None
        data = self.prepare(batch)
        rows = len(data[0].array)
        return Slice(np.arange(rows), np.array([0]), np.array([rows]), False, data)


class Pace:
    """How many batches fit into a slice, learnt from the last one."""

    def __init__(self) -> None:
        self.batches = 1.0

    def learn(self, batches: int, seconds: float) -> None:
        """Aim at `SLICE_SECONDS`, growing by no more than one slice can know."""
        fitting = batches * SLICE_SECONDS / max(seconds, 1e-9)
        self.batches = max(1.0, min(fitting, GROWTH * max(batches, self.batches)))


class Watcher(Protocol):
    """What shows how far a training is."""

    def begin(self, training: Progress) -> None:
        """Hear how far it is: an object that moves on."""

    def progress(self, values: dict[str, float]) -> None:
        """Hear after every slice: the figures so far."""

    def ended(self, epochs: int) -> None:
        """Hear of the end of so many epochs: they are in the history."""

    def close(self) -> None:
        """Hear that it is over."""


def figure(name: str, total: Any, rows: int) -> Any:
    """A loss or a metric, from its sum over the rows: their mean, or the root of that."""
    return np.sqrt(total / rows) if name == "rmse" else total / rows


@dataclass
class Training:
    """One training, slice by slice; `run` ends it or raises, and may be called on another day.

    Parameters
    ----------
    progress : Progress
        Moves on with every slice.
    feed : Feed
        The user's data.
    train : callable
        ``train(slice, scores)`` runs a slice, writes the sum of each batch's losses, metrics
        and penalties to the three rows of ``scores``, and returns how many batches went well.
    moving : callable
        ``with moving():`` surrounds what changes parameters.
    diverged : callable
        ``diverged(finite_loss)`` says in which layer the first number that is not finite
        lies, after a slice that did not go well.
    validate : callable or None
        Called after every epoch, for figures of other data.
    fingerprint : callable
        Called where the data must be known again.
    metric : str
        Name of the metric, empty where there is none.
    penalized : bool
        Whether to show penalties.
    watcher : Watcher
        Shows progress.
    callbacks : Chain
        The user's, then those of the optimizer; any of them may end the training.
    interrupts : Interrupts
        Those of the whole `fit`.
    pace : Pace
        What is known about the length of a slice.
    """

    progress: Progress
    feed: Feed
    train: Callable[[Slice, np.ndarray], int]
    moving: Callable[[], AbstractContextManager[None]]
    diverged: Callable[[bool], str]
    validate: Callable[[], dict[str, float]] | None
    fingerprint: Callable[[], str]
    metric: str
    penalized: bool
    watcher: Watcher
    callbacks: Chain
    interrupts: Interrupts
    pace: Pace
    begun: bool = False

    def settle(self) -> None:
        """Bring everything into ``progress`` that somebody needs who goes on with it."""
        if self.begun:
            self.progress.callbacks = self.callbacks.states()
        if self.progress.data is None:
            self.progress.data = self.fingerprint()

    def run(self) -> History:
        """Train to the end.

        Raises
        ------
        DivergenceError
            Where a loss or a parameter is no longer finite.
        """
        progress = self.progress
        sums = sum((piece.sum(axis=1) for piece in progress.scores), np.zeros(3))  # nearly exact
        try:
            with self.interrupts.held():
                self.watcher.begin(progress)
            self.callbacks.begin(progress.callbacks)
            self.begun = True
            if progress.going and not progress.over:
                progress.told, progress.ended = 0, False  # there may be more epochs than before
            while progress.going:
                if not progress.over:
                    if progress.batch == 0:
                        self.callbacks.tell("on_epoch_begin", progress.epoch, {})
                    sums += self._slice()
                    shown = self._means(sums, progress.rows)
                    self.callbacks.tell("on_slice_end", progress.batch, shown)
                    self._show(shown)
                if progress.over:
                    self._end_epochs()
                    sums[:] = 0
            self._tell("on_train_end", progress.history.last())
            progress.ended = True
        finally:
            self.callbacks.tell("close")
            with self.interrupts.held():
                self.watcher.close()
        return progress.history

    def _tell(self, occasion: str, *arguments: Any) -> None:
        """Tell the callbacks that have not heard yet: an interrupt may come between two."""
        progress = self.progress
        for member in self.callbacks.members[progress.told :]:
            brief = getattr(member, "brief", False)
            with self.interrupts.held() if brief else nullcontext():
                tell(member, occasion, *arguments)
                progress.told += 1

    def _show(self, figures: dict[str, float]) -> None:
        """Tell the watcher, whose locks no interrupt must leave behind."""
        with self.interrupts.held():
            self.watcher.progress(figures)

    def _slice(self) -> np.ndarray:
        """Train on the next batches; the sums of their scores."""
        progress = self.progress
        alone = self.validate is None and not self.callbacks.members
        piece = self.feed.take(progress, int(self.pace.batches), alone)
        if piece is None:
            progress.over = True
            return np.zeros(3)
        count = len(piece.starts)
        scores = np.zeros((3, count))
        with self.interrupts.held():
            began = time.perf_counter()
            with self.moving():
                done = self.train(piece, scores)
            seconds = time.perf_counter() - began
            if done == count:
                progress.batch += count
                progress.rows += piece.rows
                progress.scores.append(scores)
                progress.over = piece.over
                if piece.over:
                    progress.generator = self.feed.rng.bit_generator.state
        self.pace.learn(count, seconds)
        if done < count:
            self._raise(progress.batch + done, bool(np.isfinite(scores[0, done])))
        return scores.sum(axis=1)

    def _raise(self, batch: int, finite_loss: bool) -> None:
        """Say in which batch and layer it went wrong."""
        progress, of = self.progress, ""
        epoch = progress.epoch
        if progress.samples:
            batches = -(-progress.samples // progress.batch_size)
            epochs_on, batch = divmod(batch, batches)
            epoch, of = epoch + epochs_on, f" of {batches}"
        raise DivergenceError(
            f"training diverged in epoch {epoch + 1}, batch {batch + 1}{of}: "
            f"{self.diverged(finite_loss)}; a smaller learning rate may help"
        )

    def _end_epochs(self) -> None:
        """Put the epochs that a slice has ended into the history, and tell everybody."""
        progress, history = self.progress, self.progress.history
        several = 1
        if history.epoch[-1:] != [progress.epoch]:  # else an interrupt came after that
            figures, several = self._figures()
            if self.validate is not None:
                figures |= {f"val_{name}": [value] for name, value in self.validate().items()}
            with self.interrupts.held():
                history.extend(progress.epoch, figures)
                if several > 1:  # there are no callbacks, nor anything else to wait for
                    progress.next_epoch(several, False)
        if several == 1:
            self._tell("on_epoch_end", progress.epoch, history.last())
            with self.interrupts.held():
                progress.next_epoch(1, self.callbacks.stop)
        self.watcher.ended(several)
        self._show(history.last())

    def _figures(self) -> tuple[dict[str, list[float]], int]:
        """Figures of the epochs that are over, and how many these are.

        Their sums are exact: where an epoch was cut into slices, a matter of time, must not show
        in the history.
        """
        progress = self.progress
        scores = np.concatenate(progress.scores, axis=1)
        batches, rows = scores.shape[1], progress.rows
        if progress.samples:
            batches, rows = -(-progress.samples // progress.batch_size), progress.samples
        whole = scores.reshape(3, -1, batches)
        sums = whole[:, :, 0]  # of epochs of one batch, of which there are many in a slice
        if batches > 1:
            sums = np.zeros(whole.shape[:2])
            for row in range(3 if self.penalized else 2):
                sums[row] = [math.fsum(epoch) for epoch in whole[row].tolist()]
        return self._means(sums, rows), whole.shape[1]

    def _means(self, sums: np.ndarray, rows: int) -> dict[str, Any]:
        values = {"loss": sums[0] + sums[2], self.metric: sums[1]}
        if self.penalized:
            values |= {"data_loss": sums[0], "regularization_loss": sums[2]}
        return {name: figure(name, value, rows).tolist() for name, value in values.items() if name}
