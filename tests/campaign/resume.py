"""A training that is cut anywhere and goes on ends byte for byte where it would have ended.

Each case is one cut: of a network with an optimizer, something with a memory, and a dtype, after
some batch, in the middle of an epoch or at its end, or within a callback; written to a file, read
into a new network, and gone on with, by one thread where there were two. Parameters, optimizer,
history and callbacks are compared. Then what is remembered is forgotten, one item after another:
each must show.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

import fastnn as fnn
from fastnn import training

COUNT, SMALL = 2_820, 80

EPOCHS, ROWS, BATCH = 6, 84, 8
OPTIMIZERS = {
    "sgd": lambda rate: fnn.SGD(rate),
    "momentum": lambda rate: fnn.SGD(rate, momentum=0.9, nesterov=True),
    "adagrad": lambda rate: fnn.Adagrad(rate),
    "rmsprop": lambda rate: fnn.RMSprop(rate),
    "adam": lambda rate: fnn.Adam(rate, clip_norm=1.0),
    "lbfgs": lambda rate: fnn.LBFGS(),
}
FEATURES = ("dropout", "batch_norm", "schedule", "early_stopping", "everything")


class Cut(Exception):
    """Ends a training as an error of the user's would."""


class Scissors(fnn.callbacks.Callback):
    """Cuts after so many slices, or after so many epochs where that is negative."""

    def __init__(self, after=None):
        self.after, self.slices, self.epochs = after, 0, 0

    def on_slice_end(self, batches, logs):
        self.slices += 1
        if self.slices == self.after:
            raise Cut

    def on_epoch_end(self, epoch, logs):
        self.epochs += 1
        if self.epochs == -(self.after or 0):
            raise Cut


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, 5))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int) + (x[:, 2] > 0)


def network(optimizer, feature, dtype, threads=2, seed=1):
    every = feature == "everything"
    hidden = [fnn.Dense(7, "tanh")]
    if every or feature == "dropout":
        hidden += [fnn.Dropout(0.3), fnn.GaussianNoise(0.1)]
    if every or feature == "batch_norm":
        hidden.append(fnn.BatchNorm(momentum=0.8))
    rate = 0.2
    if every or feature == "schedule":
        rate = fnn.schedules.ReduceOnPlateau(0.2, factor=0.5, patience=1, cooldown=1)
    return fnn.Network(
        [*hidden, fnn.Dense(3, "softmax")],
        loss="cross_entropy",
        optimizer=OPTIMIZERS[optimizer](rate),
        dtype=dtype,
        threads=threads,
        seed=seed,
    )


def callbacks(feature, after=None):
    members = [Scissors(after)]
    if feature in ("early_stopping", "everything"):
        members.insert(
            0, fnn.callbacks.EarlyStopping(patience=3, min_delta=0.01, start_from_epoch=1)
        )
        members.append(fnn.callbacks.TargetReached("loss", 0.001))
    return members


def train(net, optimizer, members, **options):
    """Train to the end; everything that came of it."""
    x, y = data()
    size = None if optimizer == "lbfgs" else BATCH
    net.fit(
        x, y, epochs=EPOCHS, batch_size=size, validation_split=0.25, callbacks=members, verbose=0,
        **options,
    )  # fmt: skip
    stopping = [m for m in members if isinstance(m, fnn.callbacks.EarlyStopping)]
    return {
        "params": net.params.tobytes(),
        "state": net._state.tobytes(),
        "pairs": [(s.tobytes(), y.tobytes()) for s, y in net._pairs],
        "step": int(net._rule["step"][0]),
        "history": str((net.history.epoch, net.history.history)),
        "generator": str(net._shuffle_rng.bit_generator.state),
        "stopping": [(m.best_epoch, m.best, m.waited, m.params.tobytes()) for m in stopping],
        "optimizer": repr(net.optimizer),
    }


@contextmanager
def one_batch_a_slice():
    """Slices as short as they can be, so that a training can be cut after every batch."""
    with mock.patch.object(training, "SLICE_SECONDS", 1e-9):
        yield


def cut_off(optimizer, feature, dtype, after, path):
    """Train until the cut, and leave a file; whether there was a cut."""
    net = network(optimizer, feature, dtype)
    try:
        train(net, optimizer, callbacks(feature, after))
    except Cut:
        net.save(path)
        return True
    return False


def gone_on_with(optimizer, feature, dtype, path, forget=None):
    """Go on from the file, without one thing if wanted."""
    net = network(optimizer, feature, dtype, threads=1, seed=2)
    if forget is None:
        return train(net, optimizer, callbacks(feature), resume=path)
    net = fnn.load(path)
    forget(net)
    return train(net, optimizer, callbacks(feature), resume=True)


def cuts(optimizer):
    """After which slices, and which epochs, a training can be cut."""
    batches = 1 if optimizer == "lbfgs" else -(-int(ROWS * 0.75) // BATCH)
    return [*range(1, EPOCHS * batches + 1), *range(-EPOCHS, 0)]


def run(count: int) -> dict[str, object]:
    cases = [
        (optimizer, feature, dtype, after)
        for optimizer in OPTIMIZERS
        for feature in FEATURES
        for dtype in ("float32", "float64")
        for after in cuts(optimizer)
    ]
    random.Random(0).shuffle(cases)
    wholes: dict[tuple, dict] = {}
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, one_batch_a_slice():
        path = Path(folder) / "cut.safetensors"
        done = 0
        while done < count:
            for *kind, after in cases[: count - done]:
                whole = wholes.get(tuple(kind))
                if whole is None:
                    whole = train(network(*kind), kind[0], callbacks(kind[1]))
                    wholes[tuple(kind)] = whole
                done += 1
                if not cut_off(*kind, after, path):
                    outcomes["ended before the cut"] += 1
                elif gone_on_with(*kind, path) == whole:
                    outcomes["equal"] += 1
                else:
                    outcomes["different"] += 1
    missed = unnoticed()
    return {
        "cases": sum(outcomes.values()),
        **outcomes,
        "items forgotten": len(ITEMS),
        "forgotten unnoticed": ", ".join(missed) or "none",
        "failures": outcomes["different"] + len(missed),
    }


# -- what is remembered -----------------------------------------------------------------


def _of_callback(place, name, value):
    def forget(net):
        net._progress.callbacks[place][1][name] = value

    return forget


def _set(path, value):
    """A function that sets an attribute of the network, ``"_progress.epoch"``."""
    *names, last = path.split(".")

    def forget(net):
        target = net
        for name in names:
            target = getattr(target, name)
        setattr(target, last, value() if callable(value) else value)

    return forget


ITEMS = {
    "params": lambda net: net.params.fill(0.1),
    "running means": lambda net: net.layers[3]._views["running_mean"].fill(0),
    "optimizer's memory": lambda net: net._state.fill(0),
    "step": lambda net: net._rule["step"].fill(0),
    "noise seed": lambda net: net._rule["seed"].fill(0),
    "generator": _set("_progress.generator", lambda: np.random.PCG64(5).state),
    "learning rate": _set("optimizer.learning_rate.learning_rate", 0.2),
    "plateau": _set("optimizer.learning_rate.memory", [None, 0, 0]),
    "epoch": _set("_progress.epoch", 0),
    "batch": _set("_progress.batch", 0),
    "over": _set("_progress.over", False),
    "told": _set("_progress.told", 0),
    "scores": lambda net: net._progress.scores.clear(),
    "history": _set("_progress.history", fnn.History),
    "stopping: best": _of_callback(0, "best", None),
    "stopping: best epoch": _of_callback(0, "best_epoch", 17),
    "stopping: waited": _of_callback(0, "waited", 0),
    "stopping: params": _of_callback(0, "params", np.zeros(0)),
    "stopping: stop": _of_callback(0, "stop", True),
}
LBFGS_ITEMS = {
    "pairs": lambda net: net._pairs.clear(),
    "point": lambda net: net._progress.callbacks[-1][1].update(
        loss=net._progress.callbacks[-1][1]["loss"] + 1
    ),
    "stop": _of_callback(-1, "stop", True),
}


def unnoticed() -> list[str]:
    """Items whose loss shows after no cut of a training that has everything."""
    missed = []
    with tempfile.TemporaryDirectory() as folder, one_batch_a_slice():
        for optimizer, items in (("adam", ITEMS), ("lbfgs", LBFGS_ITEMS)):
            kind = (optimizer, "everything", "float32")
            whole = train(network(*kind), optimizer, callbacks("everything"))
            left = dict(items)
            for after in (1, 2, 3, 12, 17, 30, -3, -4, -5, -6):
                path = Path(folder) / f"{after}.safetensors"
                if not cut_off(*kind, after, path):
                    continue
                for name, forget in list(left.items()):
                    try:
                        same = gone_on_with(*kind, path, forget) == whole
                    except (ValueError, TypeError, AttributeError, IndexError):
                        same = False  # it cannot even go on
                    if not same:
                        del left[name]
            missed += left
    return missed
