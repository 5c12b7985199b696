"""Optimizers: hyper-parameters of the update rules in `fastnn.kernels.optimizers`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from fastnn._check import number, one_of

__all__ = ["SGD", "Adam", "Optimizer"]


class Optimizer(ABC):
    """What every optimizer has: a learning rate and its decay.

    Parameters
    ----------
    learning_rate : float
        Size of a step, above 0.
    decay : float
        The step ``t``, counted from 0, is taken at ``learning_rate / (1 + decay * t)``:
        inverse-time decay per step, as in *Neural Networks from Scratch*, chapter 10.
    """

    def __init__(self, learning_rate: float, decay: float) -> None:
        self.learning_rate = number("learning_rate", learning_rate, above=0)
        self.decay = number("decay", decay, least=0)

    @property
    @abstractmethod
    def rule(self) -> str:
        """Name of the update in `fastnn.kernels.optimizers.RULES`."""

    @abstractmethod
    def fields(self) -> dict[str, float]:
        """Hyper-parameters of the update, under the names of its arguments."""

    def rates(self, first: int, count: int) -> np.ndarray:
        """Learning rates of ``count`` steps from step ``first`` on, float64."""
        steps = np.arange(first, first + count, dtype=np.float64)
        return self.learning_rate / (1 + self.decay * steps)

    def __repr__(self) -> str:
        options = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


class SGD(Optimizer):
    """Stochastic gradient descent, plain or with momentum.

    ``velocity = momentum * velocity - learning_rate * gradient``, then
    ``parameter += velocity``, or with Nesterov's momentum
    ``parameter += momentum * velocity - learning_rate * gradient``.

    Parameters
    ----------
    learning_rate : float, default 0.01
        As in Keras.
    momentum : float, default 0
        Share of the velocity that is kept, from 0 to below 1; 0.9 is common.
    nesterov : bool, default False
        Look ahead along the velocity.
    decay : float, default 0
        See `Optimizer`.

    Notes
    -----
    Sources: Nielsen, chapter 1 (eq. 20-21) and chapter 3 (momentum, eq. 107-108);
    Sutskever, Martens, Dahl and Hinton (2013), "On the importance of initialization and
    momentum in deep learning".

    Examples
    --------
    >>> SGD(0.1, momentum=0.9)
    SGD(learning_rate=0.1, decay=0.0, momentum=0.9, nesterov=False)
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, decay)
        self.momentum = number("momentum", momentum, least=0, below=1)
        self.nesterov = bool(nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got momentum=0")

    @property
    def rule(self) -> str:
        """Without momentum there is no velocity to keep."""
        return "momentum" if self.momentum else "sgd"

    def fields(self) -> dict[str, float]:
        """Momentum and whether it is Nesterov's."""
        return {"momentum": self.momentum, "nesterov": int(self.nesterov)}


class Adam(Optimizer):
    """Steps along the mean gradient over the root of the mean squared gradient.

    See `fastnn.kernels.optimizers.adam_step` for the formula.

    Parameters
    ----------
    learning_rate : float, default 0.001
        As the paper recommends.
    beta1, beta2 : float, default 0.9 and 0.999
        Share of the running means that is kept at each step, from 0 to below 1.
    epsilon : float, default 1e-8
        Keeps the division from exploding; the paper's 1e-8, where Keras and
        *Neural Networks from Scratch* take 1e-7.
    epsilon_mode : {"corrected", "raw"}, default "corrected"
        What epsilon is added to: the root of the bias-corrected mean, as in the paper's
        algorithm 1, PyTorch and *Neural Networks from Scratch*; or the root of the raw mean,
        as in Keras and scikit-learn (the paper's "epsilon hat"), which at the first step is
        as if epsilon were 31.6 times larger.
    decay : float, default 0
        See `Optimizer`.

    Notes
    -----
    Source: Kingma and Ba (2015), "Adam: A Method for Stochastic Optimization",
    arXiv:1412.6980.

    Examples
    --------
    >>> Adam(0.05, decay=5e-7).rates(0, 2)
    array([0.05      , 0.04999998])
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        epsilon_mode: str = "corrected",
        decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, decay)
        self.beta1 = number("beta1", beta1, least=0, below=1)
        self.beta2 = number("beta2", beta2, least=0, below=1)
        self.epsilon = number("epsilon", epsilon, least=0)
        self.epsilon_mode = one_of("epsilon_mode", epsilon_mode, ["corrected", "raw"])

    @property
    def rule(self) -> str:
        """One rule for both placements of epsilon."""
        return "adam"

    def fields(self) -> dict[str, float]:
        """Decay of the means, epsilon and its placement."""
        return {
            "beta1": self.beta1,
            "beta2": self.beta2,
            "epsilon": self.epsilon,
            "raw_epsilon": int(self.epsilon_mode == "raw"),
        }


OPTIMIZERS = {"sgd": SGD, "adam": Adam}


def get(value: Any) -> Optimizer:
    """An optimizer by its name with its defaults, or the object itself."""
    if isinstance(value, Optimizer):
        return value
    if isinstance(value, type) and issubclass(value, Optimizer):
        raise TypeError(f"optimizer must be an object, got the class: write {value.__name__}()")
    return OPTIMIZERS[one_of("optimizer", value, OPTIMIZERS)]()
