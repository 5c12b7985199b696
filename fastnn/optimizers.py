"""Optimizers: hyper-parameters of the update rules in `fastnn.kernels.optimizers`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from fastnn._check import flag, number, one_of, whole
from fastnn.schedules import ReduceOnPlateau, Schedule

__all__ = ["LBFGS", "SGD", "Adagrad", "Adam", "AdamW", "Lion", "Nadam", "Optimizer", "RMSprop"]


@dataclass(eq=False, repr=False)
class Optimizer(ABC):
    """What every optimizer has: a learning rate, its decay, bounds for gradients, averages.

    All of it may be changed between two calls of `Network.fit`, which checks it again.

    Parameters
    ----------
    learning_rate : float or Schedule
        Size of a step, above 0; one of `fastnn.schedules` where it changes with the steps.
    decay : float, default 0
        The step ``t``, counted from 0, is taken at ``learning_rate / (1 + decay * t)``:
        inverse-time decay per step, as in *Neural Networks from Scratch*, chapter 10.
    clip_value : float, optional
        Each number of a gradient is brought into ``-clip_value..clip_value``.
    clip_norm : float, optional
        The gradient of each array of parameters is scaled down to this norm.
    global_clip_norm : float, optional
        All gradients together are scaled down to this norm. Only one of the three can be given.
    ema : float, optional
        Keep a moving average of the weights, which `Network.averaged` gives: after step ``t``,
        counted from 1, ``average += (1 - d) * (weight - average)`` with
        ``d = min(ema, (1 + t) / (10 + t))``. From 0 to below 1; 0.99 to 0.9999 are common: the
        average is over about the last ``1 / (1 - ema)`` steps, fewer at the start, as in
        TensorFlow's ``ExponentialMovingAverage(decay, num_updates)``. It begins with the weights
        as they are before its first step.
    """

    learning_rate: float | Schedule
    _: KW_ONLY
    decay: float = 0.0
    clip_value: float | None = None
    clip_norm: float | None = None
    global_clip_norm: float | None = None
    ema: float | None = None

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Bring the hyper-parameters into their types.

        Raises
        ------
        TypeError, ValueError
            Where one is not what it must be; the text says what it is.
        """
        rate = self.learning_rate
        if isinstance(rate, type) and issubclass(rate, Schedule):
            raise TypeError(f"learning_rate: got the class: write {rate.__name__}(...)")
        if not isinstance(rate, Schedule):
            self.learning_rate = number("learning_rate", rate, above=0)
        self.decay = number("decay", self.decay, least=0)
        given = []
        for name in ("clip_value", "clip_norm", "global_clip_norm"):
            if getattr(self, name) is not None:
                setattr(self, name, number(name, getattr(self, name), above=0))
                given.append(name)
        if len(given) > 1:
            raise ValueError(f"only one way to clip gradients can be taken, got {', '.join(given)}")
        if self.ema is not None:
            self.ema = number("ema", self.ema, least=0, below=1)

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
        rate = self.learning_rate
        return (rate.at(steps) if isinstance(rate, Schedule) else rate) / (1 + self.decay * steps)

    @property
    def plateau(self) -> ReduceOnPlateau | None:
        """The schedule, if it is one that must hear of every epoch's loss."""
        return self.learning_rate if isinstance(self.learning_rate, ReduceOnPlateau) else None

    def __repr__(self) -> str:
        options = {k: v for k, v in vars(self).items() if not k.startswith("_") and v is not None}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


@dataclass(eq=False, repr=False)
class SGD(Optimizer):
    """Stochastic gradient descent, plain or with momentum.

    ``velocity = momentum * velocity - learning_rate * gradient``, then
    ``parameter += velocity``, or with Nesterov's momentum
    ``parameter += momentum * velocity - learning_rate * gradient``.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.01
        As in Keras.
    momentum : float, default 0
        Share of the velocity that is kept, from 0 to below 1; 0.9 is common.
    nesterov : bool, default False
        Look ahead along the velocity.
    decay, clip_value, clip_norm, global_clip_norm, ema : float
        See `Optimizer`.

    Notes
    -----
    Sources: Nielsen, chapter 1 (eq. 20-21) and chapter 3 (momentum, eq. 107-108);
    Sutskever, Martens, Dahl and Hinton (2013), "On the importance of initialization and
    momentum in deep learning".

    PyTorch keeps the learning rate out of the velocity, which is the same as long as the rate
    does not change.

    Examples
    --------
    >>> SGD(0.1, momentum=0.9)
    SGD(learning_rate=0.1, decay=0.0, momentum=0.9, nesterov=False)
    """

    learning_rate: float | Schedule = 0.01
    _: KW_ONLY
    momentum: float = 0.0
    nesterov: bool = False

    def check(self) -> None:
        """As `Optimizer.check`."""
        super().check()
        self.momentum = number("momentum", self.momentum, least=0, below=1)
        self.nesterov = flag("nesterov", self.nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got momentum=0")

    @property
    def rule(self) -> str:
        """Without momentum there is no velocity to keep."""
        return "momentum" if self.momentum else "sgd"

    def fields(self) -> dict[str, float]:
        """Momentum and whether it is Nesterov's."""
        return {"momentum": self.momentum, "nesterov": int(self.nesterov)}


@dataclass(eq=False, repr=False)
class Adagrad(Optimizer):
    """Steps along the gradient over the root of the sum of all squared gradients so far.

    See `fastnn.kernels.optimizers.adagrad_step` for the formula.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.01
        As in PyTorch; Keras takes 0.001, *Neural Networks from Scratch* 1.
    initial_total : float, default 0
        What each sum begins with: Keras's ``initial_accumulator_value``, there 0.1.
    epsilon : float, default 1e-7
        Keeps the division from exploding; as in Keras and *Neural Networks from Scratch*, where
        PyTorch takes 1e-10.
    epsilon_mode : {"outside", "inside"}, default "outside"
        Whether epsilon is added to the root, as in PyTorch and *Neural Networks from Scratch*,
        or to what is under it, as in Keras: 1e-7 there is as if it were 3e-4 here.
    decay, clip_value, clip_norm, global_clip_norm, ema : float
        See `Optimizer`.

    Notes
    -----
    Sources: Duchi, Hazan and Singer (2011), "Adaptive Subgradient Methods for Online Learning
    and Stochastic Optimization"; *Neural Networks from Scratch*, chapter 10.

    Examples
    --------
    >>> Adagrad(1.0, decay=1e-4).rates(0, 2).round(6)
    array([1.    , 0.9999])
    """

    learning_rate: float | Schedule = 0.01
    _: KW_ONLY
    initial_total: float = 0.0
    epsilon: float = 1e-7
    epsilon_mode: str = "outside"

    def check(self) -> None:
        """As `Optimizer.check`."""
        super().check()
        self.initial_total = number("initial_total", self.initial_total, least=0)
        self.epsilon = number("epsilon", self.epsilon, least=0)
        self.epsilon_mode = one_of("epsilon_mode", self.epsilon_mode, ["outside", "inside"])

    @property
    def rule(self) -> str:
        """One rule for both placements of epsilon."""
        return "adagrad"

    def fields(self) -> dict[str, float]:
        """Beginning of the sums, epsilon and its placement."""
        return {
            "initial_total": self.initial_total,
            "epsilon": self.epsilon,
            "inside_epsilon": int(self.epsilon_mode == "inside"),
        }


@dataclass(eq=False, repr=False)
class RMSprop(Optimizer):
    """Steps along the gradient over the root of the mean squared gradient.

    See `fastnn.kernels.optimizers.rmsprop_step` for the formula.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.001
        As in Keras and *Neural Networks from Scratch*; PyTorch takes 0.01.
    rho : float, default 0.9
        Share of the running mean that is kept at each step, from 0 to below 1; PyTorch's
        ``alpha``, there 0.99.
    momentum : float, default 0
        Share of a velocity that is kept, as in `SGD`.
    centered : bool, default False
        Divide by the root of the gradient's variance instead: of its mean square less the
        square of its mean.
    epsilon : float, default 1e-7
        Keeps the division from exploding; as in Keras and *Neural Networks from Scratch*, where
        PyTorch takes 1e-8.
    epsilon_mode : {"outside", "inside"}, default "outside"
        Whether epsilon is added to the root, as in PyTorch and *Neural Networks from Scratch*,
        or to what is under it, as in Keras: 1e-7 there is as if it were 3e-4 here.
    decay, clip_value, clip_norm, global_clip_norm, ema : float
        See `Optimizer`.

    Notes
    -----
    Sources: Tieleman and Hinton (2012), lecture 6.5 of *Neural Networks for Machine Learning*;
    Graves (2013), "Generating Sequences With Recurrent Neural Networks" (centered); *Neural
    Networks from Scratch*, chapter 10.

    Examples
    --------
    >>> RMSprop(0.02, decay=1e-5, rho=0.999)
    RMSprop(learning_rate=0.02, decay=1e-05, rho=0.999, momentum=0.0, centered=False, \
epsilon=1e-07, epsilon_mode='outside')
    """

    learning_rate: float | Schedule = 0.001
    _: KW_ONLY
    rho: float = 0.9
    momentum: float = 0.0
    centered: bool = False
    epsilon: float = 1e-7
    epsilon_mode: str = "outside"

    def check(self) -> None:
        """As `Optimizer.check`."""
        super().check()
        self.rho = number("rho", self.rho, least=0, below=1)
        self.momentum = number("momentum", self.momentum, least=0, below=1)
        self.centered = flag("centered", self.centered)
        self.epsilon = number("epsilon", self.epsilon, least=0)
        self.epsilon_mode = one_of("epsilon_mode", self.epsilon_mode, ["outside", "inside"])

    @property
    def rule(self) -> str:
        """What is not asked for is not kept either."""
        if self.centered:
            return "rmsprop_centered"
        return "rmsprop_momentum" if self.momentum else "rmsprop"

    def fields(self) -> dict[str, float]:
        """Decay of the mean, momentum, epsilon and its placement."""
        return {
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "inside_epsilon": int(self.epsilon_mode == "inside"),
        }


@dataclass(eq=False, repr=False)
class Adam(Optimizer):
    """Steps along the mean gradient over the root of the mean squared gradient.

    See `fastnn.kernels.adam.adam_step` for the formula.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.001
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
    amsgrad : bool, default False
        Divide by the root of the largest mean square so far (Reddi, Kale and Kumar, 2018).
    decay, clip_value, clip_norm, global_clip_norm, ema : float
        See `Optimizer`.

    Notes
    -----
    Source: Kingma and Ba (2015), "Adam: A Method for Stochastic Optimization",
    arXiv:1412.6980; *Neural Networks from Scratch*, chapter 10.

    Examples
    --------
    >>> Adam(0.05, decay=5e-7).rates(0, 2)
    array([0.05      , 0.04999998])
    """

    learning_rate: float | Schedule = 0.001
    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_mode: str = "corrected"
    amsgrad: bool = False

    def check(self) -> None:
        """As `Optimizer.check`."""
        super().check()
        self.beta1 = number("beta1", self.beta1, least=0, below=1)
        self.beta2 = number("beta2", self.beta2, least=0, below=1)
        self.epsilon = number("epsilon", self.epsilon, least=0)
        self.epsilon_mode = one_of("epsilon_mode", self.epsilon_mode, ["corrected", "raw"])
        self.amsgrad = flag("amsgrad", self.amsgrad)

    @property
    def rule(self) -> str:
        """One rule for both placements of epsilon."""
        return "amsgrad" if self.amsgrad else "adam"

    def fields(self) -> dict[str, float]:
        """Decay of the means, epsilon and its placement."""
        return {
            "beta1": self.beta1,
            "beta2": self.beta2,
            "epsilon": self.epsilon,
            "raw_epsilon": int(self.epsilon_mode == "raw"),
        }


@dataclass(eq=False, repr=False)
class AdamW(Adam):
    """Adam with weight decay that does not go through its means.

    ``parameter *= 1 - learning_rate * weight_decay`` before each step of `Adam`: weights and
    biases alike, as in PyTorch. An L2 penalty in the loss is another thing: Adam would divide
    its gradient by the root of the mean square, too.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.001
        As in PyTorch and Keras.
    weight_decay : float, default 0.01
        As in PyTorch; Keras takes 0.004.
    beta1, beta2, epsilon, epsilon_mode, amsgrad
        See `Adam`.
    decay, clip_value, clip_norm, global_clip_norm, ema : float
        See `Optimizer`. ``decay`` is that of the learning rate.

    Notes
    -----
    Source: Loshchilov and Hutter (2019), "Decoupled Weight Decay Regularization",
    arXiv:1711.05101.

    Examples
    --------
    >>> AdamW(weight_decay=0.1).fields()["weight_decay"]
    0.1
    """

    learning_rate: float | Schedule = 0.001
    _: KW_ONLY
    weight_decay: float = 0.01

    def check(self) -> None:
        """As `Optimizer.check`."""
        super().check()
        self.weight_decay = number("weight_decay", self.weight_decay, least=0)

    @property
    def rule(self) -> str:
        """The rule of amsgrad decays weights, too."""
        return "amsgrad" if self.amsgrad else "adamw"

    def fields(self) -> dict[str, float]:
        """As `Adam.fields`, and the decay."""
        return super().fields() | {"weight_decay": self.weight_decay}


@dataclass(eq=False, repr=False)
class Nadam(Optimizer):
    """Adam with Nesterov's momentum: one step ahead along the mean gradient.

    See `fastnn.kernels.adam.nadam_step` for the formula. Epsilon is added to the root of the
    bias-corrected mean, as PyTorch and Keras do here.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.002
        As in PyTorch; Keras takes 0.001.
    beta1, beta2 : float, default 0.9 and 0.999
        Share of the running means that is kept at each step, from 0 to below 1.
    epsilon : float, default 1e-8
        Keeps the division from exploding; as in PyTorch, where Keras takes 1e-7.
    momentum_decay : float, default 0.004
        The momentum of step ``t`` is ``beta1 * (1 - 0.96**(t * momentum_decay) / 2)``, as in
        the paper and PyTorch; in Keras it is always 1.
    decay, clip_value, clip_norm, global_clip_norm, ema : float
        See `Optimizer`.

    Notes
    -----
    Source: Dozat (2016), "Incorporating Nesterov Momentum into Adam".

    Examples
    --------
    >>> Nadam(0.01).rates(0, 1)
    array([0.01])
    """

    learning_rate: float | Schedule = 0.002
    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    momentum_decay: float = 0.004

    def check(self) -> None:
        """As `Optimizer.check`."""
        super().check()
        self.beta1 = number("beta1", self.beta1, least=0, below=1)
        self.beta2 = number("beta2", self.beta2, least=0, below=1)
        self.epsilon = number("epsilon", self.epsilon, least=0)
        self.momentum_decay = number("momentum_decay", self.momentum_decay, least=0)

    @property
    def rule(self) -> str:
        """One rule."""
        return "nadam"

    def fields(self) -> dict[str, float]:
        """Decay of the means and of the momentum, epsilon."""
        return {
            "beta1": self.beta1,
            "beta2": self.beta2,
            "epsilon": self.epsilon,
            "momentum_decay": self.momentum_decay,
        }


@dataclass(eq=False, repr=False)
class Lion(Optimizer):
    """Steps of one size for all parameters: along the sign of a mean gradient.

    See `fastnn.kernels.optimizers.lion_step` for the formula. There is nothing to divide by,
    and so no epsilon.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.0001
        As the paper's code; 3 to 10 times smaller than Adam would want.
    beta1, beta2 : float, default 0.9 and 0.99
        Share of the running mean in the step, and in what is kept; from 0 to below 1.
    weight_decay : float, default 0
        As in `AdamW`; 3 to 10 times larger than there.
    decay, clip_value, clip_norm, global_clip_norm, ema : float
        See `Optimizer`.

    Notes
    -----
    Source: Chen et al. (2023), "Symbolic Discovery of Optimization Algorithms",
    arXiv:2302.06675.

    Examples
    --------
    >>> Lion(weight_decay=0.1).fields()
    {'beta1': 0.9, 'beta2': 0.99, 'weight_decay': 0.1}
    """

    learning_rate: float | Schedule = 0.0001
    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def check(self) -> None:
        """As `Optimizer.check`."""
        super().check()
        self.beta1 = number("beta1", self.beta1, least=0, below=1)
        self.beta2 = number("beta2", self.beta2, least=0, below=1)
        self.weight_decay = number("weight_decay", self.weight_decay, least=0)

    @property
    def rule(self) -> str:
        """One rule."""
        return "lion"

    def fields(self) -> dict[str, float]:
        """Decay of the means and of the weights."""
        return {"beta1": self.beta1, "beta2": self.beta2, "weight_decay": self.weight_decay}


@dataclass(eq=False, repr=False)
class LBFGS(Optimizer):
    """A quasi-Newton method for few parameters and all the data at once.

    Every epoch of `Network.fit` is one iteration on the whole data set: a direction from the
    last gradients, which say how the loss is curved, then a search along it; see `fastnn.lbfgs`.
    ``batch_size`` must be left out or be the number of rows. Training ends before ``epochs``
    where ``tolerance`` or ``tolerance_change`` says that it is done, or where the arithmetic
    allows no lower loss: take ``dtype="float64"`` to come close to a minimum.

    Parameters
    ----------
    learning_rate : float or Schedule, default 1
        Length of the first try of each search, in directions: 1 is Newton's step. The schedule
        counts iterations.
    memory : int, default 10
        Pairs of steps and changes of the gradient that are kept, as in scipy.
    max_line_search : int, default 25
        Evaluations of loss and gradient in one search, at the most; as in PyTorch.
    tolerance : float, default 1e-7
        Done where no number of the gradient is further from 0; as in PyTorch.
    tolerance_change : float, default 1e-9
        Done where no parameter moves further in one iteration; as in PyTorch.
    decay : float, default 0
        See `Optimizer`.

    Notes
    -----
    Source: Nocedal and Wright (2006), *Numerical Optimization*, algorithms 7.4 and 7.5; search
    for the strong Wolfe conditions after algorithms 3.5 and 3.6. The loss must be the same
    function at each evaluation: no noise and no dropout. Gradients are not clipped.

    Examples
    --------
    >>> import fastnn as fnn
    >>> x, y = fnn.datasets.xor()
    >>> net = fnn.Network(
    ...     [fnn.Dense(8, "tanh"), fnn.Dense(1, "sigmoid")],
    ...     loss="binary_cross_entropy", optimizer=LBFGS(), dtype="float64", seed=0,
    ... )
    >>> history = net.fit(x, y, epochs=50, verbose=0)
    >>> net.predict(x).round().ravel()
    array([0., 1., 1., 0.])
    """

    learning_rate: float | Schedule = 1.0
    _: KW_ONLY
    memory: int = 10
    max_line_search: int = 25
    tolerance: float = 1e-7
    tolerance_change: float = 1e-9

    def check(self) -> None:
        """As `Optimizer.check`."""
        super().check()
        for name in ("clip_value", "clip_norm", "global_clip_norm"):
            if getattr(self, name) is not None:
                raise ValueError(f"LBFGS needs gradients as they are: leave {name} out")
        if self.ema is not None:
            raise ValueError("LBFGS keeps no average of the weights: leave ema out")
        self.memory = whole("memory", self.memory)
        self.max_line_search = whole("max_line_search", self.max_line_search)
        self.tolerance = number("tolerance", self.tolerance, least=0)
        self.tolerance_change = number("tolerance_change", self.tolerance_change, least=0)

    @property
    def rule(self) -> str:
        """Losses and gradients come from steps of size 0."""
        return "sgd"

    def fields(self) -> dict[str, float]:
        """No update of `fastnn.kernels` reads them."""
        return {}


OPTIMIZERS = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
    "nadam": Nadam,
    "lion": Lion,
    "lbfgs": LBFGS,
}


def get(value: Any) -> Optimizer:
    """An optimizer by its name with its defaults, or the object itself."""
    if isinstance(value, Optimizer):
        return value
    if isinstance(value, type) and issubclass(value, Optimizer):
        raise TypeError(f"optimizer must be an object, got the class: write {value.__name__}()")
    return OPTIMIZERS[one_of("optimizer", value, OPTIMIZERS)]()
