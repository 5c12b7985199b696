"""Steps of training: compiled, numpy, and scikit-learn where it is installed, in turns.

``python -m benches.bench_training [workload ...]`` prints a table. A step is one update of
all parameters; data are random, and only the matrix products count as arithmetic. Every fit
starts anew, so that peers train networks of the same age. scikit-learn has no quadratic cost on
sigmoid outputs: on nielsen it trains its softmax and cross entropy, by plain SGD with sigmoids
in the hidden layer.
"""

import sys
import time
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import fastnn as fnn
from benches.timing import interleaved, machine, speedup

try:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
except ImportError:
    MLPClassifier = None

SECONDS = 0.5  # that one call of fit should take, so that what it does once does not count
OUTPUT = {"cross_entropy": "softmax", "mse": "linear", "quadratic": "sigmoid"}


class Workload(NamedTuple):
    """A network, how it is trained, and on how many rows of random data."""

    widths: tuple[int, ...]
    loss: str
    batch: int
    rows: int
    hidden: str = "relu"
    optimizer: str = "adam"

    @property
    def steps(self):
        """Updates in an epoch."""
        return -(-self.rows // self.batch)

    @property
    def flop(self):
        """Of the products in a step; the gradient of the data is not computed."""
        products = [a * b for a, b in zip(self.widths, self.widths[1:], strict=False)]
        return 2 * self.batch * (3 * sum(products) - products[0])

    def data(self):
        """Normal inputs; labels, or one number for each row."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.rows, self.widths[0]), np.float32)
        if self.loss == "mse":
            return x, rng.standard_normal(self.rows, np.float32)
        return x, rng.integers(0, self.widths[-1], self.rows)


WORKLOADS = {
    "spiral": Workload((2, 64, 3), "cross_entropy", 300, 300),
    "nielsen": Workload((784, 30, 10), "quadratic", 10, 10_000, "sigmoid", "sgd"),
    "tabular": Workload((8, 64, 64, 1), "mse", 32, 16_000),
    "deep": Workload((64,) * 11 + (10,), "cross_entropy", 64, 6_400),
    "mnist": Workload((784, 128, 128, 10), "cross_entropy", 128, 12_800),
    "wide": Workload((784, 1024, 1024, 10), "cross_entropy", 512, 5_120),
}


def network(work, backend):
    """``fit(epochs)`` of this project: each call trains a new network."""
    x, y = work.data()
    if work.loss == "quadratic":  # takes numbers
        y = np.eye(work.widths[-1], dtype=np.float32)[y]
    options = {"loss": work.loss, "optimizer": work.optimizer, "backend": backend}

    def fit(epochs):
        layers = [fnn.Dense(width, work.hidden) for width in work.widths[1:-1]]
        layers.append(fnn.Dense(work.widths[-1], OUTPUT[work.loss]))
        net = fnn.Network(layers, seed=0, **options)
        net.fit(x, y, epochs=epochs, batch_size=work.batch, verbose=0)

    return fit


def sklearn_network(work):
    """The same of scikit-learn, with nothing that would end it early."""
    kind = MLPRegressor if work.loss == "mse" else MLPClassifier
    options = {
        "hidden_layer_sizes": work.widths[1:-1],
        "activation": "logistic" if work.hidden == "sigmoid" else work.hidden,
        "solver": work.optimizer,
        "momentum": 0,
        "alpha": 0,
        "batch_size": work.batch,
        "tol": 0,
        "n_iter_no_change": np.inf,
        "random_state": 0,
    }
    x, y = work.data()

    def fit(epochs):
        with warnings.catch_warnings(action="ignore"):  # says that it has not converged
            kind(max_iter=epochs, **options).fit(x, y)

    return fit


# name: makes ``fit(epochs)`` for a workload, or None where it is not installed
PEERS = {
    "fastnn": partial(network, backend="compiled"),
    "numpy": partial(network, backend="numpy"),
    "scikit-learn": sklearn_network if MLPClassifier else None,
}


def epochs_for(fit):
    """As many epochs as take about `SECONDS`."""
    fit(1)  # compiles
    epochs, spent = 1, 0.0
    while spent < SECONDS / 2:
        began = time.perf_counter()
        fit(epochs)
        spent = time.perf_counter() - began
        epochs = max(1, round(epochs * min(10, SECONDS / spent)))
    return epochs


@pytest.mark.benchmark(min_rounds=5, max_time=0.5)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", WORKLOADS)
def test_training(benchmark, name, peer):
    if PEERS[peer] is None:
        pytest.skip(f"{peer} is not installed")
    fit = PEERS[peer](WORKLOADS[name])
    fit(1)  # compiles
    benchmark.group = f"{name}: {WORKLOADS[name].steps} steps"
    benchmark(fit, 1)


def main(names):
    print(machine())
    print(f"{'':23}{'us/step':>20}{'':20}{'speedup of fastnn':>18}")
    print(
        f"{'workload':9}{'peer':14}{'best':>10}{'median':>10}{'GFLOP/s':>9}{'steps/s':>9}"
        f"{'best':>11}{'median':>9}"
    )
    for peer, make in PEERS.items():
        if make is None:
            print(f"{peer} is not installed")
    for name in names or WORKLOADS:
        work = WORKLOADS[name]
        fits = {peer: make(work) for peer, make in PEERS.items() if make}
        epochs = {peer: epochs_for(fit) for peer, fit in fits.items()}
        times = interleaved({peer: partial(fits[peer], epochs[peer]) for peer in fits}, 8)
        times = {peer: times[peer] / (epochs[peer] * work.steps) for peer in fits}
        for peer, step in times.items():
            best, median = speedup(times["fastnn"], step)
            print(
                f"{name:9}{peer:14}{step.min() * 1e6:10.1f}{np.median(step) * 1e6:10.1f}"
                f"{work.flop / step.min() / 1e9:9.1f}{1 / step.min():9.0f}"
                f"{best:11.2f}{median:9.2f}",
                flush=True,
            )


if __name__ == "__main__":
    with threadpool_limits(1):
        main(sys.argv[1:])
