"""Numbers that are not finite, put everywhere: all are found, in the slice in which they came.

NaN and both infinities go into every column of the data, targets and weights, where they must be
refused by name; into every parameter, before and in the middle of a training, behind every
activation and under every layer and limit that could hide them; into every memory of every
optimizer; and come of learning rates and schedules that blow up. There a `DivergenceError` must
name epoch, batch and layer before another slice ends. Both backends, one thread and two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn.kernels._op import OPS
from fastnn.kernels.optimizers import RULES
from fastnn.optimizers import OPTIMIZERS

BAD = (np.nan, np.inf, -np.inf)
ROWS, COLUMNS = 24, 3
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((ROWS, COLUMNS)), RNG.random((ROWS, 2))
ENGINES = (("compiled", 1), ("compiled", 2), ("numpy", 1))
ACTIVATIONS = [
    op.name for op in OPS.values() if op.role == "activation" and op.backward is not None
]
DIVERGED = re.compile(r"training diverged in epoch (\d+), batch (\d+) of (\d+): (.*) layer (\d+)")

# What could hide a number that is not finite, as layers between two dense ones.
HIDING: dict[str, Callable[[], list[fnn.layers.Layer]]] = {
    **{name: lambda name=name: [fnn.Activation(name)] for name in ACTIVATIONS},
    "BatchNorm": lambda: [fnn.BatchNorm(), fnn.Activation("relu")],
    "LayerNorm": lambda: [fnn.LayerNorm(), fnn.Activation("relu")],
    "Dropout": lambda: [fnn.Activation("relu"), fnn.Dropout(0.5)],
    "GaussianNoise": lambda: [fnn.GaussianNoise(0.1), fnn.Activation("relu")],
    "Rescaling": lambda: [fnn.Rescaling(0.5), fnn.Activation("relu")],
}
LIMITS: dict[str, dict[str, Any]] = {
    "max_norm": {"max_norm": 1.0},
    "non_negative": {"non_negative": True},
    "weight_l1": {"weight_l1": 0.1},
    "weight_l2": {"weight_l2": 0.1},
}
CLIPS = ("clip_value", "clip_norm", "global_clip_norm")


class Missed(Exception):
    """A number that nobody spoke of."""


def network(
    between: list[Any], engine: tuple[str, int], dense: dict[str, Any] | None = None, **options: Any
) -> fnn.Network:
    """Two dense layers and what lies between them."""
    layers = [fnn.Dense(4, **(dense or {})), *between, fnn.Dense(2)]
    options = {"optimizer": fnn.SGD(1e-3), **options}
    return fnn.Network(
        layers, input_shape=(COLUMNS,), seed=0, backend=engine[0], threads=engine[1], **options
    )


def fitted(net: fnn.Network, **options: Any) -> None:
    """Train, which must not come to its end."""
    options = {"epochs": 4, "batch_size": 4, "verbose": 0} | options
    net.fit(options.pop("x", X), options.pop("y", Y), **options)
    raise Missed("nothing was said")


def diverges(call: Callable[[], None], layer: int | None = None, batch: int | None = None) -> None:
    """Expect the error; of this layer and in this batch, counted from 1, where they are known."""
    try:
        call()
    except fnn.DivergenceError as error:
        found = DIVERGED.search(str(error))
        if found is None or "\n" in str(error):
            raise Missed(f"names no layer: {error}") from None
        epoch, place, of, _, named = found.groups()
        if layer is not None and int(named) != layer:
            raise Missed(f"not layer {layer}: {error}") from None
        if batch is not None and (int(epoch) - 1) * int(of) + int(place) != batch:
            raise Missed(f"not batch {batch}: {error}") from None


def refuses(call: Callable[[], Any], *parts: str) -> None:
    """Expect the data to be refused, by name."""
    try:
        call()
    except ValueError as error:
        if not all(part in str(error) for part in parts):
            raise Missed(f"without {parts}: {error}") from None
    else:
        raise Missed("data accepted")


class Injects(fnn.callbacks.Callback):
    """Puts a number among the parameters after some slices; no slice may end after that."""

    def __init__(self, place: int, value: float) -> None:
        self.place, self.value, self.slices = place, value, 0

    def on_slice_end(self, batches: int, logs: dict[str, float]) -> None:
        self.slices += 1
        if self.slices == 3:
            self.network.params[self.place] = self.value
        elif self.slices > 3:
            raise Missed("a slice went well after that")


class Blows(fnn.schedules.Schedule):
    """A rate that is not what it should be from one step on."""

    def __init__(self, rate: float, step: int) -> None:
        self.rate, self.step = rate, step

    def at(self, steps: np.ndarray) -> np.ndarray:
        return np.where(steps < self.step, 1e-3, self.rate)


Case = tuple[str, Callable[[], None]]


def of_data() -> Iterator[Case]:
    """What is handed over."""

    def spoiled(array: np.ndarray, bad: float, place: Any) -> np.ndarray:
        array = array.copy()
        array[place] = bad
        return array

    for backend in ("compiled", "numpy"):
        net = network([], (backend, 1))
        for bad in BAD:
            for column in range(COLUMNS):
                x = spoiled(X, bad, (5, column))
                for name, call in {
                    "fit": lambda x, net=net: net.fit(x, Y, verbose=0),
                    "train_on_batch": lambda x, net=net: net.train_on_batch(x, Y),
                    "evaluate": lambda x, net=net: net.evaluate(x, Y),
                    "gradients": lambda x, net=net: net.gradients(x, Y),
                    "predict": lambda x, net=net: net.predict(x),
                    "predict few": lambda x, net=net: net.predict(x[4:7].astype(np.float32)),
                    "validation_data": lambda x, net=net: net.fit(
                        X, Y, validation_data=(x, Y), verbose=0
                    ),
                    "batches": lambda x, net=net: net.fit([(X, Y), (x, Y)], verbose=0),
                }.items():
                    yield (
                        f"{bad} in x[:, {column}], {name}, {backend}",
                        lambda x=x, call=call, column=column: refuses(
                            lambda: call(x), "x must hold finite", f"column {column}"
                        ),
                    )
            for column in range(2):
                y = spoiled(Y, bad, (5, column))
                for name, call in {
                    "fit": lambda y, net=net: net.fit(X, y, verbose=0),
                    "evaluate": lambda y, net=net: net.evaluate(X, y),
                    "validation_data": lambda y, net=net: net.fit(
                        X, Y, validation_data=(X, y), verbose=0
                    ),
                }.items():
                    yield (
                        f"{bad} in y[:, {column}], {name}, {backend}",
                        lambda y=y, call=call: refuses(lambda: call(y), "y must hold finite"),
                    )
            weight = spoiled(np.ones(ROWS), bad, 5)
            for split in (0.0, 0.5):
                yield (
                    f"{bad} in sample_weight, validation_split={split}, {backend}",
                    lambda weight=weight, split=split, net=net: refuses(
                        lambda: net.fit(
                            X, Y, sample_weight=weight, validation_split=split, verbose=0
                        ),
                        "sample_weight must hold finite",
                    ),
                )


def of_parameters() -> Iterator[Case]:
    """Every parameter of every network, before and amid a training."""
    networks: dict[str, Callable[[Any], fnn.Network]] = {
        name: lambda e, make=make: network(make(), e) for name, make in HIDING.items()
    }
    networks |= {
        f"relu, {name}": lambda e, o=options: network([fnn.Activation("relu")], e, o)
        for name, options in LIMITS.items()
    }
    networks |= {
        f"relu, {clip}": lambda e, clip=clip: network(
            [fnn.Activation("relu")], e, optimizer=fnn.SGD(1e-3, **{clip: 1.0})
        )
        for clip in CLIPS
    }
    for number, (name, make) in enumerate(networks.items()):
        for place in make(ENGINES[2]).plan.parameters:
            for bad in BAD:
                for engine in (ENGINES[number % 2], ENGINES[2]):

                    def before(make: Any = make, place: Any = place, bad: float = bad,
                               engine: Any = engine) -> None:  # fmt: skip
                        net = make(engine)
                        net.params[place.offset] = bad
                        diverges(lambda: fitted(net), batch=1)

                    yield f"{bad} in {place.title} of {name}, {engine}", before

                def amid(make: Any = make, place: Any = place, bad: float = bad,
                         engine: Any = ENGINES[1 - number % 2]) -> None:  # fmt: skip
                    net = make(engine)
                    diverges(lambda: fitted(net, callbacks=[Injects(place.offset, bad)]))

                yield f"{bad} in {place.title} of {name}, amid", amid


def of_optimizers() -> Iterator[Case]:
    """Memories that are not finite, rates that blow up, gradients that overflow."""
    for name, kind in OPTIMIZERS.items():
        if name == "lbfgs":
            continue
        for engine in ENGINES:
            yield (
                f"{name}, learning_rate=1e30, {engine}",
                lambda kind=kind, engine=engine: diverges(
                    lambda: fitted(network([], engine, optimizer=kind(1e30)))
                ),
            )
            for rate in BAD:
                # The 10th update makes the parameters what they should not be.
                yield (
                    f"{name}, a schedule's {rate}, {engine}",
                    lambda kind=kind, engine=engine, rate=rate: diverges(
                        lambda: fitted(network([], engine, optimizer=kind(Blows(rate, 9)))), 0, 10
                    ),
                )
        for memory in range(RULES[network([], ENGINES[2], optimizer=kind())._optimizer.rule][1]):
            for bad in BAD:
                for engine in ENGINES[1:]:

                    def remembered(kind: Any = kind, memory: int = memory, bad: float = bad,
                                   engine: Any = engine) -> None:  # fmt: skip
                        net = network([], engine, optimizer=kind())
                        net._state[memory * net.plan.size] = bad
                        diverges(lambda: fitted(net), 0, 1)

                    yield f"{name}, {bad} in memory {memory}, {engine}", remembered
    for engine in ENGINES:

        def hidden(engine: Any = engine) -> None:
            """An update to minus infinity would be 0 where no weight may be negative."""
            net = network([], engine, {"non_negative": True, "use_bias": False},
                          optimizer=fnn.SGD(3e38))  # fmt: skip
            net.params[:] = 2
            diverges(lambda: fitted(net, x=np.ones((ROWS, COLUMNS))), 0, 1)

        yield f"minus infinity under non_negative, {engine}", hidden
    for clip in (None, *CLIPS):
        for engine in ENGINES:

            def overflows(clip: str | None = clip, engine: Any = engine) -> None:
                """The loss is finite; gradients of the first layer are 0 times infinity."""
                options = {} if clip is None else {clip: 1.0}
                net = network([fnn.Dense(4)], engine, loss="mae", optimizer=fnn.SGD(**options))
                net.params[:] = 0
                for layer in net.layers[1:]:
                    layer.weight[...] = 1e30
                x = np.zeros((ROWS, COLUMNS))
                diverges(lambda: fitted(net, x=x, y=np.ones((ROWS, 2))), 0, 1)

            yield f"gradients that overflow, {clip}, {engine}", overflows


def cases() -> list[Case]:
    return [*of_data(), *of_parameters(), *of_optimizers()]


COUNT, SMALL = len(cases()), 90


def run(count: int) -> dict[str, Any]:
    """Run the cases, or so many of them, evenly spread."""
    every = cases()
    chosen = [every[i] for i in sorted({i * len(every) // count for i in range(count)})]
    failures: dict[str, str] = {}
    for name, case in chosen:
        try:
            case()
        except Missed as missed:
            failures[f"! {name}"] = str(missed)
    return {"cases": len(chosen), "failures": len(failures), **failures}
