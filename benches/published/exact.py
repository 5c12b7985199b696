"""What nnfs prints where nothing is random: compared digit by digit.

The book's numbers come of ``numpy.random.RandomState(0)``, first the spiral's noise, then the
weights, rounded to float32. Its matrix product works in float64 and is rounded once, which is what
a float64 network does whose output is rounded at the end.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import numpy as np

import fastnn as fnn


class Check(NamedTuple):
    """What is printed, and the function that computes it again."""

    name: str
    source: str
    printed: str
    ours: Callable[[], np.ndarray]

    def result(self) -> tuple[str, bool]:
        """Our digits, as many as are printed, and whether they are the same."""
        printed = [Decimal(text) for text in self.printed.split()]
        ours = [Decimal(float(value)) for value in np.ravel(self.ours())]
        rounded = [a.quantize(b) for a, b in zip(ours, printed, strict=True)]
        return " ".join(map(str, rounded)), rounded == printed


def worked_layer():
    """Chapter 2: three neurons, four inputs, three samples."""
    x = [[1.0, 2.0, 3.0, 2.5], [2.0, 5.0, -1.0, 2.0], [-1.5, 2.7, 3.3, -0.8]]
    weight = [[0.2, 0.8, -0.5, 1.0], [0.5, -0.91, 0.26, -0.5], [-0.26, -0.27, 0.17, 0.87]]
    net = fnn.Network([fnn.Dense(3)], input_shape=(4,), dtype="float64", threads=1)
    net.layers[0].weight, net.layers[0].bias = np.transpose(weight), [2.0, 3.0, 0.5]
    return net.predict(x)


def spiral_net(dtype):
    """The spiral of 300 points, and 2-3-3 with the book's first weights."""
    x, y = fnn.datasets.spiral(samples=100, classes=3, seed=0)
    random = np.random.RandomState(0)
    random.randn(len(x))  # what the spiral has drawn

    def drawn(rng, shape, fan_in, fan_out):
        return np.float32(0.01) * random.randn(*shape).astype(np.float32)

    layers = [
        fnn.Dense(3, "relu", weight_initializer=drawn),
        fnn.Dense(3, "softmax", weight_initializer=drawn),
    ]
    net = fnn.Network(
        layers, input_shape=(2,), loss="cross_entropy", dtype=dtype, seed=0, threads=1
    )
    return net, x, y


def first_layer():
    """Chapter 3: the second and third row behind the first layer, before its relu."""
    net, x, _ = spiral_net("float64")
    alone = fnn.Network([fnn.Dense(3)], input_shape=(2,), dtype="float64", threads=1)
    alone.layers[0].weight = net.layers[0].weight
    return alone.predict(x)[1:3].astype(np.float32)


def probabilities():
    """Chapters 4 and 5: the second row of the output."""
    net, x, _ = spiral_net("float32")
    return net.predict(x)[1]


def first_loss():
    """Chapter 5: the mean cross-entropy before any training."""
    net, x, y = spiral_net("float32")
    return np.float32(net.evaluate(x, y)["loss"])


CHECKS = [
    Check(
        "nnfs-2",
        "nnfs, chapter 2: a layer of three neurons",
        "4.8 1.21 2.385 8.9 -1.81 0.2 1.41 1.051 0.026",
        worked_layer,
    ),
    Check(
        "nnfs-3",
        "nnfs, chapter 3: two rows behind the first layer",
        "-1.0475188e-04 1.1395361e-04 -4.7983500e-05 -2.7414842e-04 3.1729150e-04 -8.6921798e-05",
        first_layer,
    ),
    Check(
        "nnfs-4",
        "nnfs, chapters 4 and 5: a row of probabilities",
        "0.33333316 0.3333332 0.33333364",
        probabilities,
    ),
    Check("nnfs-5", "nnfs, chapter 5: the loss at the start", "1.0986104", first_loss),
]
