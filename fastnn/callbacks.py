"""What may happen between slices and epochs of `Network.fit`.

A callback is any object with some of the methods of `Callback`, whose names are Keras's, or a
function ``f(epoch, logs)`` that is called at the end of each epoch. Epochs count from 0; ``logs``
holds the epoch's figures, as `History` will: ``loss``, ``accuracy``, ``val_loss``, ...

With callbacks a slice of training ends at the latest with its epoch; nothing is slower within.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastnn._check import number, one_of, whole
from fastnn.inside import Inspect

__all__ = [
    "CSVLogger",
    "Callback",
    "Chain",
    "EarlyStopping",
    "Inspect",
    "LambdaCallback",
    "TargetReached",
    "TimeBudget",
]

Logs = dict[str, float]


class Callback:
    """Does nothing at every occasion; inherit from it and override what you need.

    Attributes
    ----------
    network : Network
        The one that trains; set before ``on_train_begin``.
    stop : bool
        Set it to end the training after this epoch.

    Examples
    --------
    >>> import fastnn as fnn
    >>> class Shout(fnn.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         print(f"{epoch}!")
    >>> x, y = fnn.datasets.xor()
    >>> net = fnn.Network([fnn.Dense(1)], seed=0)
    >>> history = net.fit(x, y, epochs=2, callbacks=[Shout()], verbose=0)
    0!
    1!
    """

    network: Any = None
    stop: bool = False

    def on_train_begin(self, logs: Logs) -> None:
        """Before the first epoch; ``logs`` is empty."""

    def on_train_end(self, logs: Logs) -> None:
        """After the last epoch, with its figures; not where an exception ended the training."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Before an epoch; ``logs`` is empty."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch and its validation."""

    def on_slice_end(self, batches: int, logs: Logs) -> None:
        """After some batches in a row, of about 30 ms; how many of the epoch are done.

        ``logs`` has the means so far.
        """

    def close(self) -> None:
        """Last of all, whichever way the training ended: let go of files."""


class LambdaCallback(Callback):
    """A callback made of functions.

    Parameters
    ----------
    **functions : callable
        Under the names of `Callback`'s methods, without ``self``.

    Examples
    --------
    >>> LambdaCallback(on_epoch_end=lambda epoch, logs: None).stop
    False
    """

    def __init__(self, **functions: Callable[..., None]) -> None:
        for name, function in functions.items():
            one_of("name of a function", name, [n for n in vars(Callback) if n.startswith("on_")])
            if not callable(function):
                raise TypeError(f"{name} must be a function, got {type(function).__name__}")
            setattr(self, name, function)


class Monitor(Callback):
    """What watches one figure.

    Parameters
    ----------
    monitor : str
        Name of the figure in ``logs``.
    mode : {"auto", "min", "max"}
        Which way is better; "auto" says up for accuracies and r2, down for all else.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor = monitor
        self.mode = one_of("mode", mode, ["auto", "min", "max"])
        rising = mode == "max" or (mode == "auto" and monitor.endswith(("accuracy", "r2")))
        self.sign = -1.0 if rising else 1.0

    def value(self, logs: Logs) -> float:
        """The figure, turned so that less is better."""
        if self.monitor not in logs:
            hint = "; give fit validation_data" if self.monitor.startswith("val_") else ""
            raise ValueError(
                f"{type(self).__name__} monitors {self.monitor!r}, but there is only "
                f"{', '.join(logs)}{hint}"
            )
        return self.sign * logs[self.monitor]


class EarlyStopping(Monitor):
    """Ends the training when a figure has not become better for some epochs.

    Parameters
    ----------
    monitor : str, default "val_loss"
        What to watch.
    min_delta : float, default 0
        Less than this is no improvement.
    patience : int, default 0
        So many epochs without improvement are borne; the next ends the training.
    mode : {"auto", "min", "max"}
        Which way is better; "auto" says up for accuracies and r2, down for all else.
    restore_best_weights : bool, default True
        Whether the network gets back the parameters of its best epoch, however the training
        ends. Keras leaves the last ones by default, which is seldom what is wanted.
    start_from_epoch : int, default 0
        Epochs before this one do not count.

    Attributes
    ----------
    best_epoch : int or None
        Number of the best epoch.
    best : float or None
        Its figure.

    Notes
    -----
    Source: Nielsen, chapter 3 (how to choose the number of epochs); Prechelt (1998), "Early
    stopping - but when?".

    Examples
    --------
    >>> import fastnn as fnn
    >>> x, y = fnn.datasets.spiral()
    >>> net = fnn.Network([fnn.Dense(3, "softmax")], loss="cross_entropy", seed=0)
    >>> stop = fnn.callbacks.EarlyStopping("loss", min_delta=0.01, patience=3)
    >>> history = net.fit(x, y, epochs=1000, callbacks=[stop], verbose=0)
    >>> len(history.epoch) < 1000
    True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        restore_best_weights: bool = True,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode)
        self.min_delta = number("min_delta", min_delta, least=0)
        self.patience = whole("patience", patience, least=0)
        self.restore_best_weights = bool(restore_best_weights)
        self.start_from_epoch = whole("start_from_epoch", start_from_epoch, least=0)
        self.best_epoch: int | None = None
        self.best: float | None = None

    def on_train_begin(self, logs: Logs) -> None:
        """Forget an earlier training."""
        self.best_epoch = self.best = None
        self.stop, self.waited, self.params = False, 0, np.empty(0)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Better, or one more epoch without."""
        value = self.value(logs)
        if epoch < self.start_from_epoch:
            return
        if self.best is None or value < self.sign * self.best - self.min_delta:
            self.best_epoch, self.best, self.waited = epoch, logs[self.monitor], 0
            if self.restore_best_weights:
                self.params = self.network.params.copy()
        else:
            self.waited += 1
            self.stop = self.waited > self.patience

    def on_train_end(self, logs: Logs) -> None:
        """Give back the best parameters."""
        if self.restore_best_weights and self.best_epoch is not None:
            self.network.params = self.params


class TargetReached(Monitor):
    """Ends the training when a figure is as good as wanted.

    Parameters
    ----------
    monitor : str
        What to watch.
    value : float
        Where to stop.
    mode : {"auto", "min", "max"}
        Which way is better; "auto" says up for accuracies and r2, down for all else.

    Examples
    --------
    >>> TargetReached("val_accuracy", 0.97).mode
    'auto'
    """

    def __init__(self, monitor: str, value: float, *, mode: str = "auto") -> None:
        super().__init__(monitor, mode)
        self.target = number("value", value)

    def on_train_begin(self, logs: Logs) -> None:
        """Not reached yet."""
        self.stop = False

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Reached, or not."""
        self.stop = self.value(logs) <= self.sign * self.target


class TimeBudget(Callback):
    """Ends the training at the end of the epoch in which its time is up.

    Parameters
    ----------
    seconds : float
        From the beginning of `fit`, compilations included.

    Examples
    --------
    >>> TimeBudget(60).seconds
    60.0
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = number("seconds", seconds, above=0)

    def on_train_begin(self, logs: Logs) -> None:
        """Start the clock."""
        self.stop, self.began = False, time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Look at the clock."""
        self.stop = time.perf_counter() - self.began >= self.seconds


class CSVLogger(Callback):
    """Writes a line for each epoch to a file that tables read: epoch, then its figures.

    Parameters
    ----------
    path : str or Path
        The file; every line is on disk when its epoch is over.
    append : bool, default False
        Go on in a file that is there, without a second headline.

    Examples
    --------
    >>> CSVLogger("log.csv").append
    False
    """

    def __init__(self, path: str | Path, *, append: bool = False) -> None:
        self.path, self.append = Path(path), bool(append)
        self.file: IO[str] | None = None

    def on_train_begin(self, logs: Logs) -> None:
        """Open the file."""
        self.begun = self.append and self.path.exists() and self.path.stat().st_size > 0
        self.file = self.path.open("a" if self.append else "w", newline="", encoding="utf-8")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """One line."""
        assert self.file is not None
        writer = csv.writer(self.file)
        if not self.begun:
            writer.writerow(["epoch", *logs])
            self.begun = True
        writer.writerow([epoch, *(repr(value) for value in logs.values())])
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None


class Chain:
    """Several callbacks as one, in their order.

    Parameters
    ----------
    callbacks : iterable of Callback or callable, or one of them, or None
        As given to `Network.fit`.
    network : Network
        The one that trains.

    Raises
    ------
    TypeError
        Where one is neither a callback nor a function.
    """

    def __init__(self, callbacks: Any, network: Any) -> None:
        if callbacks is None:
            callbacks = []
        elif not isinstance(callbacks, Iterable):
            callbacks = [callbacks]
        self.members = [_callback(each) for each in callbacks]
        for member in self.members:
            member.network = network

    def tell(self, occasion: str, *arguments: Any) -> None:
        """Call the method of this name of each member that has it."""
        for member in self.members:
            getattr(member, occasion, _nothing)(*arguments)

    @property
    def stop(self) -> bool:
        """Whether one of them wants to end the training."""
        return any(getattr(member, "stop", False) for member in self.members)


def _nothing(*arguments: Any) -> None:
    """What a callback does at an occasion that it has no method for."""


def _callback(value: Any) -> Any:
    if any(hasattr(value, name) for name in vars(Callback) if name.startswith("on_")):
        if isinstance(value, type):
            raise TypeError(f"callbacks must be objects, got the class: write {value.__name__}()")
        return value
    if callable(value):
        return LambdaCallback(on_epoch_end=value)
    raise TypeError(
        "callbacks must be objects with methods such as on_epoch_end, or functions of "
        f"(epoch, logs), got {type(value).__name__}"
    )
