"""What a callback is, and how `Network.fit` calls several of them; see `fastnn.callbacks`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastnn._check import one_of, text

__all__ = ["Callback", "Chain", "LambdaCallback", "Logs", "Monitor", "tell"]

Logs = dict[str, float]


class Callback:
    """Does nothing at every occasion; inherit from it and override what you need.

    Attributes
    ----------
    network : Network
        The one that trains; set before ``on_train_begin``.
    stop : bool
        Set it to end the training after this epoch.
    brief : bool, default False
        Whether Ctrl-C waits for the end of `on_epoch_end` and `on_train_end`; where it does not, a
        training that is interrupted there calls them again when it goes on.

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
    brief: bool = False

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

    def state(self) -> dict[str, Any]:
        """What must be remembered for the training to go on as if never interrupted.

        Numbers, texts, truths, None, lists of those, and arrays, by name: it may go to a file.
        """
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        """In place of `on_train_begin` where a training goes on, with what `state` gave."""
        self.on_train_begin({})


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
        self.monitor = text("monitor", monitor)
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
        elif not isinstance(callbacks, Iterable) or hasattr(callbacks, "__array__"):
            callbacks = [callbacks]
        self.members = [_callback(each) for each in callbacks]
        for member in self.members:
            member.network = network

    def begin(self, states: list[tuple[str, dict[str, Any]]] | None) -> None:
        """Tell the members that it begins, or what they knew when it was interrupted."""
        if states is None:
            self.tell("on_train_begin", {})
            return
        for member, (_, state) in zip(self.members, states, strict=True):
            if hasattr(member, "resume"):
                try:
                    member.resume(state)
                except (AttributeError, IndexError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{type(member).__name__} cannot go on with what it is told: {error!r}"
                    ) from error
            else:
                tell(member, "on_train_begin", {})

    def states(self) -> list[tuple[str, dict[str, Any]]]:
        """What the members must know to go on."""
        return [
            (type(member).__name__, member.state() if hasattr(member, "state") else {})
            for member in self.members
        ]

    def check(self, states: list[tuple[str, dict[str, Any]]] | None) -> None:
        """Whether these members can go on from there.

        Raises
        ------
        ValueError
            Where they are others, or in another order.
        """
        then = None if states is None else [kind for kind, _ in states]
        now = [type(member).__name__ for member in self.members]
        if then is not None and then != now:
            raise ValueError(
                f"a training that goes on needs its callbacks: {', '.join(then) or 'none'}; "
                f"got {', '.join(now) or 'none'}"
            )

    def tell(self, occasion: str, *arguments: Any) -> None:
        """Call the method of this name of each member that has it."""
        for member in self.members:
            tell(member, occasion, *arguments)

    @property
    def stop(self) -> bool:
        """Whether one of them wants to end the training."""
        return any(getattr(member, "stop", False) for member in self.members)


def tell(member: Any, occasion: str, *arguments: Any) -> None:
    """Call the method of this name, if there is one."""
    getattr(member, occasion, _nothing)(*arguments)


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
