"""What is timed: networks, how they are trained or asked, on random data."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7  # of Adam, everywhere; epsilon as in the paper's algorithm
OUTPUT = {"cross_entropy": "softmax", "mse": "linear", "quadratic": "sigmoid"}


class Training(NamedTuple):
    """A network, its loss and its optimizer, and how many rows of data it sees in batches.

    Dense layers of these ``widths``; before them, where there is an ``image`` (channels, height,
    width), ``convolutions`` (filters, size of the window), each with max-pooling of 2 x 2.
    """

    widths: tuple[int, ...]
    loss: str
    batch: int
    rows: int
    hidden: str = "relu"
    optimizer: str = "adam"
    rate: float = 1e-3
    decay: float = 0.0  # step t is taken at rate / (1 + decay * t)
    scale: float = 1.0  # the network sees x * scale + offset
    offset: float = 0.0
    image: tuple[int, ...] = ()
    convolutions: tuple[tuple[int, int], ...] = ()

    unit = "step"

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return self.image or self.widths[:1]

    @property
    def steps(self) -> int:
        """Updates in an epoch."""
        return -(-self.rows // self.batch)

    @property
    def flop(self) -> int:
        """Of the products in a step; the gradient of the data is not computed."""
        products = [*self._windows(), *_products(self.widths)]
        return 2 * self.batch * (3 * sum(products) - products[0])

    def _windows(self) -> list[int]:
        """Products of a sample in each convolution."""
        found: list[int] = []
        if self.image:
            channels, height, width = self.image
            for filters, size in self.convolutions:
                height, width = height - size + 1, width - size + 1
                found.append(channels * size * size * filters * height * width)
                channels, height, width = filters, height // 2, width // 2
        return found

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Normal inputs; labels, or numbers for each output."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.rows, *self.in_shape), np.float32)
        if self.loss == "mse":
            return x, rng.standard_normal((self.rows, self.widths[-1]), np.float32)
        labels = rng.integers(0, self.widths[-1], self.rows)
        return x, labels if self.loss == "cross_entropy" else one_hot(labels, self.widths[-1])

    def __str__(self) -> str:
        loss = {"cross_entropy": "softmax cross-entropy", "mse": "MSE"}.get(self.loss, self.loss)
        optimizer = {"adam": "Adam", "sgd": "SGD"}[self.optimizer]
        front = "x".join(map(str, self.image)) + ", " if self.image else ""
        front += "".join(f"conv {f} of {s}x{s}, pool, " for f, s in self.convolutions)
        return f"{front}{chain(self.widths)} {self.hidden}, {loss}, {optimizer}, batch {self.batch}"


class Inference(NamedTuple):
    """Relu layers with a linear output, and how many rows the network is asked about at once."""

    widths: tuple[int, ...]
    rows: int

    unit = "call"
    hidden = "relu"
    loss = "mse"  # of which the output is linear

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return self.widths[:1]

    @property
    def flop(self) -> int:
        """Of the products in a call."""
        return 2 * self.rows * sum(_products(self.widths))

    def data(self) -> np.ndarray:
        """Normal inputs."""
        rng = np.random.default_rng(0)
        return rng.standard_normal((self.rows, self.widths[0]), np.float32)

    def __str__(self) -> str:
        return f"{chain(self.widths)} {self.hidden}, {self.rows:,} row{'s' * (self.rows > 1)}"


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """A row of zeros with a one for each label."""
    return np.eye(classes, dtype=np.float32)[labels]


def chain(widths: tuple[int, ...]) -> str:
    """``784-30-10``; ``64 x 10-10`` where many widths are alike."""
    head, *rest = widths
    if len(rest) > 4 and set(rest[:-1]) == {head}:
        return f"{head} x {len(rest)}-{rest[-1]}"
    return "-".join(map(str, widths))


def _products(widths: tuple[int, ...]) -> list[int]:
    return [a * b for a, b in pairwise(widths)]


TRAINING = {
    "spiral": Training((2, 64, 3), "cross_entropy", 300, 300),
    "nielsen": Training((784, 30, 10), "quadratic", 10, 5_000, "sigmoid", "sgd", 0.1),
    "tabular": Training((8, 64, 64, 1), "mse", 32, 6_400),
    "deep": Training((64,) * 11 + (10,), "cross_entropy", 64, 6_400),
    "mnist": Training((784, 128, 128, 10), "cross_entropy", 128, 12_800),
    "lenet": Training(
        (256, 120, 84, 10),
        "cross_entropy",
        128,
        1_280,
        image=(1, 28, 28),
        convolutions=((6, 5), (16, 5)),
    ),
    "wide": Training((784, 1024, 1024, 10), "cross_entropy", 512, 1_536),
}
INFERENCE = {
    "small, one row": Inference((4, 64, 64, 2), 1),
    "small, 10,000 rows": Inference((4, 64, 64, 2), 10_000),
    "mnist, one row": Inference((784, 128, 128, 10), 1),
    "mnist, 10,000 rows": Inference((784, 128, 128, 10), 10_000),
}
