"""Whole runs of the books, on their data, beside torch.

``python -m benches.whole [nielsen] [fashion] [spiral]``; MNIST and Fashion-MNIST are read from the
folder that ``FASTNN_DATA`` names.
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import fastnn as fnn
from benches.peers.fastnn import load, network, optimizer
from benches.workloads import Training, one_hot
from fastnn._threads import processors


class Whole(NamedTuple):
    """A run of a book: its network and data, and how long it trains."""

    title: str
    work: Training
    epochs: int
    data: Callable[[], tuple[np.ndarray, ...]]  # x, y, and both to test with
    torch_epochs: int  # that are timed, and scaled to all
    deviations: tuple[float, float] = (0.01, 0.0)  # of the first weights and biases: those of nnfs


def mnist():
    """The 50,000 images that Nielsen trains with."""
    x, y, x_test, y_test = fnn.datasets.mnist()
    return x[:50_000], y[:50_000], x_test, y_test


def spiral():
    """The same points to test with."""
    return fnn.datasets.spiral() * 2


RUNS = {
    "nielsen": Whole(
        "Nielsen, chapter 1: MNIST, 30 epochs",
        Training((784, 30, 10), "quadratic", 10, 50_000, "sigmoid", "sgd", 3.0, scale=1 / 255),
        30,
        mnist,
        2,
        (1.0, 1.0),
    ),
    "fashion": Whole(
        "nnfs, chapter 19: Fashion-MNIST, 10 epochs",
        Training(
            *((784, 128, 128, 10), "cross_entropy", 128, 60_000),
            decay=1e-3,
            scale=1 / 127.5,
            offset=-1.0,
        ),
        10,
        fnn.datasets.fashion_mnist,
        10,
    ),
    "spiral": Whole(
        "nnfs, chapter 10: the spiral, 10,001 epochs",
        Training((2, 64, 3), "cross_entropy", 300, 300, rate=0.05, decay=5e-7),
        10_001,
        spiral,
        10_001,
    ),
}


def drawn(whole: Whole) -> list[tuple[np.ndarray, np.ndarray]]:
    """The weights and biases that the run starts from."""
    weights, biases = whole.deviations
    normal = fnn.initializers.normal
    options = {"weight_initializer": normal(weights)}
    if biases:
        options["bias_initializer"] = normal(biases)
    layers = [fnn.Dense(width, **options) for width in whole.work.widths[1:]]
    net = fnn.Network(layers, input_shape=whole.work.widths[:1], seed=0)
    return [(layer.weight.copy(), layer.bias.copy()) for layer in net.layers]


def run(name: str, threads: int, to_the_end: bool = False, repetitions: int = 2) -> dict[str, Any]:
    """Seconds that the fit takes, compiled code in the cache; torch's beside them."""
    whole = RUNS[name]
    work = whole.work
    try:
        x, y, x_test, y_test = whole.data()
    except FileNotFoundError:
        return {"title": whole.title, "skipped": "FASTNN_DATA names no folder with its data"}
    weights, seconds = drawn(whole), []
    for _ in range(repetitions):
        net = network(work, threads)
        load(net, weights)
        net.optimizer = optimizer(work)
        began = time.perf_counter()
        net.fit(x, y, epochs=whole.epochs, batch_size=work.batch, verbose=0)
        seconds.append(time.perf_counter() - began)
    found = {
        "title": whole.title,
        "what": str(work),
        "fastnn": min(seconds),
        "accuracy": net.evaluate(x_test, y_test).get("accuracy"),
    }
    if find_spec("torch") is None:
        return found | {"torch": None}
    from benches.peers import torch

    epochs = whole.epochs if to_the_end else whole.torch_epochs
    numbers = x.astype(np.float32) * np.float32(work.scale) + np.float32(work.offset)
    target = one_hot(y, work.widths[-1]) if work.loss == "quadratic" else y.astype(np.int64)
    fit = torch.training(work, weights, (numbers, target), threads, shuffle=True)
    began = time.perf_counter()
    fit(epochs)
    taken = time.perf_counter() - began
    scaled = epochs < whole.epochs
    return found | {"torch": taken * whole.epochs / epochs, "scaled": scaled}


def runs(threads: int, to_the_end: bool = False, names: Any = RUNS) -> dict[str, Any]:
    """All of them."""
    return {name: run(name, threads, to_the_end) for name in names}


def main(argv=None):
    from benches import report

    parser = argparse.ArgumentParser(prog="python -m benches.whole")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--threads", type=int, default=processors())
    parser.add_argument("--whole", action="store_true", help="torch to the end, not scaled")
    arguments = parser.parse_args(argv)
    names = arguments.names or list(RUNS)
    if unknown := set(names) - set(RUNS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(report.whole({"whole": runs(arguments.threads, arguments.whole, names)}))


if __name__ == "__main__":
    sys.exit(main())
