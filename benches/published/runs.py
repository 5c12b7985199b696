"""Training of one row with one seed, through the public interface alone."""

import os
import time
from collections import defaultdict
from functools import cache
from itertools import pairwise

import numpy as np

import fastnn as fnn
from benches.published.rows import ROWS, Claim, Row

IMAGES = {"mnist": fnn.datasets.mnist, "fashion": fnn.datasets.fashion_mnist}
SCALES = {
    "mnist": {"scale": 1 / 255},
    "fashion": {"scale": 1 / 127.5, "offset": -1.0},
}
NEW_POINTS = 100  # of each arm, that nnfs validates with

Data = dict[str, tuple[np.ndarray, np.ndarray]]


@cache
def images(name: str) -> tuple[np.ndarray, ...]:
    """A data set from its files, once for each process."""
    return IMAGES[name]()


def lacking(row: Row) -> str:
    """Why a row cannot be trained here; empty where it can."""
    if row.data in IMAGES and not os.environ.get("FASTNN_DATA"):
        return "FASTNN_DATA names no folder with its data"
    try:
        images(row.data) if row.data in IMAGES else None
    except (OSError, ValueError) as error:
        return str(error)
    if not hasattr(fnn, row.optimizer[0]):
        return f"there is no optimizer {row.optimizer[0]} yet"
    return ""


def arms(
    random: np.random.RandomState, samples: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """`fastnn.datasets.spiral` from a stream that goes on."""
    radius, points = np.linspace(0, 1, samples), []
    for arm in range(classes):
        noise = random.randn(samples).astype(np.float32) * 0.2
        angle = (np.linspace(arm * 4, (arm + 1) * 4, samples) + noise) * 2.5
        points.append(np.column_stack([radius * np.sin(angle), radius * np.cos(angle)]))
    return np.concatenate(points).astype(np.float32), np.arange(classes).repeat(samples)


def data(row: Row, seed: int) -> Data:
    """What the row trains with, validates with and tests with."""
    kind, _, classes = row.data.partition(" ")
    if kind == "spiral":
        # One stream, as in the book: points to train with, weights, points to validate with.
        random = np.random.RandomState(seed)
        train = arms(random, row.samples, int(classes))
        for shape in pairwise(row.widths):
            random.randn(*shape)
        return {"train": train, "validation": arms(random, NEW_POINTS, int(classes))}
    if kind == "sine":
        return {"train": fnn.datasets.sine(row.samples)}
    x, y, x_test, y_test = images(kind)
    if kind == "fashion":  # shuffled once, as in the book
        order = np.random.default_rng(seed).permutation(len(x))
        return {"train": (x[order], y[order]), "test": (x_test, y_test)}
    return {
        "train": (x[: row.samples], y[: row.samples]),
        "validation": (x[50_000:], y[50_000:]),
        "test": (x_test, y_test),
    }


def initializers(row: Row, seed: int):
    """A function that gives the initializers of a layer, told whether it is the last."""
    normal = fnn.initializers.normal
    if row.initializer.startswith("nnfs"):
        random = np.random.RandomState(seed)
        if row.data.startswith("spiral"):
            random.randn(row.samples * int(row.data.split()[1]))  # the points come first
        std = np.float32(row.initializer.split()[1])

        def drawn(rng, shape, fan_in, fan_out):
            return std * random.randn(*shape).astype(np.float32)

        return lambda last: {"weight_initializer": drawn}
    if row.initializer == "Nielsen network3":

        def by_fan_out(rng, shape, fan_in, fan_out):
            return rng.standard_normal(shape) / np.sqrt(fan_out)

        sigmoid = {"weight_initializer": by_fan_out, "bias_initializer": normal(1.0)}
        return lambda last: {"weight_initializer": "zeros"} if last else sigmoid
    weight = normal(1.0) if row.initializer == "Nielsen large" else "lecun_normal"
    return lambda last: {"weight_initializer": weight, "bias_initializer": normal(1.0)}


def network(row: Row, seed: int) -> fnn.Network:
    """The row's network, not trained."""
    hidden, output = row.activations
    initial = initializers(row, seed)
    layers: list = []
    if row.data in SCALES:
        layers.append(fnn.Input(row.widths[:1], **SCALES[row.data]))
    for number, units in enumerate(row.widths[1:], 2):
        last = number == len(row.widths)
        penalties = {"weight_l2": row.l2} if row.l2 else {}
        if row.l2 and row.source.startswith("nnfs"):
            penalties = {} if last else {"weight_l2": row.l2, "bias_l2": row.l2}
        activation = output if last else hidden
        layers.append(fnn.Dense(units, activation, **initial(last), **penalties))
        if row.dropout and not last:
            layers.append(fnn.Dropout(row.dropout))
    name, options = row.optimizer
    return fnn.Network(
        layers,
        input_shape=row.widths[:1],
        loss=row.loss,
        optimizer=getattr(fnn, name)(**options),
        seed=seed,
        threads=1,  # seeds are trained side by side; the bits are the same
    )


def train(row: Row, seed: int, epochs: int) -> dict[str, list[float]]:
    """Curves: ``accuracy``, ``loss``, ``test accuracy``, ..., a number for each epoch measured."""
    sets, net = data(row, seed), network(row, seed)
    curves: dict[str, list[float]] = defaultdict(list)
    for part in [1] * epochs if row.every_epoch else [epochs]:
        history = net.fit(
            *sets["train"], epochs=part, batch_size=row.batch, shuffle=row.shuffle, verbose=0
        )
        for name, values in history.history.items():
            curves[name.replace("_", " ")] += values
        for watched in row.watch:
            for name, value in net.evaluate(*sets[watched]).items():
                curves[f"{watched} {name}"].append(value)
    return dict(curves)


def claimed(claim: Claim, curves: dict[str, list[float]]) -> float:
    """The figure that a claim is about."""
    values = curves[claim.figure]
    if claim.when == "peak":
        return max(values)
    if claim.when == "best":  # the last of equals, as in the book
        validated = np.array(curves["validation accuracy"])
        return values[int(np.flatnonzero(validated == validated.max())[-1])]
    return values[-1 if claim.when == "last" else int(claim.when)]


def claims_of(row: Row, quick: bool) -> list[Claim]:
    """The row's claims; quick: those on its first epochs."""
    if not quick:
        return list(row.claims)
    return [c for c in row.claims if isinstance(c.when, int) and c.when < row.quick]


def run(name: str, seed: int, quick: bool) -> tuple[list[float], float]:
    """The figures of a row's claims with one seed, and the seconds that it took."""
    row, began = ROWS[name], time.perf_counter()
    curves = train(row, seed, row.quick if quick else row.epochs)
    figures = [claimed(claim, curves) for claim in claims_of(row, quick)]
    return figures, time.perf_counter() - began
