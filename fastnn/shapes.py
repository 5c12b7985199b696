"""Layers that change what a sample looks like: its shape, or numbers into rows of a table."""

from __future__ import annotations

import math

import numpy as np

from fastnn._check import whole
from fastnn.layers import Layer, Step, input_shape

__all__ = ["Embedding", "Flatten", "Reshape"]


class Flatten(Layer):
    """Lines up the values of a sample, ``(28, 28)`` to ``(784,)``; nothing moves in memory.

    Examples
    --------
    >>> import fastnn as fnn
    >>> net = fnn.Network([fnn.Flatten(), fnn.Dense(10)], input_shape=(28, 28), seed=0)
    >>> net.layers[1].weight.shape
    (784, 10)
    """

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """All values in a row."""
        return (math.prod(shape),)

    def __repr__(self) -> str:
        return "Flatten()"


class Reshape(Layer):
    """Gives a sample another shape of as many values; nothing moves in memory.

    Parameters
    ----------
    shape : tuple of int
        Of a sample.

    Examples
    --------
    >>> import fastnn as fnn
    >>> net = fnn.Network([fnn.Dense(6), fnn.Reshape((2, 3))], input_shape=(4,), seed=0)
    >>> net.predict([[1, 2, 3, 4]]).shape
    (1, 2, 3)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = input_shape("shape", shape)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """As given, if there are as many values."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{self!r} needs {math.prod(self.shape)} values, got {shape}")
        return self.shape

    def __repr__(self) -> str:
        return f"Reshape({self.shape})"


class Embedding(Layer):
    """A row of numbers for each of so many things, learnt: for columns of categories.

    The first layer of a network: each value of ``x`` is a whole number from 0 and becomes
    its row of the table, all columns by the same table.

    Parameters
    ----------
    vocabulary : int
        How many things there are.
    dim : int
        Numbers for each.
    trainable : bool, default True
        Whether the table moves.

    Attributes
    ----------
    weight : array (vocabulary, dim)
        The table, a view of the network's parameters; uniform from -0.05 to 0.05 at first,
        as in Keras.

    Notes
    -----
    Source: Bengio, Ducharme, Vincent and Jauvin (2003), JMLR 3.

    Examples
    --------
    >>> import fastnn as fnn
    >>> net = fnn.Network([fnn.Embedding(10, 2), fnn.Dense(1)], input_shape=(3,), seed=0)
    >>> net.layers[0].weight.shape, net.layers[1].weight.shape
    ((10, 2), (6, 1))
    """

    def __init__(self, vocabulary: int, dim: int, *, trainable: bool = True) -> None:
        super().__init__(trainable)
        self.vocabulary = whole("vocabulary", vocabulary)
        self.dim = whole("dim", dim)

    @property
    def weight(self) -> np.ndarray:
        """The table, (vocabulary, dim)."""
        return self._get("weight")

    def fan_out(self, fan_in: int) -> int:
        """A row of the table for each column."""
        return fan_in * self.dim

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The table."""
        return {"weight": (self.vocabulary, self.dim)}

    def initial(self, name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Small numbers around 0."""
        return rng.uniform(-0.05, 0.05, (self.vocabulary, self.dim))

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """One op."""
        return [Step("embedding", shape[0], self.fan_out(shape[0]), ("weight",))]

    def check(self, x: np.ndarray) -> None:
        """Every value of the input names a row of the table."""
        low, high = x.min(), x.max()
        if low < 0 or high >= self.vocabulary:
            wrong = low if low < 0 else high
            raise ValueError(
                f"x must hold whole numbers from 0 to {self.vocabulary - 1} for {self!r}, "
                f"got {wrong}"
            )
        if x.dtype.kind == "f" and (x != np.floor(x)).any():
            raise ValueError(f"x must hold whole numbers for {self!r}, got fractions")

    def __repr__(self) -> str:
        return f"Embedding({self.vocabulary}, {self.dim})"
