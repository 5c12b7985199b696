"""Callbacks that write the network to files while it trains; part of `fastnn.callbacks`."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from fastnn._callback import Callback, Logs, Monitor
from fastnn._check import file_path, flag, shown, whole

__all__ = ["Checkpoint", "ModelCheckpoint"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Checkpoint(Callback):
    """Keeps the whole training in a file, and goes on from there when the program starts again.

    What `fit` gives is, byte for byte, what it would have given without the interruption. A file
    that another program sees is always whole: see `fastnn.files`.

    Parameters
    ----------
    path : str or PathLike
        The file, one for all times.
    every : int or str, default 1
        Epochs between two writings, or a time such as ``"30s"``, ``"5m"`` or ``"1h"``, after which
        the next slice of training is the last before it, also in the middle of an epoch. The end
        of the training is always written.
    resume : bool, default True
        Whether `fit` goes on from the file where there is one.

    Raises
    ------
    TypeError, ValueError
        Where ``every`` is neither.

    Examples
    --------
    >>> import tempfile, fastnn as fnn
    >>> x, y = fnn.datasets.spiral()
    >>> def train(epochs, folder):
    ...     net = fnn.Network([fnn.Dense(3, "softmax")], loss="cross_entropy", seed=0)
    ...     keep = fnn.callbacks.Checkpoint(f"{folder}/spiral.safetensors")
    ...     return net.fit(x, y, epochs=epochs, callbacks=[keep], verbose=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = train(2, folder)
    ...     both = train(5, folder)  # as if the program was started again
    >>> both.epoch, both.history["loss"][:2] == first.history["loss"]
    ([0, 1, 2, 3, 4], True)
    """

    brief = True

    def __init__(
        self, path: str | os.PathLike[str], *, every: int | str = 1, resume: bool = True
    ) -> None:
        self.path, self.every, self.goes_on = file_path("path", path), every, flag("resume", resume)
        self.seconds = self.epochs = 0.0
        if isinstance(every, str):
            time_ = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", every)
            if time_ is None or not float(time_[1]):
                raise ValueError(
                    f"every must be epochs or a time such as '30s', got {shown(every)}"
                )
            self.seconds = float(time_[1]) * _UNITS[time_[2]]
        else:
            self.epochs = whole("every", every)

    @property
    def waits(self) -> bool:
        """Whether there is a training to go on with."""
        return self.goes_on and self.path.exists()

    def on_train_begin(self, logs: Logs) -> None:
        """Start the clock."""
        self.written = time.monotonic()

    def on_slice_end(self, batches: int, logs: Logs) -> None:
        """Write, if it is time."""
        if self.seconds and time.monotonic() - self.written >= self.seconds:
            self._write()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write, if it is time."""
        if self.epochs and (epoch + 1) % self.epochs == 0:
            self._write()

    def on_train_end(self, logs: Logs) -> None:
        """Write."""
        self._write()

    def _write(self) -> None:
        self.network.save(self.path)
        self.written = time.monotonic()


class ModelCheckpoint(Monitor):
    """Writes the network to a file when it is better than ever, or every few epochs.

    Parameters
    ----------
    path : str or PathLike
        The file; ``{epoch}``, counted from 1, and the epoch's figures are filled in:
        ``"net-{epoch:03d}-{val_loss:.2f}.safetensors"``.
    monitor : str, default "val_loss"
        What is watched for the best.
    save_best_only : bool, default True
        Whether to write only when it has become better.
    every : int, default 1
        Epochs between two looks.
    keep_last : int, optional
        So many of the files are kept, older ones that it has written are deleted; by default all.
    save_weights_only : bool, default False
        Whether to write parameters alone, as `Network.save_weights` does.
    mode : {"auto", "min", "max"}
        Which way is better; "auto" says up for accuracies and r2, down for all else.

    Attributes
    ----------
    best : float or None
        The best figure so far.
    paths : list of Path
        Files written and not deleted, the oldest first.

    Examples
    --------
    >>> ModelCheckpoint("best.safetensors", "val_accuracy").save_best_only
    True
    """

    brief = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        *,
        save_best_only: bool = True,
        every: int = 1,
        keep_last: int | None = None,
        save_weights_only: bool = False,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.path = str(file_path("path", path))
        self.save_best_only = flag("save_best_only", save_best_only)
        self.save_weights_only = flag("save_weights_only", save_weights_only)
        self.every = whole("every", every)
        self.keep_last = None if keep_last is None else whole("keep_last", keep_last)
        self.best: float | None = None
        self.paths: list[Path] = []

    def on_train_begin(self, logs: Logs) -> None:
        """Forget an earlier training."""
        self.best, self.paths = None, []

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Look, write, and delete what is too old."""
        if (epoch + 1) % self.every:
            return
        if self.save_best_only:
            value = self.value(logs)
            if self.best is not None and not value < self.sign * self.best:
                return
            self.best = logs[self.monitor]
        path = Path(self.path.format(epoch=epoch + 1, **logs))
        write = self.network.save_weights if self.save_weights_only else self.network.save
        write(path)
        self.paths = [each for each in self.paths if each != path] + [path]
        while self.keep_last is not None and len(self.paths) > self.keep_last:
            self.paths.pop(0).unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """The best figure, and what was written."""
        return {"best": self.best, "paths": [str(path) for path in self.paths]}

    def resume(self, state: dict[str, Any]) -> None:
        """Take it over."""
        self.best, self.paths = state["best"], [Path(path) for path in state["paths"]]
