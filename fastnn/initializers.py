"""How weights and biases begin: random numbers of the right size, from the network's seed.

An initializer is called as ``initializer(rng, shape, fan_in, fan_out)`` with a
`numpy.random.Generator` and gives a float64 array; the network rounds it to
its own dtype. The scaled ones keep the size of the signal the same from layer
to layer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn._check import number, one_of

__all__ = [
    "INITIALIZERS",
    "Initializer",
    "constant",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "normal",
    "zeros",
]

Initializer = Callable[[np.random.Generator, tuple[int, ...], int, int], np.ndarray]


def he_normal(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Draw from N(0, 2 / fan_in): for relu and its kin.

    Source: He, Zhang, Ren and Sun (2015), "Delving Deep into Rectifiers", eq. 10.
    """
    return rng.standard_normal(shape) * np.sqrt(2 / fan_in)


def he_uniform(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Draw from U(-a, a) with a = sqrt(6 / fan_in), of the variance of `he_normal`."""
    return rng.uniform(-1, 1, shape) * np.sqrt(6 / fan_in)


def glorot_normal(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Draw from N(0, 2 / (fan_in + fan_out)): for tanh, sigmoid and linear layers.

    Source: Glorot and Bengio (2010), "Understanding the difficulty of training deep
    feedforward neural networks", eq. 12.
    """
    return rng.standard_normal(shape) * np.sqrt(2 / (fan_in + fan_out))


def glorot_uniform(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Draw from U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio (2010), eq. 16.
    """
    return rng.uniform(-1, 1, shape) * np.sqrt(6 / (fan_in + fan_out))


def lecun_normal(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Draw from N(0, 1 / fan_in).

    Source: LeCun, Bottou, Orr and Müller (1998), "Efficient BackProp", eq. 16; Nielsen's
    default from chapter 3 on.
    """
    return rng.standard_normal(shape) * np.sqrt(1 / fan_in)


def zeros(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """All 0: how biases begin."""
    return np.zeros(shape)


def normal(std: float = 0.01) -> Initializer:
    """Draw from N(0, std**2): 0.01 as in *Neural Networks from Scratch*, 1 as in Nielsen's.

    Parameters
    ----------
    std : float, default 0.01
        Standard deviation, at least 0.

    Returns
    -------
    callable
        An initializer.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> normal(0.01)(rng, (2, 2), 2, 2).round(4)
    array([[ 0.0013, -0.0013],
           [ 0.0064,  0.001 ]])
    """
    std = number("std", std, least=0)

    def draw(
        rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> np.ndarray:
        return rng.standard_normal(shape) * std

    return draw


def constant(value: float) -> Initializer:
    """All the same.

    Parameters
    ----------
    value : float
        Any finite number.

    Returns
    -------
    callable
        An initializer.
    """
    value = number("value", value)

    def fill(
        rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> np.ndarray:
        return np.full(shape, value)

    return fill


INITIALIZERS: dict[str, Initializer] = {
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "lecun_normal": lecun_normal,
    "normal": normal(),
    "zeros": zeros,
}


def get(argument: str, value: Any) -> Initializer:
    """An initializer by its name, or the callable itself."""
    return value if callable(value) else INITIALIZERS[one_of(argument, value, INITIALIZERS)]
