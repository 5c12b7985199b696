"""Layers that bring values to a common scale: `fastnn.kernels.normalization` computes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnn._check import number, numbers
from fastnn.kernels._op import EVALUATE, PREDICT, TRAIN
from fastnn.layers import Elementwise, Layer, Step

__all__ = ["BatchNorm", "LayerNorm", "Normalization", "Rescaling"]


class Scaled(Layer):
    """Layers with a weight and a bias for each column, 1 and 0 at first."""

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """A weight and a bias for each column."""
        return {"weight": shape, "bias": shape}

    def initial(self, name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Ones for what multiplies, zeros for what is added."""
        return np.full(shape, 1.0 if name in ("weight", "running_var") else 0.0)

    @property
    def weight(self) -> np.ndarray:
        """What each column is multiplied by, (fan_in,); gamma in the papers."""
        return self._get("weight")

    @property
    def bias(self) -> np.ndarray:
        """What is added to each column, (fan_in,); beta in the papers."""
        return self._get("bias")


class BatchNorm(Scaled):
    """Brings each column of a batch to mean 0 and variance 1, then scales and shifts it.

    In training by mean and variance of the batch (of a batch of one row nothing is left but
    the bias); in `predict` and `evaluate` by running means of both, which each step of `fit`
    moves: ``running = momentum * running + (1 - momentum) * batch``. Variances are biased,
    sums divided by the number of rows, also the running one.

    Parameters
    ----------
    momentum : float, default 0.99
        Share of the old running mean, as in Keras; torch's is one minus this, 0.1 there.
    epsilon : float, default 1e-3
        Added to the variance; as in Keras, where torch takes 1e-5.
    trainable : bool, default True
        Whether weight and bias move.

    Attributes
    ----------
    weight, bias, running_mean, running_var : array (fan_in,)
        Views of the network's parameters.

    Notes
    -----
    Source: Ioffe and Szegedy (2015), arXiv:1502.03167. Put it between a `Dense` and its
    activation, as there, or behind both.

    Examples
    --------
    >>> import fastnn as fnn
    >>> layers = [fnn.Dense(8, use_bias=False), fnn.BatchNorm(), fnn.Activation("relu")]
    >>> net = fnn.Network([*layers, fnn.Dense(1)], input_shape=(3,), seed=0)
    >>> net.layers[1].running_var
    array([1., 1., 1., 1., 1., 1., 1., 1.], dtype=float32)
    """

    fixed = ("running_mean", "running_var")

    def __init__(
        self, momentum: float = 0.99, epsilon: float = 1e-3, *, trainable: bool = True
    ) -> None:
        super().__init__(trainable)
        self.momentum = number("momentum", momentum, least=0, below=1)
        self.epsilon = number("epsilon", epsilon, least=0)

    @property
    def running_mean(self) -> np.ndarray:
        """Running mean of the batches' means, (fan_in,)."""
        return self._get("running_mean")

    @property
    def running_var(self) -> np.ndarray:
        """Running mean of the batches' variances, (fan_in,)."""
        return self._get("running_var")

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Weight and bias, and what runs along."""
        running = dict.fromkeys(self.fixed, shape)
        return super().shapes(shape) | running

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """By the batch in training, by the running means elsewhere."""
        arrays = tuple(self.shapes(shape))
        options = (("epsilon", self.epsilon), ("momentum", self.momentum))
        whole = (*options, ("columns", 1))
        return [
            Step("batch_norm", shape[0], shape[0], arrays, options=whole, when=TRAIN),
            Step(
                "running_norm", shape[0], shape[0], arrays,
                options=options, when=PREDICT | EVALUATE, twin=True,
            ),
        ]  # fmt: skip

    def __repr__(self) -> str:
        return f"BatchNorm({self.momentum:g}, {self.epsilon:g})"


class LayerNorm(Scaled):
    """Brings each row to mean 0 and variance 1, then scales and shifts each column.

    Parameters
    ----------
    epsilon : float, default 1e-5
        Added to the variance; as in torch, where Keras takes 1e-3.
    trainable : bool, default True
        Whether weight and bias move.

    Attributes
    ----------
    weight, bias : array (fan_in,)
        Views of the network's parameters.

    Notes
    -----
    Source: Ba, Kiros and Hinton (2016), arXiv:1607.06450.

    Examples
    --------
    >>> import fastnn as fnn
    >>> net = fnn.Network([fnn.LayerNorm()], input_shape=(2,), dtype="float64")
    >>> net.predict([[1.0, 3.0]]).round(3)
    array([[-1.,  1.]])
    """

    def __init__(self, epsilon: float = 1e-5, *, trainable: bool = True) -> None:
        super().__init__(trainable)
        self.epsilon = number("epsilon", epsilon, least=0)

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """One op."""
        options = (("epsilon", self.epsilon),)
        return [Step("layer_norm", shape[0], shape[0], ("weight", "bias"), options=options)]

    def __repr__(self) -> str:
        return f"LayerNorm({self.epsilon:g})"


class Normalization(Scaled):
    """Brings the columns of the data to mean 0 and variance 1, inside the network.

    What was learnt about the data is part of the network and goes where it goes: a network
    that is used elsewhere cannot be used without its scaling.

    Attributes
    ----------
    weight, bias : array (fan_in,)
        1 over the deviation, and the mean: views of the network's parameters, which no
        optimizer moves.

    Notes
    -----
    As scikit-learn's ``StandardScaler`` and Keras' ``Normalization``; a column that does not
    vary is only shifted.

    Examples
    --------
    >>> import fastnn as fnn
    >>> scaling = fnn.Normalization().adapt([[0.0, 10.0], [2.0, 30.0]])
    >>> net = fnn.Network([scaling], input_shape=(2,), seed=0)
    >>> net.predict([[2.0, 20.0]])
    array([[1., 0.]], dtype=float32)
    """

    fixed = ("weight", "bias")

    def __init__(self) -> None:
        super().__init__()
        self._adapted: dict[str, np.ndarray] = {}

    def adapt(self, x: Any) -> Normalization:
        """Learn mean and deviation of the columns of ``x``, (n, fan_in); returns the layer.

        Raises
        ------
        ValueError
            If ``x`` has other columns than the network, no rows, or a number that is not finite.
        """
        array = numbers("x", x)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"x must have shape (n, fan_in), got {array.shape}")
        with np.errstate(all="ignore"):
            mean = array.mean(axis=0, dtype=np.float64)
            deviation = array.std(axis=0, dtype=np.float64)
        if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
            raise ValueError("x must hold finite numbers to adapt to")
        if self._views and self._get("bias").shape != mean.shape:
            raise ValueError(f"x must have {self._get('bias').size} columns, got {mean.size}")
        self._adapted = {
            "weight": 1 / np.where(deviation > 0, deviation, 1),
            "bias": mean,
        }
        for name in self._views:
            self._views[name][...] = self._adapted[name]
        return self

    def initial(self, name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """What `adapt` has found."""
        if not self._adapted:
            raise ValueError("Normalization knows no data yet: call adapt(x) on it first")
        if self._adapted[name].shape != shape:
            raise ValueError(
                f"Normalization was adapted to {self._adapted[name].size} columns, got {shape[0]}"
            )
        return self._adapted[name]

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """One op."""
        return [Step("standardize", shape[0], shape[0], ("weight", "bias"))]

    def __repr__(self) -> str:
        return "Normalization()"


class Rescaling(Elementwise):
    """``x * scale + offset``, anywhere in the network; in front, `Input` does it for nothing.

    Parameters
    ----------
    scale, offset : float, default 1 and 0
        The same for all values.

    Examples
    --------
    >>> Rescaling(1 / 127.5, -1)
    Rescaling(0.00784314, -1)
    """

    def __init__(self, scale: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.scale = number("scale", scale)
        self.offset = number("offset", offset)

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """One op."""
        options = (("scale", self.scale), ("offset", self.offset))
        width = math.prod(shape)
        return [Step("rescaling", width, width, options=options)]

    def __repr__(self) -> str:
        return f"Rescaling({self.scale:g}, {self.offset:g})"
