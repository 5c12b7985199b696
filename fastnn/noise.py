"""Layers that are random while training: `fastnn.kernels.noise` computes them."""

from __future__ import annotations

import math

from fastnn._check import number
from fastnn.kernels._op import EVALUATE, PREDICT, TRAIN
from fastnn.layers import Elementwise, Step

__all__ = ["Dropout", "GaussianNoise"]


class Dropout(Elementwise):
    """Sets a share of the values to 0 while training, and scales up the others.

    What is kept is divided by ``1 - rate``, so that sums keep their size; `predict` and
    `evaluate` let everything pass. Which values are dropped depends on the network's seed, the
    step and the place of a value alone: the same for any number of threads.

    Parameters
    ----------
    rate : float
        Share that is dropped, from 0 to below 1.

    Notes
    -----
    Sources: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov (2014), JMLR 15;
    *Neural Networks from Scratch*, chapter 15; Nielsen, chapter 3.

    Examples
    --------
    >>> import fastnn as fnn
    >>> net = fnn.Network([fnn.Dropout(0.5)], input_shape=(3,), seed=0)
    >>> net.predict([[1.0, 2.0, 3.0]])
    array([[1., 2., 3.]], dtype=float32)
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = number("rate", rate, least=0, below=1)

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """Dropout in training, nothing elsewhere."""
        return random_steps("dropout", math.prod(shape), rate=self.rate)

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"


class GaussianNoise(Elementwise):
    """Adds normal noise while training; `predict` and `evaluate` let everything pass.

    Parameters
    ----------
    stddev : float
        Of the noise, at least 0.

    Notes
    -----
    Source: Bishop (1995), "Training with noise is equivalent to Tikhonov regularization",
    Neural Computation 7; Nielsen, chapter 3, on artificially expanded data.

    Examples
    --------
    >>> GaussianNoise(0.1)
    GaussianNoise(0.1)
    """

    def __init__(self, stddev: float) -> None:
        super().__init__()
        self.stddev = number("stddev", stddev, least=0)

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """Noise in training, nothing elsewhere."""
        return random_steps("gaussian_noise", math.prod(shape), stddev=self.stddev)

    def __repr__(self) -> str:
        return f"GaussianNoise({self.stddev:g})"


def random_steps(op: str, width: int, **options: float) -> list[Step]:
    """An op in training; what it takes is passed on elsewhere."""
    training = Step(op, width, width, options=tuple(options.items()), when=TRAIN)
    return [training, Step("linear", width, width, when=PREDICT | EVALUATE, twin=True)]
