"""Layers: hyper-parameters and shapes, no arithmetic.

A layer says which ops it becomes in the plan and which arrays those need; the
network lays out the memory and hands the layer its views.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np

from fastnn import initializers
from fastnn._check import flag, number, one_of, parameter, shown, whole
from fastnn.kernels._op import ALWAYS, OPS

__all__ = ["Activation", "Dense", "Input", "Layer"]

# Two straight lines that meet at 0: the layers on either side of one apply it themselves, where
# the one before can bend its sums and the one behind leads its gradient back through it.
RECTIFIERS = ("relu", "leaky_relu")
BENDING = ("dense", "conv2d")
LEADING_BACK = ("dense", "conv2d", "max_pool2d")
ALPHAS = {"leaky_relu": 0.01, "elu": 1.0}  # activations that have one, and what it is by default


_PLAIN = (int, float, str, type(None))  # what copies can share


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
    rectifier: tuple[int, str] | None = None  # layer and op of the one it applies itself


class Term(NamedTuple):
    """What weighs on an array of parameters, and what it may be."""

    l1: float = 0.0
    l2: float = 0.0
    max_norm: float = 0.0
    non_negative: bool = False


class Layer:
    """What every layer answers.

    A copy of a layer is a new one with the same options, that belongs to no network yet; copy
    the network to have its parameters as well.

    Attributes
    ----------
    trainable : bool, default True
        Whether `fit` moves the layer's parameters; may be changed between calls.
    """

    fixed: tuple[str, ...] = ()  # parameters that no optimizer moves

    def __init__(self, trainable: bool = True) -> None:
        self._owned = False  # by a network; which one would be a circle, freed late
        self._views: dict[str, np.ndarray] = {}
        self.trainable = flag("trainable", trainable)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: a network's copy joins its layers itself."""
        return self.__dict__ | {"_owned": False, "_views": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Layer:
        """As `copy.deepcopy` does it, which asks about every number one by one, for long."""
        twin = copy.copy(self)
        memo[id(self)] = twin
        for name, value in vars(twin).items():
            if not isinstance(value, _PLAIN):
                setattr(twin, name, copy.deepcopy(value, memo))
        return twin

    def term(self, name: str) -> Term:
        """Penalties and constraints of a parameter."""
        return Term()

    def check(self, x: np.ndarray) -> None:
        """Refuse input (n, fan_in) that the layer, in front, cannot take."""

    def fan_out(self, fan_in: int) -> int:
        """Values per sample going out, for so many going in."""
        return fan_in

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a sample going out."""
        if len(shape) != 1:
            raise ValueError(f"{self!r} needs flat samples, got {shape}; put Flatten() before it")
        return (self.fan_out(shape[0]),)

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """Ops that the layer becomes, for samples of a shape."""
        return []

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes of its parameters, by name, for samples of a shape."""
        return {}

    def initial(self, name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
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
        view[...] = parameter(name, value, view.shape, view.dtype)


class Elementwise(Layer):
    """A layer that leaves the shape of a sample as it is."""

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What comes in."""
        return shape


class Input(Layer):
    """Shape of one sample, and how raw values become the network's.

    Parameters
    ----------
    shape : tuple of int
        ``(fan_in,)``: values per sample; or ``(28, 28)``, with a `Flatten` behind it.
    scale, offset : float, default 1 and 0
        The network sees ``x * scale + offset``, computed as a batch is gathered:
        ``scale=1/255`` turns the bytes of an image into 0..1 and needs no second copy.

    Examples
    --------
    >>> Input((784,), scale=1 / 255)
    Input((784,), scale=0.00392157)
    """

    def __init__(self, shape: tuple[int, ...], *, scale: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.shape = input_shape("shape", shape)
        self.scale = number("scale", scale)
        self.offset = number("offset", offset)

    def __repr__(self) -> str:
        scale = f", scale={self.scale:g}" if self.scale != 1 else ""
        offset = f", offset={self.offset:g}" if self.offset != 0 else ""
        return f"Input({self.shape}{scale}{offset})"


class Activation(Elementwise):
    """An activation function on every value, or for softmax on every row.

    Parameters
    ----------
    name : str
        ``linear``; ``relu``, ``leaky_relu``, ``elu``, ``selu``, ``gelu`` (the exact one),
        ``silu`` (also known as swish), ``mish``; ``sigmoid``, ``tanh``, ``softsign``;
        ``softplus``, ``exponential``; ``softmax``. Also ``step``, the perceptron's, which has
        no gradient: a network with it predicts and is evaluated, but cannot be trained.
    alpha : float, optional
        Of ``leaky_relu`` the slope below 0, by default 0.01 as in Maas, Hannun and Ng (2013);
        of ``elu`` how far below 0 it reaches, by default 1 as in Clevert et al. (2016). The
        others have none.

    Raises
    ------
    TypeError, ValueError
        For an unknown name, and for an ``alpha`` that is not finite or has no meaning.

    Notes
    -----
    *Neural Networks from Scratch* has step, linear, sigmoid, relu and softmax in chapter 4;
    Nielsen step and sigmoid in chapter 1, softmax, tanh and relu in chapter 3. The formulas
    and the sources of the others stand in `fastnn.kernels.activations` and
    `fastnn.kernels.rectifiers`.

    Examples
    --------
    >>> Activation("leaky_relu", alpha=0.2)
    Activation('leaky_relu', alpha=0.2)
    >>> Activation("elu").alpha
    1.0
    """

    def __init__(self, name: str, *, alpha: float | None = None) -> None:
        super().__init__()
        known = [op.name for op in OPS.values() if op.role == "activation"]
        self.name = one_of("activation", name, known)
        if alpha is not None and name not in ALPHAS:
            raise ValueError(f"alpha belongs to {' and '.join(ALPHAS)}; {name} has none")
        self.alpha = ALPHAS.get(name) if alpha is None else number("alpha", alpha)

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """One elementwise op."""
        width = math.prod(shape)
        return [Step(self.name, width, width, alpha=self.alpha or 0.0)]  # relu's slope is 0

    def __repr__(self) -> str:
        alpha = "" if self.alpha is None else f", alpha={self.alpha:g}"
        return f"Activation({self.name!r}{alpha})"


class Neurons(Layer):
    """What layers share whose neurons have a sum of weights, a bias and an activation."""

    def __init__(
        self,
        activation: str | Activation,
        weight_initializer: str | initializers.Initializer | None,
        bias_initializer: str | initializers.Initializer,
        use_bias: bool,
        weight_l1: float,
        weight_l2: float,
        bias_l1: float,
        bias_l2: float,
        max_norm: float | None,
        non_negative: bool,
        trainable: bool,
    ) -> None:
        super().__init__(trainable)
        self.use_bias = flag("use_bias", use_bias)
        self.weight_l1 = number("weight_l1", weight_l1, least=0)
        self.weight_l2 = number("weight_l2", weight_l2, least=0)
        self.bias_l1 = number("bias_l1", bias_l1, least=0)
        self.bias_l2 = number("bias_l2", bias_l2, least=0)
        self.max_norm = None if max_norm is None else number("max_norm", max_norm, above=0)
        self.non_negative = flag("non_negative", non_negative)
        self.activation = (
            activation if isinstance(activation, Activation) else Activation(activation)
        )
        if weight_initializer is None:
            weight_initializer = initializers.default_for(self.activation.name)
        self._initializers = {
            "weight": initializers.get("weight_initializer", weight_initializer),
            "bias": initializers.get("bias_initializer", bias_initializer),
        }

    @property
    def weight(self) -> np.ndarray:
        """Weights, the last axis for the neurons."""
        return self._get("weight")

    @weight.setter
    def weight(self, value: Any) -> None:
        self._set("weight", value)

    @property
    def bias(self) -> np.ndarray:
        """Biases, one for each neuron."""
        return self._get("bias")

    @bias.setter
    def bias(self, value: Any) -> None:
        self._set("bias", value)

    def term(self, name: str) -> Term:
        """As given for weight and bias; constraints are the weight's."""
        if name == "bias":
            return Term(self.bias_l1, self.bias_l2)
        return Term(self.weight_l1, self.weight_l2, self.max_norm or 0.0, self.non_negative)

    def fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Values that a neuron takes, and neurons that take a value."""
        raise NotImplementedError

    def initial(self, name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """What the initializers draw."""
        wanted = self.shapes(shape)[name]
        values = np.asarray(self._initializers[name](rng, wanted, *self.fans(shape)))
        if values.shape != wanted:
            raise ValueError(
                f"{name}_initializer must give an array of shape {wanted}, got {values.shape}"
            )
        return values

    @property
    def _activated(self) -> str:
        """The activation, as ``repr`` has it."""
        return f", {self.activation.name!r}" if self.activation.name != "linear" else ""

    @property
    def _changed(self) -> str:
        """The options that are not as they are by default, likewise."""
        return "".join(
            f", {name}={getattr(self, name)!r}"
            for name, usual in _USUAL.items()
            if getattr(self, name) != usual
        )


_USUAL: dict[str, Any] = {
    "use_bias": True,
    "weight_l1": 0.0,
    "weight_l2": 0.0,
    "bias_l1": 0.0,
    "bias_l2": 0.0,
    "max_norm": None,
    "non_negative": False,
    "trainable": True,
}


class Dense(Neurons):
    """Fully connected layer: ``activation(x @ weight + bias)``.

    Parameters
    ----------
    units : int
        Neurons, that is values per sample going out.
    activation : str or Activation, default "linear"
        What follows the sum.
    weight_initializer : str or callable, optional
        How weights begin; default ``he_normal`` before relu, leaky_relu, elu, gelu, silu and
        mish, ``lecun_normal`` before selu, ``glorot_uniform`` elsewhere. See
        `fastnn.initializers`.
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
        super().__init__(
            activation, weight_initializer, bias_initializer, use_bias, weight_l1, weight_l2,
            bias_l1, bias_l2, max_norm, non_negative, trainable,
        )  # fmt: skip
        self.units = whole("units", units)

    def fan_out(self, fan_in: int) -> int:
        """One value for each neuron."""
        return self.units

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """The sum, then the activation."""
        dense = Step("dense", shape[0], self.units, tuple(self.shapes(shape)))
        activation = self.activation.steps((self.units,))
        return [dense, *(step for step in activation if step.op != "linear")]

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """A weight for each pair of input and neuron, a bias for each neuron."""
        bias = {"bias": (self.units,)} if self.use_bias else {}
        return {"weight": (shape[0], self.units), **bias}

    def fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """All values, all neurons."""
        return shape[0], self.units

    def __repr__(self) -> str:
        return f"Dense({self.units}{self._activated}{self._changed})"


def input_shape(argument: str, shape: Any) -> tuple[int, ...]:
    """The shape of a sample, ``(fan_in,)`` or more sizes."""
    if not isinstance(shape, tuple | list) or not shape:
        raise ValueError(
            f"{argument} must be (fan_in,), whole numbers in a tuple, got {shown(shape)}"
        )
    return tuple(whole(f"{argument}[{i}]", size) for i, size in enumerate(shape))
