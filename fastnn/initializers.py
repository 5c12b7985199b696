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
    "default_for",
    "fan_out_normal",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
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


def fan_out_normal(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Draw from N(0, 1 / fan_out): keeps the size of the gradient on its way back.

    Source: the fully connected layers of Nielsen's network3.py, chapter 6.
    """
    return rng.standard_normal(shape) * np.sqrt(1 / fan_out)


def zeros(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """All 0: how biases begin."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    """All 1: how scales begin."""
    return np.ones(shape)


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


def truncated_normal(std: float = 0.05) -> Initializer:
    """Draw from N(0, std**2), and again whatever is further than 2 std from 0.

    Parameters
    ----------
    std : float, default 0.05
        Standard deviation before the tails are cut off, at least 0: that of what is drawn is
        0.88 times as large. The meaning and the default are those of Keras.

    Returns
    -------
    callable
        An initializer.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> bool(abs(truncated_normal(0.1)(rng, (100, 100), 100, 100)).max() <= 0.2)
    True
    """
    std = number("std", std, least=0)

    def draw(
        rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> np.ndarray:
        values = rng.standard_normal(shape)
        while (far := np.abs(values) > 2).any():
            values[far] = rng.standard_normal(np.count_nonzero(far))
        return values * std

    return draw


def orthogonal(gain: float = 1.0) -> Initializer:
    """A random matrix with orthogonal rows or columns, whichever are fewer, of length gain.

    Of all such matrices none is more likely than another. It changes no signal's length but by
    the gain, in a deep network as in a shallow one.

    Parameters
    ----------
    gain : float, default 1
        At least 0; the square root of 2 before relu, and 0.01 for the last layer of a policy,
        are usual.

    Returns
    -------
    callable
        An initializer of matrices; it raises ValueError for anything else.

    Notes
    -----
    Source: Saxe, McClelland and Ganguli (2014), ICLR; the signs, without which the draw is not
    uniform, are those of Mezzadri (2007), Notices of the AMS 54.

    Examples
    --------
    >>> weight = orthogonal(2.0)(np.random.default_rng(0), (5, 3), 5, 3)
    >>> bool(np.allclose(weight.T @ weight, 4 * np.eye(3)))
    True
    """
    gain = number("gain", gain, least=0)

    def draw(
        rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> np.ndarray:
        if len(shape) != 2:
            raise ValueError(f"orthogonal begins matrices; got the shape {shape}: take another")
        q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
        q *= np.where(np.diag(r) < 0, -gain, gain)
        return q if shape[0] >= shape[1] else q.T

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
    "fan_out_normal": fan_out_normal,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "lecun_normal": lecun_normal,
    "normal": normal(),
    "ones": ones,
    "orthogonal": orthogonal(),
    "truncated_normal": truncated_normal(),
    "zeros": zeros,
}

# He's variance is right before what holds back about half of its inputs. Selu's two numbers were
# found for LeCun's.
_BEFORE = {
    "selu": "lecun_normal",
    **dict.fromkeys(("relu", "leaky_relu", "elu", "gelu", "silu", "mish"), "he_normal"),
}


def default_for(activation: str) -> str:
    """Name of the initializer that weights before this activation begin with by default.

    Examples
    --------
    >>> default_for("relu"), default_for("selu"), default_for("tanh")
    ('he_normal', 'lecun_normal', 'glorot_uniform')
    """
    return _BEFORE.get(activation, "glorot_uniform")


def get(argument: str, value: Any) -> Initializer:
    """An initializer by its name, or the callable itself."""
    return value if callable(value) else INITIALIZERS[one_of(argument, value, INITIALIZERS)]
