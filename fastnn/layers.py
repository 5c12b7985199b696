"""Layers: hyper-parameters and shapes, no arithmetic.

A layer says which ops it becomes in the plan and which arrays those need; the
network lays out the memory and hands the layer its views.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnn import initializers
from fastnn._check import number, one_of, whole
from fastnn.kernels._op import ALWAYS, EVALUATE, OPS, PREDICT, TRAIN

__all__ = ["Activation", "Dense", "Dropout", "GaussianNoise", "Input", "Layer"]

# He's variance is right where an activation zeroes half of its inputs, Glorot's elsewhere.
RECTIFIERS = ("relu", "leaky_relu")


class Step(NamedTuple):
    """One op of a layer: a row of the plan before it has addresses."""

    op: str
    fan_in: int
    fan_out: int
    parameters: tuple[str, ...] = ()
    alpha: float = 1.0
    alpha_x: float = 1.0
    options: tuple[tuple[str, float], ...] = ()  # other fields of the plan's row
    when: int = ALWAYS
    twin: bool = False  # takes the place of the step before it, in other passes


class Term(NamedTuple):
    """What weighs on an array of parameters, and what it may be."""

    l1: float = 0.0
    l2: float = 0.0
    max_norm: float = 0.0
    non_negative: bool = False


class Layer:
    """What every layer answers.

    Attributes
    ----------
    trainable : bool, default True
        Whether `fit` moves the layer's parameters; may be changed between calls.
    """

    fixed: tuple[str, ...] = ()  # parameters that no optimizer moves

    def __init__(self, trainable: bool = True) -> None:
        self._owner: Any = None
        self._views: dict[str, np.ndarray] = {}
        self.trainable = bool(trainable)

    def term(self, name: str) -> Term:
        """Penalties and constraints of a parameter."""
        return Term()

    def fan_out(self, fan_in: int) -> int:
        """Values per sample going out, for so many going in."""
        return fan_in

    def steps(self, fan_in: int) -> list[Step]:
        """Ops that the layer becomes."""
        return []

    def shapes(self, fan_in: int) -> dict[str, tuple[int, ...]]:
        """Shapes of its parameters, by name."""
        return {}

    def initial(self, name: str, rng: np.random.Generator, fan_in: int) -> np.ndarray:
        """Values that a parameter begins with."""
        raise NotImplementedError(f"{type(self).__name__} has no parameter {name}")

    def _get(self, name: str) -> np.ndarray:
        if name not in self._views:
            raise AttributeError(
                f"{name} exists once the network knows the width of its input: "
                "give Network(..., input_shape=(fan_in,)) or call fit"
            )
        return self._views[name]

    def _set(self, name: str, value: Any) -> None:
        view = self._get(name)
        try:
            new = np.asarray(value, view.dtype)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name} must be an array of numbers, got {value!r:.80}") from None
        if new.shape != view.shape:
            raise ValueError(f"{name} must have shape {view.shape}, got {new.shape}")
        view[...] = new


class Input(Layer):
    """Shape of one sample, and how raw values become the network's.

    Parameters
    ----------
    shape : tuple of int
        ``(fan_in,)``: values per sample.
    scale, offset : float, default 1 and 0
        The network sees ``x * scale + offset``, computed as a batch is gathered:
        ``scale=1/255`` turns the bytes of an image into 0..1 and needs no second copy.

    Examples
    --------
    >>> Input((784,), scale=1 / 255)
    Input((784,), scale=0.00392157)
    """

    def __init__(self, shape: tuple[int], *, scale: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.width = input_width("shape", shape)
        self.scale = number("scale", scale)
        self.offset = number("offset", offset)

    def __repr__(self) -> str:
        scale = f", scale={self.scale:g}" if self.scale != 1 else ""
        offset = f", offset={self.offset:g}" if self.offset != 0 else ""
        return f"Input(({self.width},){scale}{offset})"


class Activation(Layer):
    """An activation function on every value, or for softmax on every row.

    Parameters
    ----------
    name : str
        ``linear``, ``relu``, ``leaky_relu``, ``sigmoid``, ``tanh`` or ``softmax``.
    alpha : float, default 0.01
        Slope of ``leaky_relu`` below 0; Maas, Hannun and Ng (2013) use 0.01.

    Examples
    --------
    >>> Activation("leaky_relu", alpha=0.2)
    Activation('leaky_relu', alpha=0.2)
    """

    def __init__(self, name: str, *, alpha: float = 0.01) -> None:
        super().__init__()
        known = [op.name for op in OPS.values() if op.role == "activation"]
        self.name = one_of("activation", name, known)
        self.alpha = number("alpha", alpha)

    def steps(self, fan_in: int) -> list[Step]:
        """One elementwise op."""
        return [Step(self.name, fan_in, fan_in, alpha=0.0 if self.name == "relu" else self.alpha)]

    def __repr__(self) -> str:
        alpha = f", alpha={self.alpha:g}" if self.name == "leaky_relu" else ""
        return f"Activation({self.name!r}{alpha})"


class Dense(Layer):
    """Fully connected layer: ``activation(x @ weight + bias)``.

    Parameters
    ----------
    units : int
        Neurons, that is values per sample going out.
    activation : str or Activation, default "linear"
        What follows the sum.
    weight_initializer : str or callable, optional
        How weights begin; default ``he_normal`` before relu and leaky_relu,
        ``glorot_uniform`` elsewhere. See `fastnn.initializers`.
    bias_initializer : str or callable, default "zeros"
        How biases begin.
    use_bias : bool, default True
        False leaves the bias out.
    weight_l1, weight_l2, bias_l1, bias_l2 : float, default 0
        Penalties: ``l1 * sum(|p|) + l2 * sum(p**2)`` is added to the mean loss, as in
        *Neural Networks from Scratch*, chapter 14, and Keras; the derivative of ``|p|`` is 0
        at 0. Other books and libraries scale it otherwise: see `fastnn.conventions`.
    max_norm : float, optional
        After each step the weights that come into a neuron are shortened to this length.
    non_negative : bool, default False
        After each step weights below 0 become 0.
    trainable : bool, default True
        Whether `fit` moves weight and bias.

    Attributes
    ----------
    weight : array (fan_in, units)
        View of the network's parameters; may be written in place or assigned to.
    bias : array (units,)
        Likewise.

    Examples
    --------
    >>> import fastnn as fnn
    >>> net = fnn.Network([fnn.Dense(2)], input_shape=(3,), loss="mse", seed=0)
    >>> net.layers[0].weight.shape, net.layers[0].bias
    ((3, 2), array([0., 0.], dtype=float32))
    """

    def __init__(
        self,
        units: int,
        activation: str | Activation = "linear",
        *,
        weight_initializer: str | initializers.Initializer | None = None,
        bias_initializer: str | initializers.Initializer = "zeros",
        use_bias: bool = True,
        weight_l1: float = 0.0,
        weight_l2: float = 0.0,
        bias_l1: float = 0.0,
        bias_l2: float = 0.0,
        max_norm: float | None = None,
        non_negative: bool = False,
        trainable: bool = True,
    ) -> None:
        super().__init__(trainable)
        self.use_bias = bool(use_bias)
        self.weight_l1 = number("weight_l1", weight_l1, least=0)
        self.weight_l2 = number("weight_l2", weight_l2, least=0)
        self.bias_l1 = number("bias_l1", bias_l1, least=0)
        self.bias_l2 = number("bias_l2", bias_l2, least=0)
        self.max_norm = None if max_norm is None else number("max_norm", max_norm, above=0)
        self.non_negative = bool(non_negative)
        self.units = whole("units", units)
        self.activation = (
            activation if isinstance(activation, Activation) else Activation(activation)
        )
        if weight_initializer is None:
            rectified = self.activation.name in RECTIFIERS
            weight_initializer = "he_normal" if rectified else "glorot_uniform"
        self._initializers = {
            "weight": initializers.get("weight_initializer", weight_initializer),
            "bias": initializers.get("bias_initializer", bias_initializer),
        }

    @property
    def weight(self) -> np.ndarray:
        """Weights, (fan_in, units): ``weight[i, o]`` joins input ``i`` to neuron ``o``."""
        return self._get("weight")

    @weight.setter
    def weight(self, value: Any) -> None:
        self._set("weight", value)

    @property
    def bias(self) -> np.ndarray:
        """Biases, (units,)."""
        return self._get("bias")

    @bias.setter
    def bias(self, value: Any) -> None:
        self._set("bias", value)

    def fan_out(self, fan_in: int) -> int:
        """One value for each neuron."""
        return self.units

    def steps(self, fan_in: int) -> list[Step]:
        """The sum, then the activation."""
        dense = Step("dense", fan_in, self.units, tuple(self.shapes(fan_in)))
        activation = self.activation.steps(self.units)
        return [dense, *(step for step in activation if step.op != "linear")]

    def shapes(self, fan_in: int) -> dict[str, tuple[int, ...]]:
        """A weight for each pair of input and neuron, a bias for each neuron."""
        bias = {"bias": (self.units,)} if self.use_bias else {}
        return {"weight": (fan_in, self.units), **bias}

    def term(self, name: str) -> Term:
        """As given for weight and bias; constraints are the weight's."""
        if name == "bias":
            return Term(self.bias_l1, self.bias_l2)
        return Term(self.weight_l1, self.weight_l2, self.max_norm or 0.0, self.non_negative)

    def initial(self, name: str, rng: np.random.Generator, fan_in: int) -> np.ndarray:
        """What the initializers draw."""
        shape = self.shapes(fan_in)[name]
        values = np.asarray(self._initializers[name](rng, shape, fan_in, self.units))
        if values.shape != shape:
            raise ValueError(
                f"{name}_initializer must give an array of shape {shape}, got {values.shape}"
            )
        return values

    def __repr__(self) -> str:
        name = self.activation.name
        options = {k: getattr(self, k) for k in _DENSE_OPTIONS}
        changed = "".join(f", {k}={v!r}" for k, v in options.items() if v != _DENSE_OPTIONS[k])
        return f"Dense({self.units}{f', {name!r}' if name != 'linear' else ''}{changed})"


_DENSE_OPTIONS: dict[str, Any] = {
    "use_bias": True,
    "weight_l1": 0.0,
    "weight_l2": 0.0,
    "bias_l1": 0.0,
    "bias_l2": 0.0,
    "max_norm": None,
    "non_negative": False,
    "trainable": True,
}


class Dropout(Layer):
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

    def steps(self, fan_in: int) -> list[Step]:
        """Dropout in training, nothing elsewhere."""
        return random_steps("dropout", fan_in, rate=self.rate)

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"


class GaussianNoise(Layer):
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

    def steps(self, fan_in: int) -> list[Step]:
        """Noise in training, nothing elsewhere."""
        return random_steps("gaussian_noise", fan_in, stddev=self.stddev)

    def __repr__(self) -> str:
        return f"GaussianNoise({self.stddev:g})"


def random_steps(op: str, fan_in: int, **options: float) -> list[Step]:
    """An op in training; what it takes is passed on elsewhere."""
    training = Step(op, fan_in, fan_in, options=tuple(options.items()), when=TRAIN)
    return [training, Step("linear", fan_in, fan_in, when=PREDICT | EVALUATE, twin=True)]


def input_width(argument: str, shape: Any) -> int:
    """Values per sample of a shape ``(fan_in,)``."""
    if not isinstance(shape, tuple | list) or len(shape) != 1:
        raise ValueError(f"{argument} must be (fan_in,), one whole number, got {shape!r}")
    return whole(f"{argument}[0]", shape[0])
