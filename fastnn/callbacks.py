"""What may happen between slices and epochs of `Network.fit`.

A callback is any object with some of the methods of `Callback`, whose names are Keras's, or a
function ``f(epoch, logs)`` that is called at the end of each epoch. Epochs count from 0; ``logs``
holds the epoch's figures, as `History` will: ``loss``, ``accuracy``, ``val_loss``, ...

With callbacks a slice of training ends at the latest with its epoch; nothing is slower within.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastnn._callback import Callback, LambdaCallback, Logs, Monitor
from fastnn._check import file_path, flag, number, text, whole
from fastnn.checkpoints import Checkpoint, ModelCheckpoint
from fastnn.inside import Inspect
from fastnn.schedules import ReduceOnPlateau, Schedule

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "Inspect",
    "LambdaCallback",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "ScalarWriter",
    "TargetReached",
    "TimeBudget",
]


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

    brief = True
    MEMORY = ("best_epoch", "best", "stop", "waited", "params")

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
        self.restore_best_weights = flag("restore_best_weights", restore_best_weights)
        self.start_from_epoch = whole("start_from_epoch", start_from_epoch, least=0)
        self.best_epoch: int | None = None
        self.best: float | None = None

    def on_train_begin(self, logs: Logs) -> None:
        """Forget an earlier training."""
        self.best_epoch = self.best = None
        self.stop, self.waited, self.params = False, 0, np.empty(0)

    def state(self) -> dict[str, Any]:
        """The best epoch, its parameters, and how long it is ago."""
        return {name: getattr(self, name) for name in self.MEMORY}

    def resume(self, state: dict[str, Any]) -> None:
        """Take it over."""
        if np.shape(state["params"]) not in ((0,), self.network.params.shape):
            raise ValueError("EarlyStopping remembers the parameters of another network")
        for name in self.MEMORY:
            setattr(self, name, state[name])

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

    brief = True

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
        From the beginning of `fit`, compilations included; where a training goes on, with what
        it has taken so far.

    Examples
    --------
    >>> TimeBudget(60).seconds
    60.0
    """

    brief = True

    def __init__(self, seconds: float) -> None:
        self.seconds = number("seconds", seconds, above=0)

    def on_train_begin(self, logs: Logs) -> None:
        """Start the clock."""
        self.stop, self.began = False, time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Look at the clock."""
        self.stop = self.state()["seconds"] >= self.seconds

    def state(self) -> dict[str, Any]:
        """Seconds so far."""
        return {"seconds": time.perf_counter() - self.began}

    def resume(self, state: dict[str, Any]) -> None:
        """Start the clock where it was."""
        self.stop, self.began = False, time.perf_counter() - state["seconds"]


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

    brief = True

    def __init__(self, path: str | Path, *, append: bool = False) -> None:
        self.path, self.append = file_path("path", path), flag("append", append)
        self.file: IO[str] | None = None

    def on_train_begin(self, logs: Logs) -> None:
        """Open the file."""
        self._open(self.append)

    def state(self) -> dict[str, Any]:
        """How long the file is."""
        return {"bytes": self.path.stat().st_size}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on behind the epochs that are remembered; what else was written is forgotten."""
        self._open(True)
        assert self.file is not None
        if self.path.stat().st_size > state["bytes"]:
            self.file.truncate(state["bytes"])

    def _open(self, append: bool) -> None:
        self.file = self.path.open("a" if append else "w", newline="", encoding="utf-8")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """One line."""
        assert self.file is not None
        writer = csv.writer(self.file)
        if self.path.stat().st_size == 0:
            writer.writerow(["epoch", *logs])
        writer.writerow([epoch, *(repr(value) for value in logs.values())])
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None


class ReduceLROnPlateau(Monitor):
    """Lowers the optimizer's learning rate when a figure has stopped becoming better.

    Parameters
    ----------
    monitor : str, default "val_loss"
        What to watch.
    factor, patience, min_delta, cooldown
        As of `fastnn.schedules.ReduceOnPlateau`, which counts.
    min_lr : float, default 0
        The rate falls no further.
    mode : {"auto", "min", "max"}
        Which way is better; "auto" says up for accuracies and r2, down for all else.

    Raises
    ------
    TypeError
        At the beginning of the training, where the rate is a schedule already.

    Examples
    --------
    >>> ReduceLROnPlateau("val_accuracy", factor=0.5, patience=3).sign
    -1.0
    """

    brief = True

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.options: dict[str, Any] = {
            "factor": factor,
            "patience": patience,
            "min_delta": min_delta,
        }
        number("min_lr", min_lr, least=0)
        self.options |= {"cooldown": cooldown, "min_learning_rate": min_lr}
        self.schedule = ReduceOnPlateau(1.0, **self.options)  # checks them

    def on_train_begin(self, logs: Logs) -> None:
        """Take the rate as it is."""
        rate = self.network.optimizer.learning_rate
        if isinstance(rate, Schedule):
            raise TypeError(
                f"ReduceLROnPlateau needs a learning rate that is a number, got {rate!r}; "
                "leave the callback out or give a number"
            )
        self.schedule = ReduceOnPlateau(rate, **self.options)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Lower it, if it is time."""
        self.schedule.learning_rate = self.network.optimizer.learning_rate
        self.schedule.epoch_ended(self.value(logs))
        self.network.optimizer.learning_rate = self.schedule.learning_rate

    def state(self) -> dict[str, Any]:
        """The best figure, and how long it is ago."""
        return {"memory": self.schedule.memory}

    def resume(self, state: dict[str, Any]) -> None:
        """Take it over; the rate is the optimizer's."""
        self.on_train_begin({})
        self.schedule.memory = state["memory"]


class ScalarWriter(Callback):
    """Hands every figure of every epoch to a writer, such as TensorBoard's.

    Parameters
    ----------
    writer : object
        With a method ``add_scalar(tag, value, step)``: ``torch.utils.tensorboard.SummaryWriter``
        or tensorboardX's. Opened and closed by you.
    prefix : str, default ""
        Put in front of each name: ``"run 3/"``.

    Raises
    ------
    TypeError
        Where ``writer`` has no such method.

    Examples
    --------
    >>> class Printer:
    ...     def add_scalar(self, tag, value, step):
    ...         print(tag, value, step)
    >>> ScalarWriter(Printer(), prefix="a/").on_epoch_end(4, {"loss": 0.5})
    a/loss 0.5 4
    """

    brief = True

    def __init__(self, writer: Any, *, prefix: str = "") -> None:
        if not callable(getattr(writer, "add_scalar", None)):
            raise TypeError(
                f"writer must have add_scalar(tag, value, step), got {type(writer).__name__}"
            )
        self.writer, self.prefix = writer, text("prefix", prefix)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """All figures."""
        for name, value in logs.items():
            self.writer.add_scalar(self.prefix + name, value, epoch)
